"""Records the steps of a training on a GPU, its memory there, and how fast that GPU multiplies matrices."""

import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from benchmarks.gpu_jobs import Training
from benchmarks.training_recorder import Recorder, Steps, versions
from finetuning.out_of_memory import is_out_of_memory

PRODUCTS, WARM_UP_PRODUCTS = 20, 5


class DeviceRecorder(Recorder):
    """Records when the device, which works behind the process, has ended a step."""

    def __init__(self, started: float) -> None:
        super().__init__(started)
        self.peak_gb: float | None = None
        """The most memory of the GPU that tensors held; None without a GPU."""
        self.reserved_gb: float | None = None
        """The same with what torch kept free between them."""

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """What a training did that ran out of memory before this one is on record no more."""
        super().on_train_begin(*args, **kwargs)
        self.steps = Steps(self.steps.started)
        self._tokens, self._positions = 0, 0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A step is on record, once the device is done with it."""
        synchronize()
        super().on_step_end(args, state, control, **kwargs)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The memory is on record."""
        if torch.cuda.is_available():
            self.peak_gb = torch.cuda.max_memory_allocated() / 1e9
            self.reserved_gb = torch.cuda.max_memory_reserved() / 1e9

    def report(self, job: Training, rows_per_pass: int) -> None:
        """The record is written."""
        record = {
            "seconds_to_first_step": self.steps.ends[0],
            "peak_gb": self.peak_gb,
            "reserved_gb": self.reserved_gb,
            "rows_per_pass": rows_per_pass,
            "operations_per_second": matrix_rate(job.matrix),
            "step_ends": self.steps.ends,
            "step_tokens": self.steps.tokens,
            "step_positions": self.steps.positions,
            "losses": self.steps.losses,
            "versions": versions() | {"cuda": torch.version.cuda},
        }
        Path(job.record).write_text(json.dumps(record))


def rows_that_fit(attempt: Callable[[int], None], rows: int) -> int:
    """With how many rows `attempt` ran: `rows`, or the most that memory takes of half as many, a quarter, …

    Raises:
        RuntimeError: memory ran out with a single row.
    """
    while True:
        try:
            attempt(rows)
            return rows
        except Exception as error:
            if rows == 1 or not is_out_of_memory(error):
                raise
        # Outside of the handler, whose traceback holds all of the failed attempt's tensors.
        rows //= 2
        gc.collect()
        torch.cuda.empty_cache()


def matrix_rate(size: int) -> float:
    """Floating-point operations a second of one product of two square matrices in bfloat16 after the other."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Random, since a GPU multiplies zeros faster.
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    for _ in range(WARM_UP_PRODUCTS):
        torch.mm(left, right)
    synchronize()
    started = time.perf_counter()
    for _ in range(PRODUCTS):
        torch.mm(left, right)
    synchronize()
    return PRODUCTS * 2 * size**3 / (time.perf_counter() - started)


def synchronize() -> None:
    """The GPU, if there is one, has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
