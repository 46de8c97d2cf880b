"""The section `lora`: the adapter, in peft's own words."""

from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from finetuning.recipe.mistakes import as_yaml
from finetuning.recipe.spec import Count, Spec, Text, listed, remakes

# Of which peft keeps a share of the numbers of each adapter, the largest ones or some at random.
PRUNING = ("ties", "dare_linear", "dare_ties", "magnitude_prune")
RANDOM = ("dare_linear", "dare_ties")
SIGNED = ("ties", "dare_ties")


class LoraMergeSpec(Spec):
    """Adapters of other recipes as one, by the names of peft's `add_weighted_adapter`."""

    model_config = ConfigDict(json_schema_extra=remakes("lora_adapter"))

    adapters: dict[str, float] = Field(
        min_length=2,
        description="The weight of each adapter, by the name of the recipe that trains it: `{maths: 0.7, code: 0.3}`.",
    )
    combination_type: Literal["cat", "linear", "ties", "dare_linear", "dare_ties", "magnitude_prune"] = Field(
        default="cat",
        description="How they become one: `cat` adds what they change, exactly, and has the ranks of all together; the "
        "others work on the matrices A and B apart, which is near that sum, and keep the rank that all of them have.",
    )
    density: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Share of each adapter's numbers that are kept: the largest, or with `dare_linear` and `dare_ties` "
        "some at random, scaled up. Needed by all types but `cat` and `linear`.",
    )
    majority_sign_method: Literal["total", "frequency"] = Field(
        default="total",
        description="Which sign a number has where adapters differ in it, with `ties` and `dare_ties`: that of the "
        "sum, or of most of them.",
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        default=42, description="Seed of what `dare_linear` and `dare_ties` keep at random."
    )

    @field_validator("adapters")
    @classmethod
    def _no_zero(cls, value: dict[str, float]) -> dict[str, float]:
        if idle := [name for name, weight in value.items() if weight == 0]:
            raise ValueError(f"{listed(idle)} with weight 0 would do nothing; leave it out, or give it another weight")
        return value

    @field_validator("density")
    @classmethod
    def _where_it_says_something(cls, value: float | None, info: ValidationInfo) -> float | None:
        kind = info.data.get("combination_type")
        if kind in PRUNING and value is None:
            raise ValueError(f"missing, and combination_type is {kind}; write a share, such as 0.5")
        if kind is not None and kind not in PRUNING and value is not None:
            raise ValueError(f"{value:g} with combination_type: {kind}, which keeps all; leave it out")
        return value

    @field_validator("majority_sign_method", "seed")
    @classmethod
    def _of_some_types(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = RANDOM if info.field_name == "seed" else SIGNED
        kind, default = info.data.get("combination_type"), cls.model_fields[str(info.field_name)].default
        if kind is not None and kind not in kinds and value != default:
            raise ValueError(f"{value} with combination_type: {kind}; it is for {' and '.join(kinds)}, so leave it out")
        return value


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
    merge: LoraMergeSpec | None = Field(
        default=None,
        description="Adapters of other recipes that become one, in place of a training; `null` trains.",
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
