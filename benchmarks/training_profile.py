"""Where the time of a training step on a CPU goes: `python -m benchmarks.training_profile`.

It trains as `benchmarks.training` has this project train, on the same rows, and shows what some steps spend on each
kind of operation. The last line of the output is one JSON object.
"""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback, trainer

from benchmarks import training_ours
from benchmarks.sides import WORK
from benchmarks.training import SEED, folder_for, job_of, parse, prepare
from benchmarks.training_jobs import WARM_UP, Training

# The beginnings of the operations' names; the first kind that has one takes it.
KINDS = {
    "matrix products of layers and head": ("aten::mm", "aten::addmm"),
    "attention": ("aten::_scaled_dot_product", "aten::bmm", "aten::baddbmm", "aten::_softmax", "aten::_safe_softmax"),
    "weights out of 4 bits": ("bitsandbytes::", "MatMul4Bit"),
    "loss": ("aten::_log_softmax", "aten::gather", "aten::exp_", "_CrossEntropy"),
    "optimizer": ("aten::_fused_adam", "aten::_foreach", "Optimizer."),
    "copies and conversions": ("aten::copy_", "aten::_to_copy", "aten::clone", "aten::cat", "aten::fill_"),
    "one number at a time (norms, positions, activations, sums)": ("aten::",),
    "Python and autograd": ("",),
}


class Profiler(TrainerCallback):
    """Profiles all steps but those that warm up."""

    def __init__(self) -> None:
        self.profile = profile(activities=[ProfilerActivity.CPU])

    def on_step_begin(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        """Starts with the first step that counts."""
        if state.global_step == WARM_UP:
            self.profile.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        """Stops."""
        self.profile.stop()


def main(arguments: list[str] | None = None) -> None:
    """A table and the JSON object are printed."""
    options = parse(arguments)
    WORK.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="profile-", dir=WORK) as folder:
        work = Path(folder)
        prepare(work, options)
        precision = "bf16" if options.precision == "bf16" else "nf4"
        show(profiled(job_of(folder_for(work, "run"), work, precision, False, SEED)))


def show(seconds: Mapping[str, float]) -> None:
    """Print the share of each kind, the largest first, and the JSON object."""
    total = sum(seconds.values())
    for kind, own in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"{own / total:6.1%}  {kind}")
    print(json.dumps({kind: round(own / total, 4) for kind, own in seconds.items()} | {"seconds": round(total, 2)}))


def profiled(job: Training) -> dict[str, float]:
    """The seconds that the training spends on each kind of operation.

    Raises:
        SystemExit: the training failed; it has said why.
    """
    profiler = Profiler()
    callbacks: list[Any] = trainer.DEFAULT_CALLBACKS
    callbacks.append(profiler)
    try:
        if code := training_ours.main(job._replace(started=time.monotonic())):
            sys.exit(code)
    finally:
        callbacks.remove(profiler)
    return by_kind({event.key: event.self_cpu_time_total / 1e6 for event in profiler.profile.key_averages()})


def by_kind(seconds: Mapping[str, float]) -> dict[str, float]:
    """The sums over the operations of each kind."""
    sums = dict.fromkeys(KINDS, 0.0)
    for name, own in seconds.items():
        sums[next(kind for kind, beginnings in KINDS.items() if name.startswith(beginnings))] += own
    return sums


if __name__ == "__main__":
    main()
