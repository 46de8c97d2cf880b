"""The base of all sections of a recipe, and the types that they share."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

Text = Annotated[str, Field(pattern=r"\S")]

Count = Annotated[int, Field(gt=0)]

DType = Literal["bfloat16", "float16", "float32"]


class Spec(BaseModel):
    """A section of a recipe: frozen, no unknown keys, no silent conversion of a value of another type."""

    # Defaults are validated too, so that a rule between two keys also sees the one that was left out.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


def listed(words: Iterable[str]) -> str:
    """The words with commas between them, as messages show what exists."""
    return ", ".join(words)


def no_twins(values: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Refuse a list that names something twice; return it otherwise. Used as a field's validator."""
    twins = sorted({value for value in values or () if (values or ()).count(value) > 1})
    if twins:
        raise ValueError(f"{listed(twins)} is there twice; once is enough")
    return values
