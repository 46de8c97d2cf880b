"""What the workers of a training on a Ray cluster say to the step that started them, and the step to them.

>>> board = ray.remote(Board).remote()  # an actor, on the step's node

A module of its own, so that the actor's process is there at once.
"""

import time
from typing import Any

from finetuning.errors import INFRASTRUCTURE

TRIES = 3  # of workers that die again and again at the same step
LOGS = "in this step's stderr, in the run's compute logs"


class Board:
    """What workers say to the step, and the step to them."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str]] = []
        self._failure: dict[str, Any] | None = None
        self._ending = self._training = False
        self._heard = time.monotonic()
        self._begun: dict[int, int] = {}
        self._settled: dict[str, Any] | None = None

    def begin(self, step: int) -> bool:
        """Whether the first worker may go on from the checkpoint of that step, or from the start where it is -1."""
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
        """Whether nothing happened that a further try would meet as well."""
        return self._failure is None

    def settle(self, settings: dict[str, Any]) -> None:
        """Nothing; workers that are started again take these."""
        self._settled = settings

    def settled(self) -> dict[str, Any] | None:
        """What was settled by workers before."""
        return self._settled

    def say(self, level: str, line: str) -> None:
        """Nothing; the step's log has the line."""
        self._lines.append((level, line))

    def fail(self, kind: str, text: str, smaller: dict[str, int] | None = None) -> None:
        """Nothing; the step fails with this error, or begins again with `smaller` passes."""
        self._failure = self._failure or {"kind": kind, "text": text, "smaller": smaller}

    def news(self) -> tuple[list[tuple[str, str]], dict[str, Any] | None, float]:
        """Level and text of the lines since the last time, the failure, and for how long nobody was at work."""
        lines, self._lines = self._lines, []
        return lines, self._failure, time.monotonic() - self._heard

    def end(self) -> None:
        """Nothing; the workers are told to end."""
        self._ending = True

    def is_ending(self, training: bool) -> bool:
        """Whether the worker that asks, and so is at work, is to end; it says whether it has come to its steps."""
        self._heard, self._training = time.monotonic(), training
        return self._ending

    def is_training(self) -> bool:
        """Whether the workers have come to their steps, so that there is something to save."""
        return self._training
