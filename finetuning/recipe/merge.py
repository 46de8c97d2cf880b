"""The section `merge`: base model and adapter as one model, for recipes that ask for it."""

from typing import Literal

from pydantic import (
    Field,
)

from finetuning.recipe.spec import DType, Spec, remakes

GgufType = Literal["f16", "bf16", "q8_0"]


class MergeSpec(Spec):
    """The model with the adapter merged into its weights."""

    dtype: DType = Field(
        default="bfloat16",
        description="Number format of the merged weights.",
        json_schema_extra=remakes("merged_model"),
    )
    gguf: GgufType | None = Field(
        default=None,
        description="Also write the model as one GGUF file, for llama.cpp and programs that are built on it: `f16`, "
        "`bf16`, or `q8_0` for 8 bits a weight. Llama, Mistral, Qwen 2 and 3, Gemma 2 and 3 can be.",
        json_schema_extra=remakes("merged_model", silent_default=True),
    )
    min_agreement: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="Least share of tokens of eval rows that merged model and adapter both find likeliest.",
        json_schema_extra=remakes(),
    )
    max_kl: float = Field(
        default=0.02,
        gt=0,
        description="Most that the merged model's distribution may diverge there, in nats a token.",
        json_schema_extra=remakes(),
    )
