"""What a training process is told, how it ends, and the names of the files by which it says so. Imports no torch."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from finetuning.errors import FinetuningError
from finetuning.recipe.knowledge import ContextSpec
from finetuning.recipe.lora import LoraSpec
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.resources import Strategy
from finetuning.recipe.training import TrainingSpec


@dataclass(frozen=True)
class BatchSize:
    """How a step's rows are cut: rows of one forward pass on one device, and forward passes of one step."""

    rows: int
    accumulation: int

    def halved(self) -> "BatchSize":
        """Return the same step in passes of half as many rows."""
        return BatchSize(-(-self.rows // 2), self.accumulation * 2)


class TooLarge(FinetuningError):
    """Memory ran out, and the recipe allows smaller passes: those of `size` are tried next."""

    def __init__(self, size: BatchSize) -> None:
        super().__init__(f"out of memory: going on with {size.rows} rows a pass and {size.accumulation} passes a step")
        self.size = size


class TrainingTask(BaseModel):
    """What is trained, and how; the same on every machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str
    """The recipe's file, for messages."""
    lora: LoraSpec
    training: TrainingSpec
    max_length: int
    answer_markers: tuple[str, ...] = ()
    """Of answers that are rewarded: words after which a final answer stands."""
    context: ContextSpec | None = None
    """Of answers that are rewarded: what they were asked with, where that was with passages."""
    strategy: Strategy = "ddp"
    """What each of several processes holds of the base model."""
    batch_size: BatchSize | None = None
    """Where memory ran out before: how a step's rows are cut, instead of as the recipe says."""
    kept_layers: int = 0
    """Where activations are computed twice: how many layers, the last ones, keep theirs all the same."""
    writes_weights_out: bool = False
    """Whether weights of 4 bits are written out before the first step, and not anew in every pass."""
    fit: str | None = None
    """What to say and to change when memory runs out, where it was predicted."""

    @classmethod
    def of(cls, recipe: Recipe) -> "TrainingTask":
        """Return what the recipe asks a training to do."""
        return TrainingTask(
            where=recipe.file,
            lora=recipe.lora,
            training=recipe.training,
            max_length=recipe.chat.max_length,
            answer_markers=recipe.evaluation.answer_markers,
            context=recipe.context,
            strategy=recipe.resources.strategy,
        )


class TrainingJob(TrainingTask):
    """A task on one machine: all that one training reads, and where it writes. Paths are folders."""

    chat_dataset: Path
    base_model: Path
    model_kwargs: dict[str, Any]
    """Keyword arguments (JSON) of `from_pretrained`, from `Gpu.model_kwargs`."""
    output: Path
    recipe: Recipe | None = None
    """As it runs on this machine, where what it needs of the memory is to be predicted before."""
    until: float | None = Field(default=None, gt=0, lt=1)
    """The share of its steps after which training stops, to go on another time; it leaves a checkpoint, no adapter."""
    checkpoints: Path = Field(default_factory=lambda job: job["output"].with_name(f"{job['output'].name}.checkpoints"))
    """Checkpoints of this very job, which outlive a failure."""


# Beside the job: what a child writes about a mistake that the user can mend, of which kind, about where it hung, where
# memory ran out, how it would go on in a new process, and what the first of several found out for all.
FAILURE, FAILURE_KIND, HANG, SMALLER = "failure.txt", "failure-kind.txt", "hang.txt", "batch_size.json"
SETTLED = "settled.json"

# What an evaluation of preferences, or of judged answers, gives beside a loss.
REWARDS = ("reward_accuracy", "reward_margin", "reward_chosen", "reward_rejected", "kl")

RAN_OUT = "training ran out of memory"  # as `failure.txt` says it

# Exit codes of a child: a mistake that the user can mend; asked to end; memory ran out, and smaller passes come next.
MISTAKE, INTERRUPTED, TOO_LARGE = 3, 4, 5

# torch's variables for how a GPU's memory is given out; the first is that of today.
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")

# A child that was told to end writes a checkpoint first.
SECONDS_TO_END = 60


def allocator_settings() -> dict[str, str]:
    """Return the variables by which torch gives a GPU's memory out in segments that grow; none where one is set.

    Batches of rows of many lengths leave holes in segments of fixed sizes.
    """
    return {} if any(name in os.environ for name in ALLOCATOR) else {ALLOCATOR[0]: "expandable_segments:True"}
