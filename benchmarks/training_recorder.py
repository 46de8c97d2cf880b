"""Records the steps of a training: when each ended, its tokens and its loss.

It needs transformers and nothing of the project: every side runs it in its own environment.
"""

import json
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmarks.memory import resident
from benchmarks.training_jobs import NOT_SUPERVISED, Training

PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "trl", "llamafactory")


class Steps:
    """When each step ended (seconds since the process started), its tokens, its positions and its loss.

    Tokens are those of the rows; positions have the padding too. `cpu_seconds` of all threads until then tell whether
    anything else was at work on the machine.
    """

    def __init__(self, started: float) -> None:
        self.started = started
        self.ends: list[float] = []
        self.cpu_seconds: list[float] = []
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.losses: list[float] = []

    def add(self, tokens: int, positions: int) -> None:
        """A step that ends now is on record."""
        self.ends.append(time.monotonic() - self.started)
        self.cpu_seconds.append(time.process_time())
        self.tokens.append(tokens)
        self.positions.append(positions)

    def report(self, job: Training, rows: Any) -> None:
        """The record is written, with the sums over `rows` and the most memory that was held."""
        trained = [rows[i] for i in range(len(rows))]
        record = {
            "seconds_to_first_step": self.ends[0],
            "peak_mb": resident("VmHWM"),
            "rows": len(trained),
            "tokens": sum(len(row["input_ids"]) for row in trained),
            "supervised_tokens": sum(label != NOT_SUPERVISED for row in trained for label in row["labels"]),
            "step_ends": self.ends,
            "step_cpu_seconds": self.cpu_seconds,
            "step_tokens": self.tokens,
            "step_positions": self.positions,
            "losses": self.losses,
            "versions": versions(),
        }
        Path(job.record).write_text(json.dumps(record))


class Recorder(TrainerCallback):
    """Records the steps of any trainer that is transformers' own underneath, and the rows that it trains on."""

    def __init__(self, started: float) -> None:
        self.steps = Steps(started)
        self.rows: Any = None
        self._tokens, self._positions, self._seen = 0, 0, 0

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """From here on, what goes through the blocks of the model is counted."""
        self.rows = train_dataloader.dataset
        model.get_base_model().base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        mask = kwargs.get("attention_mask")
        self._positions += kwargs["input_ids"].numel()
        self._tokens += kwargs["input_ids"].numel() if mask is None else int(mask.sum())

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A step is on record."""
        # A trainer that counts tokens itself may have the model do without a mask, which would tell them from padding.
        if args.include_num_input_tokens_seen == "non_padding":
            self._tokens, self._seen = state.num_input_tokens_seen - self._seen, state.num_input_tokens_seen
        self.steps.add(self._tokens, self._positions)
        self._tokens, self._positions = 0, 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Its loss is on record."""
        if logs and "loss" in logs:
            self.steps.losses.append(float(logs["loss"]))


def versions() -> dict[str, str]:
    """The versions of the libraries that this side has."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
