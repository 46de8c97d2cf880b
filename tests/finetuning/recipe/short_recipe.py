"""The shortest recipe that is right, with other sections in it, and the mistakes of a file."""

from pathlib import Path

import pytest

from finetuning.recipe.loading import load_file
from finetuning.recipe.mistakes import RecipeError

SHORT = """\
summary: A model that answers
base_model: {repo: some/model}
dataset: {sources: [{hub: some/data, format: messages}]}
hub: {repo: some-adapter, license: mit}
"""


def write(folder: Path, text: str, name: str = "short") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes_of(path: Path) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        load_file(path)
    return str(raised.value).splitlines()


def with_sections(text: str) -> str:
    """The short recipe with the text's sections in the place of its own."""
    given = [line.partition(":")[0] for line in text.splitlines()]
    kept = [line for line in SHORT.splitlines() if line.partition(":")[0] not in given]
    return "\n".join([*kept, text, ""])
