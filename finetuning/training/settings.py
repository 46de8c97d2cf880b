"""A recipe's training section as trl's and transformers' own settings."""

import os
from pathlib import Path
from typing import Any

from transformers.integrations import get_available_reporting_integrations
from trl import SFTConfig

from finetuning.base_model.rows_apart import keeps_rows_apart
from finetuning.errors import FinetuningError
from finetuning.recipe.base_model import KEEP_ROWS_APART
from finetuning.recipe.reward import OF_GROUPS
from finetuning.training.job import BatchSize, TrainingJob
from finetuning.training.supervised_loss import hands_on

# Keys of the recipe's section that are this project's own, or trl's for a method; the others are transformers'.
OURS = {
    *OF_GROUPS,
    "packing",
    "method",
    "beta",
    "loss_type",
    "desirable_weight",
    "undesirable_weight",
    "train_sampling_strategy",
    "loraplus_lr_ratio",
    "tokens_per_step",
    "eval_steps",
    "early_stopping_patience",
    "report_to",
    "on_oom",
    "save_steps",
    "save_minutes",
    "step_timeout_minutes",
}


class UnplacedConfig(SFTConfig):
    """The settings of a trainer that leaves the model where it is."""

    @property
    def place_model_on_device(self) -> bool:
        """False."""
        return False


def model_kwargs(job: TrainingJob) -> dict[str, Any]:
    """The job's, with the GPU of this process where several train together."""
    # What is going to be sharded need not have room on one GPU before.
    device = "cpu" if on_cpu(job) or is_sharded(job) else int(os.environ.get("LOCAL_RANK", 0))
    return job.model_kwargs | {"device_map": {"": device}}


def on_cpu(job: TrainingJob) -> bool:
    """Whether training is to take place on the CPU."""
    return job.model_kwargs["device_map"][""] == "cpu"


def is_sharded(job: TrainingJob) -> bool:
    """Whether each of several processes holds a part of the base model only."""
    return job.strategy == "fsdp" and processes() > 1


def processes() -> int:
    """How many processes train together, as the launcher of this one said."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leaves_padding_out(job: TrainingJob, size: BatchSize, model: Any) -> bool:
    """Whether the rows of a pass lie end to end, with no padding between them.

    Only on a GPU, of more than one row, and where the kernel keeps them apart by bounds that the model hands on to it:
    for any other the host would ask the GPU in every layer where they are.
    """
    spec = job.training
    several = size.rows > 1 or spec.tokens_per_step is not None
    # The noise on embeddings is weaker in longer rows, as which transformers would take all of them together.
    if spec.method != "sft" or not several or spec.neftune_noise_alpha or on_cpu(job) or is_sharded(job):
        return False
    return model.config._attn_implementation in KEEP_ROWS_APART and hands_on(model) and keeps_rows_apart(model)


def sft_config(job: TrainingJob, size: BatchSize, padding_free: bool = False) -> SFTConfig:
    """The recipe's training settings, and those that are not a matter of taste."""
    return (UnplacedConfig if is_sharded(job) else SFTConfig)(
        **shared_settings(job, size),
        packing=job.training.packing,
        # Rows come tokenized, with labels, and no longer than chat.max_length.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        padding_free=padding_free,
        include_num_input_tokens_seen="non_padding",
    )


def shared_settings(job: TrainingJob, size: BatchSize) -> dict[str, Any]:
    """Those of them that transformers has for all methods."""
    dtype = job.model_kwargs["dtype"]
    settings = job.training.model_dump(exclude=OURS)
    settings |= {"per_device_train_batch_size": size.rows, "gradient_accumulation_steps": size.accumulation}
    # Where nobody decided, what needs the least memory.
    settings |= {"activation_checkpointing": settings["activation_checkpointing"] is not False}
    # A GPU without bfloat16 computes in float16, whatever the recipe wishes.
    settings |= {"bf16": settings["bf16"] and dtype == "bfloat16", "fp16": dtype == "float16"}
    return settings | {
        "output_dir": str(job.checkpoints),
        "run_name": Path(job.where).stem,  # as trackers show it
        "save_strategy": "no",
        "report_to": [name for name in trackers(job) if name != "tensorboard"],  # which `Curves` writes
        "disable_tqdm": True,
        # The filter replaces a loss that is not a number by the mean of those before it.
        "logging_nan_inf_filter": False,
        "use_cpu": on_cpu(job),
        "dataloader_pin_memory": not on_cpu(job),
    }


def trackers(job: TrainingJob) -> list[str]:
    """The names of the recipe's trackers.

    Raises:
        FinetuningError: one of them is not installed.
    """
    there = get_available_reporting_integrations()
    for name in job.training.report_to:
        if name not in there:
            raise FinetuningError(
                f"{job.where}: training.report_to: {name} is not installed here; there are {', '.join(there)}. Install "
                "its package, or take it off the list."
            )
    return list(job.training.report_to)
