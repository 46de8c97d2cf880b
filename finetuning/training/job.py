"""How a training step's rows are cut into forward passes, and what becomes of that when memory runs out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from finetuning.errors import FinetuningError
from finetuning.recipe.lora import LoraSpec
from finetuning.recipe.resources import Strategy
from finetuning.recipe.training import TrainingSpec


@dataclass(frozen=True)
class BatchSize:
    """How a step's rows are cut: rows of one forward pass on one device, and forward passes of one step."""

    rows: int
    accumulation: int

    def halved(self) -> "BatchSize":
        """The same step in smaller pieces."""
        return BatchSize(-(-self.rows // 2), self.accumulation * 2)


class TooLarge(FinetuningError):
    """Memory ran out, and the recipe allows for smaller passes: those of `size` are the next to be tried."""

    def __init__(self, size: BatchSize) -> None:
        super().__init__(f"out of memory: going on with {size.rows} rows a pass and {size.accumulation} passes a step")
        self.size = size


class TrainingJob(BaseModel):
    """All that one training reads and where it writes; paths are folders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str
    lora: LoraSpec
    training: TrainingSpec
    max_length: int
    chat_dataset: Path
    base_model: Path
    model_kwargs: dict[str, Any]
    output: Path
    strategy: Strategy = "ddp"
    """What each of several processes holds of the base model."""
    batch_size: BatchSize | None = None
    """Where memory ran out before: how a step's rows are cut, instead of as the recipe says."""
    fit: str | None = None
    """What to say and to change when memory runs out, where it was predicted."""
    checkpoints: Path = Field(default_factory=lambda job: job["output"].with_name(f"{job['output'].name}.checkpoints"))
    """Checkpoints of this very job, which outlive a failure."""


# Beside the job: what a child writes about a mistake that the user can mend, of which kind, about where it hung, and,
# where memory ran out, how it would go on in a new process.
FAILURE, FAILURE_KIND, HANG, SMALLER = "failure.txt", "failure-kind.txt", "hang.txt", "batch_size.json"

INTERRUPTED = 4  # the exit code of a child that was asked to end

# A child that was told to end writes a checkpoint first.
SECONDS_TO_END = 60
