"""Prints the recipes whose adapters a recipe goes on from and that have none yet, those to be trained first first.

python -m pipelines.starts smollm2-135m-grpo
"""

import sys

from finetuning.errors import FinetuningError
from finetuning.paths import is_path
from finetuning.recipe.loading import find
from finetuning.recipe.smoke import load_for_run


def starts(name: str) -> list[str]:
    """The names of the recipes that `lora.from` of the recipe names, and of its start, and so on; the first one first.

    Empty for a recipe that is not there or wrong, of which its own run tells.
    """
    found: list[str] = []
    known = find()
    while name in known and name not in found:
        found.append(name)
        try:
            start = load_for_run(name).lora.start_from
        except FinetuningError:
            break
        if start is None or is_path(start):
            break
        name = start
    return found[:0:-1]


def main(name: str) -> None:
    """Print those of them that have no adapter."""
    if not (found := starts(name)):
        return
    from pipelines.definitions import artifacts  # which takes seconds
    from pipelines.results import in_force

    print("\n".join(start for start in found if in_force(artifacts, "lora_adapter", start) is None))


if __name__ == "__main__":
    main(sys.argv[1])
