"""What the processes of `benchmarks.reinforcement` are told, and what they leave."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformers import TrainerCallback

# For the base model, which both sides load; the benchmark is one of CPUs.
MODEL_KWARGS: Mapping[str, Any] = {
    "dtype": "bfloat16",
    "attn_implementation": "sdpa",
    "device_map": {"": "cpu"},
    "trust_remote_code": False,
}


class Rewarded(NamedTuple):
    """What a side trains on, and where; paths are folders unless said otherwise."""

    chat: str
    base_model: str
    start: str
    """The adapter that it goes on from."""
    training: Mapping[str, Any]
    """The recipe's section."""
    max_length: int
    record: str
    """The file where the record goes."""


class Steps(TrainerCallback):
    """Keeps when each step ended, and what trl logged of it."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.logged: list[dict[str, float]] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """The first step begins."""
        self.ended.append(time.monotonic())

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """A step ended."""
        self.ended.append(time.monotonic())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Keeps rewards and lengths."""
        if logs and "reward" in logs:
            self.logged.append({name: logs[name] for name in ("reward", "completions/mean_length", "loss")})

    def report(self, job: Rewarded) -> None:
        """Write the record: seconds of each step, and its figures."""
        seconds = [after - before for before, after in zip(self.ended[:-1], self.ended[1:], strict=True)]
        Path(job.record).write_text(json.dumps({"seconds": seconds, "logged": self.logged}))


def read() -> Rewarded:
    """The job that the command line names."""
    return Rewarded(**json.loads(Path(sys.argv[1]).read_text()))
