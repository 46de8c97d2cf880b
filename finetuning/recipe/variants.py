"""The section `variants`: settings of `lora` and `training` that are tried before the adapter is trained."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, JsonValue, ValidationInfo, field_validator

from finetuning.recipe.mistakes import section_mistake
from finetuning.recipe.spec import Count, Spec, remakes


class VariantsSpec(Spec):
    """Settings that are tried: exactly one of `grid` and `list` says which."""

    model_config = ConfigDict(json_schema_extra=remakes("variants"))

    grid: dict[str, Annotated[tuple[JsonValue, ...], Field(strict=False, min_length=1)]] | None = Field(
        default=None,
        description="Values by key, of which every combination is a variant: `{lora.r: [8, 16], "
        "training.learning_rate: [1.0e-4, 2.0e-4]}`. All keys of `lora` and `training` can stand here that make "
        "another adapter of the same data and base model, and whose losses can be compared.",
    )
    list: Annotated[tuple[dict[str, JsonValue], ...], Field(strict=False, min_length=2)] | None = Field(
        default=None,
        description="The variants one by one: `[{lora.r: 8}, {lora.r: 16, training.learning_rate: 1.0e-4}]`. What one "
        "does not name is as in the recipe.",
    )
    runs: Count | None = Field(
        default=None,
        description="Most variants that are tried, drawn from all with `seed`; `null` tries all of them.",
    )
    minutes: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="Minutes of training after which no other one is begun, and the best so far is chosen; `null` for "
        "no such limit.",
    )
    first_share: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="Share of the training after which the variants are compared for the first time.",
    )
    reduction_factor: Annotated[int, Field(ge=2)] = Field(
        default=2,
        description="At each comparison one in so many goes on, those with the lowest eval loss, to the next one, "
        "which is so many times later (successive halving).",
    )
    seed: Annotated[int, Field(ge=0)] = Field(default=42, description="Seed of the draw by `runs`.")

    @field_validator("list")
    @classmethod
    def _one_way(cls, value: Any, info: ValidationInfo) -> Any:
        if "grid" in info.data and (info.data["grid"] is None) == (value is None):
            found = "neither grid nor list" if value is None else "both grid and list"
            raise section_mistake(f"has {found}; write exactly one of them")
        return value
