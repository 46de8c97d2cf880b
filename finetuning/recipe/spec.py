"""The base of all sections of a recipe, the types that they share, and what a changed key remakes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

Text = Annotated[str, Field(pattern=r"\S")]

Count = Annotated[int, Field(gt=0)]

DType = Literal["bfloat16", "float16", "float32"]

# What a recipe makes, in the order of the line. The answers and benchmarks of base and published model are made with
# the evaluation report and stored beside it, for other recipes to use.
Made = Literal[
    "raw_dataset",
    "documents",
    "passages",
    "retrieval_index",
    "chat_dataset",
    "quantized_base_model",
    "variants",
    "lora_adapter",
    "base_answers",
    "published_answers",
    "base_benchmarks",
    "evaluation_report",
    "merged_model",
    "published_repo",
    "published_merged_repo",
]


class Spec(BaseModel):
    """A section of a recipe: frozen, no unknown keys, no silent conversion of a value of another type."""

    # Defaults are validated too, so that a rule between two keys also sees the one that was left out.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


class Remakes(BaseModel, frozen=True):
    """What a key remakes when its value changes."""

    by_value: tuple[Made, ...] = ()
    """Whose fingerprint holds the value itself."""
    by_meaning: tuple[Made, ...] = ()
    """Whose fingerprint holds what the value stands for, such as the commit of a branch."""
    silent_default: bool = False
    """Whether fingerprints leave the value out while it is the default."""


def remakes(*made: Made, by_meaning: tuple[Made, ...] = (), silent_default: bool = False) -> JsonDict:
    """Declare what a key remakes: in its `Field`, or in a section's `model_config` for all keys that do not say it.

    What follows in the line is not named: it is remade because its input is.

    Args:
        made: assets whose fingerprint holds the key's value; none at all for a key that remakes nothing.
        by_meaning: assets whose fingerprint holds what the value stands for, such as the commit of a branch.
        silent_default: leave the value out of fingerprints while it is the default, for a key that is newer than
            artifacts that are still good without it.
    """
    declared = Remakes(by_value=made, by_meaning=by_meaning, silent_default=silent_default)
    return {"remakes": declared.model_dump(mode="json")}


def remade_by(section: type[Spec], key: str) -> Remakes | None:
    """What a key of the section declares to remake, or the section for it; None where neither says anything."""
    field = next(field for name, field in section.model_fields.items() if key in (name, field.alias))
    for declared in (field.json_schema_extra, section.model_config.get("json_schema_extra")):
        if isinstance(declared, dict) and "remakes" in declared:
            return Remakes.model_validate_json(json.dumps(declared["remakes"]))
    return None


def listed(words: Iterable[str]) -> str:
    """The words with commas between them, as messages show what exists."""
    return ", ".join(words)


def in_yaml(value: Sequence[str] | Mapping[str, str]) -> str:
    """A list or mapping of names as it stands in a recipe, whole and with quotes where YAML needs them.

    >>> in_yaml({"answer": " answer", "question": "Question, en"}), in_yaml(["id", "#1"])
    ("{answer: ' answer', question: 'Question, en'}", "[id, '#1']")
    """
    plain = dict(value) if isinstance(value, Mapping) else list(value)
    return yaml.safe_dump(
        plain, default_flow_style=True, allow_unicode=True, sort_keys=False, width=float("inf")
    ).strip()


def no_twins(values: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Refuse a list that names something twice; return it otherwise. Used as a field's validator."""
    twins = sorted({value for value in values or () if (values or ()).count(value) > 1})
    if twins:
        raise ValueError(f"{listed(twins)} is there twice; once is enough")
    return values
