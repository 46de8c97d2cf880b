"""What a rising reward is worth: whether the exam, on rows that were never rewarded, rose with it.

>>> in_words(Rise(0.41, 0.62, 0.04), "final-answer", gain, "where it started")
"the reward rose from 0.41 to 0.62, and the exam with it: final-answer +18 points over where it started"
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from finetuning.evaluation.report import Gain, Verdict
from finetuning.recipe.evaluation import UNBOUNDED

SHARE = 4  # the first and last such part of a curve are compared
BEYOND = 2.0  # standard errors that a rise is more than


class Rise(NamedTuple):
    """The mean reward in the first and in the last quarter of a training, and what is noise of their difference."""

    first: float
    last: float
    noise: float

    @property
    def is_real(self) -> bool:
        """Whether it is more than noise."""
        return self.last - self.first > self.noise


def rise_of(curve: Sequence[Mapping[str, float]], name: str = "reward") -> Rise | None:
    """How a reward rose; None where the curve has too few points to tell."""
    values = np.array([point[name] for point in curve if name in point])
    size = len(values) // SHARE
    if size < 2:
        return None
    first, last = values[:size], values[-size:]
    error = math.sqrt((first.var(ddof=1) + last.var(ddof=1)) / size)
    return Rise(float(first.mean()), float(last.mean()), BEYOND * error)


def with_reward(verdict: Verdict, curve: Sequence[Mapping[str, float]], main: tuple[str, Gain], before: str) -> Verdict:
    """The verdict with what is to be said of the reward; it fails where the reward rose and the exam fell.

    Args:
        main: the exam's main metric by name, and what it gained.
        before: over what.
    """
    rise = rise_of(curve)
    name, gain = main
    said = [] if rise is None else [in_words(rise, name, gain, before)]
    if longer := lengths_in_words(curve):
        said.append(longer)
    fell = gain.improvement_interval[1] < 0
    passed = verdict.passed and not (rise is not None and rise.is_real and fell)
    return verdict.model_copy(update={"passed": passed, "reasons": (*verdict.reasons, *said)})


def in_words(rise: Rise, name: str, gain: Gain, before: str) -> str:
    """What a rise of the reward is worth, by what the exam gained."""
    by = f"{gain.improvement:+.3g}" if name in UNBOUNDED else f"{100 * gain.improvement:+.0f} points"
    exam = f"{name} {by} over {before}"
    low, high = gain.improvement_interval
    moved = f"from {rise.first:.2f} to {rise.last:.2f}"
    if not rise.is_real:
        return f"the reward did not rise beyond its noise ({moved}); {exam}"
    if low > 0:
        return f"the reward rose {moved}, and the exam with it: {exam}"
    if high < 0:
        return f"reward hacking: the reward rose {moved} while the exam fell: {exam}"
    return f"the reward rose {moved} and the exam did not, beyond noise: {exam}; it learned to please the reward"


def lengths_in_words(curve: Sequence[Mapping[str, float]]) -> str | None:
    """How long answers in training were, first and last, and how many were cut off; None for too few points."""
    lengths, cut = rise_of(curve, "length"), rise_of(curve, "cut_off")
    if lengths is None or cut is None:
        return None
    return (
        f"answers in training had {lengths.first:.0f} tokens at first and {lengths.last:.0f} in the end, and "
        f"{cut.first:.0%} and {cut.last:.0%} of them were cut off"
    )
