"""What the workers of a training on a Ray cluster say to the step that started them, and the step to them.

>>> board = ray.remote(Board).remote()  # an actor, on the step's node

A module of its own that imports little, so that the actor's process is there at once.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pydantic import JsonValue

from finetuning.errors import INFRASTRUCTURE

if TYPE_CHECKING:
    from finetuning.training.job import BatchSize, TrainingTask

TRIES = 3  # of workers that die again and again at the same step
LOGS = "in this step's stderr, in the run's compute logs"


@dataclass(frozen=True)
class Settled:
    """What the first worker decided for all: the task, and what the summary says of it."""

    task: "TrainingTask"
    summary: Mapping[str, JsonValue]


@dataclass(frozen=True)
class Failure:
    """Why the workers ended: an error, by its kind and text, or memory that would do with smaller passes."""

    kind: str
    text: str
    smaller: "BatchSize | None" = None


class News(NamedTuple):
    """What the step had not heard yet."""

    lines: list[tuple[str, str]]
    """Level and text."""
    failure: Failure | None
    silent: float
    """For how many seconds nobody was at work."""


class Board:
    """What workers say to the step, and the step to them."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str]] = []
        self._failure: Failure | None = None
        self._ending = self._training = False
        self._heard = time.monotonic()
        self._begun: dict[int, int] = {}
        self._settled: Settled | None = None

    def begin(self, step: int) -> bool:
        """Return whether the first worker may go on from the checkpoint of that step, or from the start if it is -1."""
        self._heard, self._training = time.monotonic(), False
        if self._begun:
            self.say("warning", "the workers were started again, as one of them died, or its node")
        self._begun[step] = self._begun.get(step, 0) + 1
        if self._begun[step] > TRIES:
            self.fail(
                INFRASTRUCTURE,
                f"Training's workers died {TRIES} times after {'their start' if step < 0 else f'step {step}'}, most "
                f"often because memory ran out or nodes went away; what they said is {LOGS}. The next run goes on from "
                "the last checkpoint.",
            )
        return self.may_go_on()

    def may_go_on(self) -> bool:
        """Return whether nothing happened that a further try would meet as well."""
        return self._failure is None

    def settle(self, settings: Settled) -> None:
        """Keep the settings for the other workers, and for those that are started again."""
        self._settled = settings

    def settled(self) -> Settled | None:
        """Return what was settled; None as long as nothing was."""
        return self._settled

    def say(self, level: str, line: str) -> None:
        """Add a line to the step's log."""
        self._lines.append((level, line))

    def fail(self, kind: str, text: str, smaller: "BatchSize | None" = None) -> None:
        """Let the step fail with this error, or begin again with `smaller` passes; only the first failure counts."""
        self._failure = self._failure or Failure(kind, text, smaller)

    def news(self) -> News:
        """Return the lines since the last time, the failure, and for how long nobody was at work."""
        lines, self._lines = self._lines, []
        return News(lines, self._failure, time.monotonic() - self._heard)

    def end(self) -> None:
        """Tell the workers to end."""
        self._ending = True

    def is_ending(self, training: bool) -> bool:
        """Return whether the worker that asks is to end; note that it is at work, and if it is at its steps."""
        self._heard, self._training = time.monotonic(), training
        return self._ending

    def is_training(self) -> bool:
        """Return whether the workers have come to their steps, so that there is something to save."""
        return self._training
