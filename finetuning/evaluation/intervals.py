"""How sure a gain is: the interval of 95 % that it lies in, right for few rows as well as for many.

Both models are scored on the same rows, of which a figure is the weighted mean, or a function of it. The error is the
jackknife's (each row is left out once), and the interval Student's. Scores between 0 and 1 get two rows more: one
that only the first model has right, and one that only the second has. Without them, rows that all agree would have an
interval of no width, however few they are, and so would graded scores that all gained alike, whatever the rows that
were not drawn lose. For the same reason the interval of one model's score gets two rows that are right, and two that
are wrong.

Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 11, for the jackknife; Bonett and Price,
Adjusted Wald Confidence Interval for a Difference of Binomial Proportions Based on Paired Data (2012), for the two
rows; Agresti and Coull, Approximate Is Better than "Exact" for Interval Estimation of Binomial Proportions (1998), for
the four.
"""

from bisect import bisect_left
from collections.abc import Callable
from functools import cache
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

CONFIDENCE = 0.95
POWER = 0.8
MANY = 10**9  # rows, of which Student's quantiles are those of the normal distribution
MOST = 10**5  # rows, among which the least number of them is looked for

# Of each side: right and wrong, as (score, weight), in the row that only the first has right, and in the other.
MORE = ([[1.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 1.0]])
# Of one side: right twice, and wrong twice.
MORE_OF_ONE = [[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]]

Figure = Callable[[Any], Any]


class Sides(NamedTuple):
    """Two models on the same rows: of each an array (rows, 2) of weight times score, and weight."""

    first: np.ndarray
    second: np.ndarray

    @property
    def are_shares(self) -> bool:
        """Whether each row weighs alike and is right, wrong, or something between."""
        return are_shares(np.concatenate(self))

    @property
    def are_right_or_wrong(self) -> bool:
        """Whether each row weighs alike and is right or wrong, with nothing between."""
        return self.are_shares and all(bool(np.isin(side[:, 0], (0.0, 1.0)).all()) for side in self)

    def with_more(self) -> "Sides":
        """The two models with the two rows more."""
        return Sides(*(np.concatenate([side, rows]) for side, rows in zip(self, MORE, strict=True)))


def are_shares(scores: np.ndarray) -> bool:
    """Whether each of the rows (rows, 2) weighs alike and is right, wrong, or something between."""
    return bool(((scores[:, 0] >= 0) & (scores[:, 0] <= 1) & (scores[:, 1] == 1)).all())


def figure_of(side: np.ndarray, figure: Figure) -> float:
    """The figure over all rows of an array (rows, 2)."""
    return float(figure(side[:, 0].sum() / side[:, 1].sum()))


def gain_interval(sides: Sides, figure: Figure) -> tuple[float, float]:
    """The interval (low, high) of what the second model gained over the first.

    One row tells nothing of how rows differ: where its scores are not between 0 and 1, the interval is as wide as the
    figures are large.
    """
    if sides.are_shares:
        low, high = _interval(sides.with_more(), figure)
        return max(low, -1.0), min(high, 1.0)
    if len(sides.first) == 1:
        before, after = (figure_of(side, figure) for side in sides)
        return after - before - abs(before) - abs(after), after - before + abs(before) + abs(after)
    return _interval(sides, figure)


def score_interval(side: np.ndarray, figure: Figure) -> tuple[float, float]:
    """The interval (low, high) of one model's figure, over an array (rows, 2)."""
    shares = are_shares(side)
    rows = np.concatenate([side, MORE_OF_ONE]) if shares else side
    middle = figure_of(rows, figure)
    if len(rows) == 1:
        return middle - abs(middle), middle + abs(middle)
    half = students_quantile(len(rows) - 1, (1 + CONFIDENCE) / 2) * standard_error(rows, figure)
    return (max(middle - half, 0.0), min(middle + half, 1.0)) if shares else (middle - half, middle + half)


