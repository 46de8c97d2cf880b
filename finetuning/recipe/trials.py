"""The variants of a recipe, each by itself and as a recipe.

>>> variants_of(load("smollm2-135m-sweep"))[0].changes
{'training.learning_rate': 0.0001}
"""

from collections.abc import Iterator, Mapping
from itertools import islice, product
from random import Random
from typing import Any, NamedTuple

from pydantic import JsonValue

from finetuning.recipe.mistakes import KeyPath
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.variants import VariantsSpec

Changes = Mapping[str, JsonValue]
MOST = 1000  # combinations of a grid


class Variant(NamedTuple):
    """Settings to try, and the place in the recipe that says so."""

    changes: Changes
    place: KeyPath


def in_words(changes: Changes) -> str:
    """The settings of a variant as a recipe has them; `as written` where there are none."""
    return ", ".join(f"{key}: {value}" for key, value in changes.items()) or "as written"


def variants_of(recipe: Recipe) -> list[Variant]:
    """The variants of a recipe in their order, no two alike; those that `runs` draws where there are more."""
    spec = recipe.variants
    if spec is None:
        return []
    found: list[Variant] = []
    for variant in _written(spec):
        if all(variant.changes != other.changes for other in found):
            found.append(variant)
    if spec.runs is None or spec.runs >= len(found):
        return found
    drawn = sorted(Random(spec.seed).sample(range(len(found)), spec.runs))
    return [found[number] for number in drawn]


def _written(spec: VariantsSpec) -> Iterator[Variant]:
    if spec.list is not None:
        yield from (Variant(changes, ("variants", "list", i)) for i, changes in enumerate(spec.list))
        return
    grid = spec.grid or {}
    for values in islice(product(*grid.values()), MOST):
        yield Variant(dict(zip(grid, values, strict=True)), ("variants", "grid"))


def settled(recipe: Recipe, changes: Changes) -> Recipe:
    """The recipe with these settings, and nothing left to try.

    Raises:
        ValidationError: one is no value of its key, or does not go with another key.
    """
    changed = Recipe.model_validate(written(recipe, changes)).at(recipe.path)
    return changed.as_smoke() if recipe.smoke else changed


def written(recipe: Recipe, changes: Changes) -> Mapping[str, Any]:
    """The data of such a recipe, as a file would have it."""
    data = recipe.model_dump(mode="json", exclude_unset=True, exclude={"variants"})
    for path, value in changes.items():
        section, _, key = path.partition(".")
        data[section] = {**data.get(section, {}), key: value}
    return data
