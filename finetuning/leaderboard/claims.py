"""Which model is better than which, beyond noise, where all pairs of a group are compared.

Of two models each may be claimed to be better than the other one, on the rows that both were asked: a test to one side
of the rows' differences (`chance_of_gain`). Of n models these are n (n - 1) claims, and the more there are, the more
would be made by chance. Holm's correction keeps the chance that any claim of the group is false to ERROR_RATE, a claim
for the wrong side included. It holds however the claims depend on each other, as they do here: all pairs share rows and
models. Methods that draw models' answers to a row anew in another order (Westfall and Young) would use that dependence
and show a little more, but hold only where all models are equally good, not where some of them are.

Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure (1979).
"""

from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np

from finetuning.evaluation.intervals import CONFIDENCE, Figure, Sides, chance_of_gain

ERROR_RATE = 1 - CONFIDENCE

Claim = tuple[str, str]


def claims(scored: Mapping[str, np.ndarray], figure: Figure, higher_is_better: bool) -> dict[Claim, float]:
    """Return, for each claim (better, other), the chance of what was seen where it is false, corrected for all claims.

    A claim holds beyond noise where that is at most ERROR_RATE.

    Args:
        scored: of each model an array (rows, 2) of weight times score, and weight; the same rows for all.
    """
    made = list(permutations(scored, 2))
    chances = []
    for better, other in made:
        first, second = (other, better) if higher_is_better else (better, other)
        chances.append(chance_of_gain(Sides(scored[first], scored[second]), figure))
    return dict(zip(made, holm(chances), strict=True))


def holm(chances: Sequence[float]) -> list[float]:
    """Correct the chances for their number.

    >>> holm([0.01, 0.04, 0.02])
    [0.03, 0.04, 0.04]
    """
    order = np.argsort(chances, kind="stable")
    times = np.asarray(chances, dtype=float)[order] * np.arange(len(chances), 0, -1)
    corrected = np.empty(len(chances))
    corrected[order] = np.minimum(np.maximum.accumulate(times), 1.0)
    return corrected.tolist()


def beaten_by(made: Mapping[Claim, float]) -> dict[str, list[str]]:
    """Return, for each model, those that are better beyond noise."""
    found: dict[str, list[str]] = {other: [] for _, other in made}
    for (better, other), chance in made.items():
        if chance <= ERROR_RATE:
            found[other].append(better)
    return found
