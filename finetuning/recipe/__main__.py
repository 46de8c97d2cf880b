"""The command line of recipes: check them, and print their reference.

python -m finetuning.recipe validate phi-2 mine/gemma.yaml
python -m finetuning.recipe reference > docs/recipe.md
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from finetuning.errors import FinetuningError
from finetuning.recipe.base_model import CHAT_TEMPLATES
from finetuning.recipe.benchmark_names import require_names
from finetuning.recipe.loading import find, folders, load, load_file
from finetuning.recipe.local_files import missing_files
from finetuning.recipe.mistakes import harmless, shown
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.reference import reference
from finetuning.recipe.spec import listed
from finetuning.settings import LOCAL, text_of


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code: 0 when every recipe asked for is right, else 1."""
    parser = argparse.ArgumentParser(prog="python -m finetuning.recipe", description="Check recipes.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("validate", help="check recipes; all of them when none is named")
    check.add_argument("recipes", nargs="*", metavar="NAME|PATH", help="a recipe's name, or a YAML file")
    commands.add_parser("reference", help="print docs/recipe.md, made from the schema")
    chosen = parser.parse_args(arguments)
    if chosen.command == "reference":
        print(reference(), end="")
        return 0
    return validate(chosen.recipes)


def validate(named: Sequence[str]) -> int:
    """Print a line for each right recipe, then all mistakes of the others; return the exit code.

    Args:
        named: names of recipes, or paths of files; empty for all recipes that are found.
    """
    missing = [folder for folder in folders() if not named and not folder.is_dir()]
    wrong = [f"{shown(folder)}: no such folder; see FINETUNING_RECIPES" for folder in missing]
    asked, right = named or list(find()), dict[str, Recipe]()
    if not asked:
        wrong.append(f"no recipe in {listed(map(shown, folders()))}")
    for name in asked:
        try:
            # A path is called by its file: a recipe of the same name may lie in another folder.
            is_path = "/" in name or name.endswith((".yaml", ".yml"))
            recipe = load_file(Path(name)) if is_path else load(name)
            require_named(recipe)
            called = recipe.file if is_path else name
            print(harmless(f"{called}: right ({recipe.summary})"))
            right[called] = recipe
        except FinetuningError as error:
            wrong.append(str(error))
    wrong += shared_repos(right)
    print("".join(f"{harmless(message)}\n" for message in wrong), end="")
    return 1 if wrong else 0


def require_named(recipe: Recipe) -> None:
    """Check that the chat template, the benchmarks and the files that the recipe names are there; asks no network.

    Raises:
        FinetuningError: they are not.
    """
    require_names(recipe.evaluation, recipe.file)
    template = recipe.base_model.chat_template
    shipped = template == "native" or (CHAT_TEMPLATES / f"{template}.jinja").is_file()
    if not shipped and not Path(template).expanduser().is_file():
        raise FinetuningError(
            f"{recipe.file}: base_model.chat_template: {template!r} is not a file (looked in {Path.cwd()})"
        )
    missing = list(missing_files(recipe))
    if missing:
        raise FinetuningError("\n".join(missing))


def shared_repos(recipes: Mapping[str, Recipe]) -> Iterator[str]:
    """Give a line for each repo that more than one recipe would publish to; the Hub takes no notice of case.

    phi-2, phi-2-copy: hub.repo: 'phi-2-basic-maths' is the repo of each, and none publishes over another; rename one

    Args:
        recipes: by what each is called in the line.
    """
    # Of a repo without a namespace the hub's own is meant, which of the local one is known.
    own = f"{LOCAL}/" if text_of("hub") == LOCAL else ""
    owners: dict[str, dict[str, str]] = {}
    shown: dict[str, str] = {}
    for called, recipe in recipes.items():
        for repo in (recipe.hub.repo, *([f"{recipe.hub.repo}-merged"] if recipe.merge else [])):
            # A file that was named twice is one recipe.
            key = repo.casefold().removeprefix(own)
            owners.setdefault(key, {}).setdefault(recipe.file, called)
            shown.setdefault(key, repo)
    for repo, names in owners.items():
        if len(names) > 1:
            who = listed(names.values())
            yield f"{who}: hub.repo: {shown[repo]!r} is the repo of each, and none publishes over another; rename one"


if __name__ == "__main__":
    sys.exit(main())
