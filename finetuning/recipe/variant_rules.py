"""What is wrong with the section `variants`: settings that no variant may change, or that their keys do not allow."""

from collections.abc import Iterator
from math import prod

from pydantic import ValidationError

from finetuning.recipe.lora import LoraSpec
from finetuning.recipe.mistakes import KeyPath, dotted, mistakes, nearest
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.reward import OF_GROUPS
from finetuning.recipe.rules import contradictions
from finetuning.recipe.sections import sections
from finetuning.recipe.spec import Spec, listed, remade_by
from finetuning.recipe.training import TrainingSpec
from finetuning.recipe.trials import MOST, Variant, in_words, settled, variants_of, written

SECTIONS: dict[str, type[Spec]] = {"lora": LoraSpec, "training": TrainingSpec}
# Losses of two such settings are no two measurements of one thing; and an exam computes in the format of the training.
APART = (
    "lora.from",
    "lora.merge",
    "training.method",
    "training.beta",
    "training.loss_type",
    "training.desirable_weight",
    "training.undesirable_weight",
    "training.bf16",
    *(f"training.{key}" for key in OF_GROUPS),
)
SHARED = ("raw_dataset", "chat_dataset", "quantized_base_model")


def changeable() -> list[str]:
    """The paths of all keys that a variant may change: those that make another adapter, of the same data and base."""
    paths = [
        f"{section}.{field.alias or name}"
        for section, spec in SECTIONS.items()
        for name, field in spec.model_fields.items()
        if (declared := remade_by(spec, name)) and "lora_adapter" in declared.by_value
    ]
    return [path for path in paths if path not in APART]


def variant_mistakes(recipe: Recipe) -> Iterator[tuple[KeyPath, str]]:
    """The place of each mistake in the variants of a recipe that is right otherwise, and what to do about it."""
    spec = recipe.variants
    if spec is None:
        return
    place: KeyPath = ("variants", "grid" if spec.grid is not None else "list")
    named = [*(spec.grid or {}), *(key for changes in spec.list or () for key in changes)]
    if strange := [key for key in dict.fromkeys(named) if key not in changeable()]:
        for key in strange:
            yield place, f"{key}: {_refusal(key)}"
        return
    combinations = prod(map(len, (spec.grid or {}).values()))
    if combinations > MOST:
        yield place, f"{combinations:,} combinations, of which {MOST:,} can be told apart at most; write fewer values"
        return
    tried = variants_of(recipe)
    if len(tried) < 2:
        yield place, "one variant alone, so that there is nothing to choose; write several, or leave `variants` out"
        return
    said: set[tuple[KeyPath, str]] = set()
    for variant in tried:
        for mistake in _mistakes_of(recipe, variant):
            if mistake not in said:
                said.add(mistake)
                yield mistake


def _refusal(key: str) -> str:
    if key in APART:
        return (
            "no variant may change it, since losses could not be compared; write a recipe of its own, whose exam can be"
        )
    section = key.partition(".")[0]
    if section in ("chat", "dataset", "base_model", "context", "knowledge"):
        return (
            "variants share data and base model, and losses over other tokens are not compared; exams compare what "
            f"{section} decides: write a recipe of its own"
        )
    there = changeable()
    return f"no key that a variant may change{nearest(key, there) or f'; there are {listed(there)}'}"


def _mistakes_of(recipe: Recipe, variant: Variant) -> Iterator[tuple[KeyPath, str]]:
    data = written(recipe, variant.changes)
    found = list(contradictions(data))
    try:
        changed = settled(recipe, variant.changes)
    except ValidationError as error:
        found += mistakes(error, Recipe)
    else:
        for asset in SHARED:
            if sections(changed, asset) != sections(recipe, asset):
                yield (
                    variant.place,
                    f"{in_words(variant.changes)}: changes {asset}, which all variants share; leave it out",
                )
    for path, message in found:
        yield variant.place, f"{dotted(path)}: {message}"
