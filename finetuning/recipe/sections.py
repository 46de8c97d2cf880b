"""The part of a recipe that an asset is made from, and that its fingerprint holds: what each key declares to remake.

>>> sections(load("phi-2"), "chat_dataset")["chat"]
{'max_length': 1024, 'over_length': 'drop'}
"""

from pydantic import JsonValue
from pydantic.fields import FieldInfo

from finetuning.public_names import without_secrets
from finetuning.recipe.dataset import DatasetSpec, sources
from finetuning.recipe.knowledge import DocumentsSpec
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.rules import OF_EXAM
from finetuning.recipe.source import SourceSpec
from finetuning.recipe.spec import Made, Spec, remade_by


def sections(recipe: Recipe, made: Made) -> dict[str, JsonValue]:
    """Return the keys of the recipe that an asset's fingerprint holds, by section, with their values."""
    found = _keys(recipe, made)
    found.pop("dataset", None)
    if dataset := _dataset(recipe.dataset, made):
        found["dataset"] = dataset
    if recipe.knowledge and made == "documents":
        found["knowledge"] = {"documents": [_source(spec, made) for spec in recipe.knowledge.documents]}
    if made == "variants" and recipe.variants:
        found |= sections(recipe, "lora_adapter")
    if made == "lora_adapter" and recipe.lora.merge:
        found["lora"] = {"merge": recipe.lora.merge.model_dump(mode="json")}
        found["training"] = recipe.training.model_dump(mode="json", include=set(OF_EXAM))
    if made == "quantized_base_model":
        # Only a base model that is made for the adapter's start (LoftQ) depends on the adapter, and on its rank alone.
        del found["lora"]
        if recipe.lora.init_lora_weights == "loftq":
            found["lora"] = {"r": recipe.lora.r}
    return found


# Assets of which a recipe may ask for none, by the section that asks for them.
ASKED_FOR_BY = {
    "documents": "knowledge",
    "passages": "knowledge",
    "retrieval_index": "knowledge",
    "variants": "variants",
    "merged_model": "merge",
    "published_merged_repo": "merge",
}


def asks_for(recipe: Recipe, asset: str) -> bool:
    """Whether the recipe has what the asset is made for.

    >>> asks_for(load("phi-2"), "retrieval_index"), asks_for(load("phi-2"), "chat_dataset")
    (False, True)
    """
    section = ASKED_FOR_BY.get(asset)
    return section is None or getattr(recipe, section) is not None


def _keys(section: Spec, made: Made) -> dict[str, JsonValue]:
    """The keys of a section, and of the sections within it, that remake the asset."""
    found: dict[str, JsonValue] = {}
    values = section.model_dump(mode="json")
    for key, field in type(section).model_fields.items():
        declared, value = remade_by(type(section), key), getattr(section, key)
        if isinstance(value, Spec):
            if inner := _keys(value, made):
                found[key] = inner
        elif declared and made in declared.by_value and not (declared.silent_default and value == _default(field)):
            found[field.alias or key] = values[field.alias or key]
    return found


def _default(field: FieldInfo) -> object:
    """The value of a key that is left out, in a section that has no other."""
    return field.get_default(call_default_factory=True, validated_data={})


def _dataset(dataset: DatasetSpec, made: Made) -> dict[str, JsonValue]:
    """The keys of `dataset`, its sources by the stem of the file that holds their rows."""
    found = _keys(dataset, made)
    held_out = found.pop("eval", None)
    read = {stem: _source(source, made) for stem, (source, _) in sources(dataset).items()}
    if "sources" in found:
        found["sources"] = {**read}
    if isinstance(held_out, dict) and "fraction" in held_out:
        found["eval_fraction"] = held_out["fraction"]
    # All rows of every source are the same ones whatever the seed.
    if made == "raw_dataset" and not any(source["rows"] for source in read.values()):
        found["seed"] = None
    return found


def _source(source: SourceSpec | DocumentsSpec, made: Made) -> dict[str, JsonValue]:
    found = _keys(source, made)
    if found.get("files"):
        found["files"] = [without_secrets(name) for name in source.files or ()]
    return found
