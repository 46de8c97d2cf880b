"""Find recipes in their folders, and load them by name or by file."""

from pathlib import Path

from pydantic import (
    ValidationError,
)

from finetuning.recipe.mistakes import RecipeError, mistakes, nearest, shown
from finetuning.recipe.names import advised, fault_of, twin_of, written
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.rules import contradictions
from finetuning.recipe.spec import listed
from finetuning.recipe.strict_yaml import read_yaml
from finetuning.recipe.variant_rules import variant_mistakes
from finetuning.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def folders() -> list[Path]:
    """Return the folders that recipes are read from: `recipes/` of the checkout, then those of `FINETUNING_RECIPES`."""
    paths = [ROOT / "recipes", *Settings.read("recipes").recipes]
    return list({path.resolve(): path for path in paths}.values())


def _files() -> dict[str, list[Path]]:
    """The files of each name; there is a mistake where a name has several."""
    files: dict[str, list[Path]] = {}
    for folder in folders():
        for path in sorted([*folder.glob("[!.]*.yaml"), *folder.glob("[!.]*.yml")]):
            files.setdefault(path.stem, []).append(path)
    return dict(sorted(files.items()))


def find() -> dict[str, Path]:
    """Return every recipe's name and file, sorted by name. Opens no file: a wrong recipe is found like a right one."""
    return {name: paths[0] for name, paths in _files().items()}


def partitions() -> list[str]:
    """Return the names of all recipes but those that cannot be partitions, which `load` refuses."""
    return [name for name in find() if not fault_of(name)]


def load(name: str) -> Recipe:
    """Load the recipe of that name.

    Raises:
        RecipeError: there is none, two files have the name, or it is wrong.
    """
    files = _files()
    if name not in files:
        where = ", ".join(shown(folder) + ("" if folder.is_dir() else " (no such folder)") for folder in folders())
        there = f"there are: {listed(files)}{nearest(name, files)}" if files else "there is none at all"
        raise RecipeError(f"{name}: no such recipe in {where}; {there}")
    if len(files[name]) > 1:
        raise RecipeError(f"{name}: more than one file has this name: {listed(map(shown, files[name]))}; rename one")
    if twin := twin_of(name, files):
        raise RecipeError(
            f"{name}: {shown(files[name][0])} and {shown(files[twin][0])} have names that some disks take for the "
            "same; rename one"
        )
    return load_file(files[name][0])


def load_file(path: Path) -> Recipe:
    """Load the recipe in that file, named after it.

    Raises:
        RecipeError: it is wrong; the message has all of the file's mistakes, a line each.
    """
    if fault := fault_of(path.stem):
        raise RecipeError(
            f"{shown(path.with_name(written(path.name)))}: no recipe can have the name {path.stem!r}: {fault}. "
            f"Rename the file, such as to {advised(path.stem)}{path.suffix}"
        )
    document = read_yaml(path)
    found = [*document.mistakes, *(document.mistake(key, message) for key, message in contradictions(document.data))]
    if "name" in document.data:
        found.append(document.mistake(("name",), "unknown key; a recipe is named after its file"))
    try:
        recipe = Recipe.model_validate({**document.data, "name": path.stem})
    except ValidationError as error:
        found += [document.mistake(key, message) for key, message in mistakes(error, Recipe)]
    else:
        recipe = recipe.at(path)
        if not found:
            found = [document.mistake(key, message) for key, message in variant_mistakes(recipe)]
        if not found:
            return recipe
    raise RecipeError("\n".join(mistake.text(path) for mistake in sorted(found, key=lambda mistake: mistake.line)))


def adapters_named(recipe: Recipe) -> list[str]:
    """The other recipes whose adapters this one merges, or goes on from."""
    lora = recipe.lora
    named = [*lora.merge.adapters] if lora.merge else [lora.start_from] if lora.start_from else []
    return [name for name in named if name in find()]
