"""What `validate` looks at beyond a recipe's own rules: the files that it names, and the other recipes.

phi-2, phi-2-copy: hub.repo: 'phi-2-basic-maths' is the repo of each, and none publishes over another; rename one
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetuning.errors import FinetuningError
from finetuning.recipe.base_model import CHAT_TEMPLATES
from finetuning.recipe.benchmark_names import require_names
from finetuning.recipe.loading import find, folders, load, load_file
from finetuning.recipe.mistakes import shown
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.spec import listed


def require_named(recipe: Recipe) -> None:
    """Nothing, when the chat template and the benchmarks that the recipe names are there; no network is asked.

    Raises:
        FinetuningError: they are not.
    """
    require_names(recipe.evaluation, recipe.file)
    template = recipe.base_model.chat_template
    shipped = template == "native" or (CHAT_TEMPLATES / f"{template}.jinja").is_file()
    if not shipped and not Path(template).expanduser().is_file():
        raise FinetuningError(
            f"{recipe.file}: base_model.chat_template: {template!r} is no file (looked in {Path.cwd()})"
        )


def shared_repos(recipes: Iterable[Recipe]) -> Iterator[str]:
    """A line for each repo that more than one recipe would publish to."""
    owners: dict[str, list[str]] = {}
    for recipe in recipes:
        for repo in (recipe.hub.repo, *([f"{recipe.hub.repo}-merged"] if recipe.merge else [])):
            owners.setdefault(repo, []).append(recipe.name)
    for repo, names in owners.items():
        if len(names) > 1:
            who = ", ".join(names)
            yield f"{who}: hub.repo: {repo!r} is the repo of each, and none publishes over another; rename one"


def main(arguments: list[str] | None = None) -> int:
    """The exit code of the command line: 0 when every recipe asked for is right, else 1."""
    parser = argparse.ArgumentParser(prog="python -m finetuning.recipe", description="Check recipes.")
    commands = parser.add_subparsers(dest="command", required=True)
    validate = commands.add_parser("validate", help="check recipes; all of them when none is named")
    validate.add_argument("recipes", nargs="*", metavar="NAME|PATH", help="a recipe's name, or a YAML file")
    commands.add_parser("reference", help="print docs/recipe.md, made from the schema")
    chosen = parser.parse_args(arguments)
    if chosen.command == "reference":
        # The reference is made from this module.
        from finetuning.recipe.reference import reference

        print(reference(), end="")
        return 0
    return _validate(chosen.recipes)


def _validate(recipes: list[str]) -> int:
    # It is made from this module.

    missing = [folder for folder in folders() if not recipes and not folder.is_dir()]
    wrong = [f"{shown(folder)}: no such folder; see FINETUNING_RECIPES" for folder in missing]
    names, right = recipes or list(find()), []
    if not names:
        wrong.append(f"no recipe in {listed(map(shown, folders()))}")
    for name in names:
        try:
            is_file = "/" in name or name.endswith((".yaml", ".yml"))
            recipe = load_file(Path(name)) if is_file else load(name)
            require_named(recipe)
            right.append(recipe)
            print(f"{recipe.name}: right ({recipe.summary})")
        except FinetuningError as error:
            wrong.append(str(error))
    wrong += shared_repos(right)
    print("".join(f"{message}\n" for message in wrong), end="")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
