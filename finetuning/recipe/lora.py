"""The section `lora`: the adapter, in peft's own words."""

from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    field_validator,
)

from finetuning.recipe.mistakes import as_yaml
from finetuning.recipe.spec import Count, Spec, Text, remakes


class LoraSpec(Spec):
    """The adapter, by peft's own names."""

    model_config = ConfigDict(json_schema_extra=remakes("lora_adapter"), serialize_by_alias=True)

    r: Count = Field(
        default=16,
        description="Rank of the adapter's matrices.",
        json_schema_extra=remakes("lora_adapter", "quantized_base_model"),
    )
    lora_alpha: Count = Field(default=32, description="The adapter is scaled by `lora_alpha / r`.")
    lora_dropout: float = Field(default=0.05, ge=0, lt=1, description="Share of the adapter's inputs that are zeroed.")
    target_modules: Text | Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] = Field(
        default="all-linear", description="`all-linear` (every linear layer but the head), or a list of module names."
    )
    use_rslora: bool = Field(default=False, description="Scale by `lora_alpha / sqrt(r)` instead; for high ranks.")
    use_dora: bool = Field(default=False, description="Train magnitude and direction apart (DoRA); slower.")
    bias: Literal["none", "all", "lora_only"] = Field(default="none", description="Which biases are trained too.")
    init_lora_weights: Literal[True, "gaussian", "orthogonal", "pissa", "olora", "loftq"] = Field(
        default=True,
        description="How the adapter starts: `true`, `gaussian` and `orthogonal` as no change of the model; `pissa` "
        "and `olora` as a part of its weights, saved as a LoRA adapter of rank `2r` for the model as it was; `loftq` "
        "as the most of what quantization took from the weights that rank `r` can give back.",
        json_schema_extra=remakes("lora_adapter", "quantized_base_model"),
    )
    modules_to_save: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None, description="Modules that are trained and saved whole, such as `lm_head`; `null` for none."
    )
    start_from: Text | None = Field(
        default=None,
        alias="from",  # a word of Python's own
        description="Adapter to go on from: the name of a recipe whose adapter is there, a local folder, or a repo "
        "(`me/adapter`, or `me/adapter@revision`). It says `r`, `lora_alpha` and targets; `null` starts anew.",
        json_schema_extra=remakes("lora_adapter", silent_default=True),
    )

    @field_validator("target_modules", mode="before")
    @classmethod
    def _all_linear_or_names(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "all-linear":
            raise ValueError(f"{value!r} is neither all-linear nor a list of module names; write [{value}]")
        if not isinstance(value, str) and not (
            isinstance(value, (list, tuple)) and value and all(isinstance(name, str) and name.strip() for name in value)
        ):
            raise ValueError(
                f"{as_yaml(value)} is neither all-linear nor a list of module names, such as [q_proj, v_proj]"
            )
        return value
