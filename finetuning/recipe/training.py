"""The section `training`: how the adapter is trained, in the trainer's own words."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
)

from finetuning.recipe.method import MethodSpec
from finetuning.recipe.spec import Count, remakes

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


class TrainingSpec(MethodSpec):
    """How the adapter is trained, by the names of transformers and trl."""

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
        "where training would not fit into the free memory otherwise, in as many layers as it takes.",
        json_schema_extra=remakes(),
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
        "kept. Needs `eval_steps`, and should have `dataset.dev`, or the exam's rows decide; `null` trains to the end.",
    )
    on_oom: Literal["error", "halve-batch"] = Field(
        default="error",
        description="What happens when memory runs out: an error, or the same steps with half as many rows a pass.",
        json_schema_extra=remakes(),
    )
    save_steps: Count | None = Field(
        default=None,
        description="Steps between two checkpoints, beside those by the clock; `null` for these alone.",
        json_schema_extra=remakes(),
    )
    save_minutes: float = Field(
        default=15.0, gt=0, description="Minutes between two checkpoints.", json_schema_extra=remakes()
    )
    save_total_limit: Count = Field(default=2, description="Checkpoints that are kept.", json_schema_extra=remakes())
    step_timeout_minutes: float = Field(
        default=60.0,
        gt=0,
        description="Minutes without any progress after which training is taken for hung.",
        json_schema_extra=remakes(),
    )
    logging_steps: Count = Field(default=10, description="Steps between two points of the loss curve.")
    report_to: Annotated[tuple[Tracker, ...], Field(strict=False)] = Field(
        default=("tensorboard",),
        description="Where the curves go as well: `tensorboard`, the folder of that name in the artifact, or any "
        "tracker that transformers knows and whose package is installed.",
        json_schema_extra=remakes(),
    )
    seed: int = Field(
        default=42, ge=0, description="Seed of the adapter's start, of dropout, and of the order of rows."
    )

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