def chance_of_gain(sides: Sides, figure: Figure) -> float:
    """The chance that the second model gains so much or more over the first where in truth it is not better.

    It is the p-value of a test to one side. Rows that are right or wrong have the exact one, by the rows in which the
    models differ: it holds for as few rows, and as small chances, as there may be. Others have Student's, by the same
    rows and the same error as the interval.

    Source: McNemar, Note on the Sampling Error of the Difference between Correlated Proportions (1947).
    """
    from scipy.special import bdtrc, stdtr  # see `students_quantile`

    if sides.are_right_or_wrong:
        gains = sides.second[:, 0] - sides.first[:, 0]
        better, other = int((gains > 0).sum()), int((gains != 0).sum())
        return float(bdtrc(better - 1, other, 0.5)) if better else 1.0
    rows = sides.with_more() if sides.are_shares else sides
    gain, error = _gain_and_error(rows, figure)
    if len(rows.first) == 1 or error == 0.0:
        return 1.0
    return float(stdtr(len(rows.first) - 1, -gain / error))


def students_quantile(freedom: int, share: float) -> float:
    """The number below which that share of Student's distribution lies, with so many degrees of freedom."""
    from scipy.special import stdtrit  # a tenth of what it takes to load the code location, which draws no interval

    return float(stdtrit(freedom, share))


def _interval(sides: Sides, figure: Figure) -> tuple[float, float]:
    gain, error = _gain_and_error(sides, figure)
    half = students_quantile(len(sides.first) - 1, (1 + CONFIDENCE) / 2) * error
    return gain - half, gain + half


def _gain_and_error(sides: Sides, figure: Figure) -> tuple[float, float]:
    before, after = (figure_of(side, figure) for side in sides)
    without = without_each(sides.second, figure) - without_each(sides.first, figure)
    return after - before, jackknife_error(without)


def standard_error(side: np.ndarray, figure: Figure) -> float:
    """The standard error of one model's figure; 0 where there is one row, which tells nothing of it."""
    return jackknife_error(without_each(side, figure)) if len(side) > 1 else 0.0


def without_each(side: np.ndarray, figure: Figure) -> np.ndarray:
    """The figure without each of the rows in turn (rows)."""
    left = side.sum(axis=0) - side
    return figure(left[:, 0] / np.maximum(left[:, 1], 1e-12))


def jackknife_error(without: np.ndarray) -> float:
    """The standard error of a figure, by what it is without each of the rows."""
    return float(np.sqrt((len(without) - 1) * without.var()))


def widened(interval: tuple[float, float], rules: int, rows: int = MANY) -> tuple[float, float]:
    """The interval for one of several rules, all of which together are to be wrong as seldom as one with `interval`.

    Source: Bonferroni's correction, with Student's quantiles.

    Args:
        rows: how many the interval is of.
    """
    tail, freedom = (1 - CONFIDENCE) / 2, max(rows - 1, 1)
    ratio = students_quantile(freedom, 1 - tail / max(rules, 1)) / students_quantile(freedom, 1 - tail)
    low, high = interval
    middle, half = (low + high) / 2, (high - low) / 2
    return middle - ratio * half, middle + ratio * half


@cache
def least_rows(rules: int, allowed: float = 0.0) -> int:
    """The fewest rows by which a model with none of them right is worse, beyond its noise, than one with all of them.

    That is for one of so many rules; with fewer rows it could not fail, whatever was lost. One row where a rule allows
    that all be lost.

    Args:
        allowed: the loss that is no fault, as a share.
    """

    def show(rows: int) -> bool:
        sides = Sides(np.ones((rows, 2)), np.tile([0.0, 1.0], (rows, 1)))
        return widened(gain_interval(sides, lambda mean: mean), rules, rows)[1] < -allowed

    return 1 if allowed >= 1 else 1 + bisect_left(range(1, MOST), True, key=show)


def least_gain(interval: tuple[float, float]) -> float:
    """The gain that rows with an interval so wide would show to be one in four of five exams (a power of 80 %)."""
    low, high = interval
    quantiles = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), NormalDist().inv_cdf(POWER)
    return (high - low) / 2 * sum(quantiles) / quantiles[0]
