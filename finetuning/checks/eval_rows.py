"""Compares the eval rows with the train rows: whether there are as many as asked for, and as long, of the same kind.

A random draw is hardly ever called unlike train: of 1,000 such draws, less than one, however few its rows are. For a
group of `n` rows of which a share `q` is of a kind that a share `p` of all rows is of, chance explains no more than
exp(-n KL(q, p)).

Source: Hoeffding, Probability inequalities for sums of bounded random variables (1963), theorem 1 and section 6, which
has it for draws without replacement.
"""

import math
from collections.abc import Mapping
from itertools import chain
from typing import NamedTuple

import numpy as np

from finetuning.checks.counted import Counted, Example
from finetuning.secrets import masked

FALSE_ALARMS = 0.001  # of random draws, over all that is compared together
CLASS_SHARE = 0.01  # of all rows; a short answer that is rarer is no class
CLASS_CHARACTERS = 40
MOST_CLASSES = 10_000  # that are remembered by their text
SHOWN = 4


class Kind(NamedTuple):
    """Rows that are alike in one respect: what it is called, and which rows they are (rows,)."""

    name: str
    rows: np.ndarray


class Aspects(NamedTuple):
    """In what eval is compared with train: kinds of rows. Those of `answers` and of `sources` have no row in common,
    those of `lengths` are each a part of the one before."""

    answers: list[Kind]
    sources: list[Kind]
    lengths: list[Kind]


class _Deviation(NamedTuple):
    """A kind of rows, and its shares of eval and of train."""

    name: str
    of_eval: float
    of_train: float

    @property
    def more(self) -> float:
        """By how much its share of eval is the greater one."""
        return self.of_eval - self.of_train

    @property
    def shares(self) -> str:
        """Both shares, for a person."""
        return f"{self.of_eval:.1%} of eval, {self.of_train:.1%} of train"


class ShortAnswers:
    """Numbers for the answers that are so short that they may be classes; 0 for all others."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, answer: str) -> int:
        """The number of an answer (from 1), or 0 where it is no class."""
        if len(answer) > CLASS_CHARACTERS:
            return 0
        text = answer.strip()
        if text and text not in self._numbers and len(self._numbers) < MOST_CLASSES:
            self._numbers[text] = len(self._numbers) + 1
        return self._numbers.get(text, 0)

    def kinds(self, numbers: np.ndarray) -> list[Kind]:
        """Return the classes among the rows with these numbers (rows,)."""
        counts = np.bincount(numbers, minlength=1)
        frequent = np.flatnonzero(counts >= max(2, CLASS_SHARE * len(numbers)))
        texts = {number: text for text, number in self._numbers.items()}
        return [Kind(f"the answer {masked(texts[i])!r}", numbers == i) for i in frequent.tolist() if i]


def sources(numbers: np.ndarray, names: Mapping[int, str]) -> list[Kind]:
    """Return the rows of each source, where there are several; `names` by number."""
    found = np.unique(numbers).tolist()
    return [Kind(f"rows of {names[number]}", numbers == number) for number in found] if len(found) > 1 else []


def lengths(tokens: np.ndarray) -> list[Kind]:
    """Return the rows that are longer than a tenth of all rows, than two tenths, and so on."""
    edges = np.unique(np.percentile(tokens, range(10, 100, 10), method="inverted_cdf")) if len(tokens) else []
    return [Kind(f"rows of more than {edge:.0f} tokens", tokens > edge) for edge in edges]


def size(drawn: int, wanted: int, of: int) -> Counted:
    """Count by how many rows eval is smaller or larger than asked for, out of all `of` rows."""
    example = Example(f"{drawn} rows where {wanted} are asked for", "", "")
    return Counted(abs(drawn - wanted), wanted, [example] if drawn != wanted else [], fraction=drawn / of)


def unlike(is_eval: np.ndarray, aspects: Aspects) -> Counted:
    """Count the eval rows that would have to be others for eval to be as train is, by what chance does not explain.

    Args:
        is_eval: of each row that is in train or eval, whether it is in eval (rows,).
    """
    count = int(is_eval.sum())
    enough = math.log(2 * max(1, sum(map(len, aspects))) / FALSE_ALARMS)
    found = [[deviation for kind in kinds if (deviation := _deviation(kind, is_eval, enough))] for kinds in aspects]
    answers, sources, lengths = ([deviation.more for deviation in deviations] for deviations in found)
    share = max([0.0, *map(_exchanged, (answers, sources)), *map(abs, lengths)])
    first = sorted(chain.from_iterable(found), key=lambda deviation: -abs(deviation.more))[:SHOWN]
    return Counted(round(share * count), count, [Example(each.name, "", each.shares) for each in first])


def _exchanged(more: list[float]) -> float:
    """Return the share of rows that is too much in some kinds, or too little in others."""
    return max(sum(share for share in more if share > 0), -sum(share for share in more if share < 0))


def _deviation(kind: Kind, is_eval: np.ndarray, enough: float) -> _Deviation | None:
    """Return how eval deviates from train in a kind of rows, unless chance may explain it."""
    count = int(is_eval.sum())
    if not count or count == len(is_eval):
        return None
    of_eval, of_all, of_train = (float(kind.rows[rows].mean()) for rows in (is_eval, slice(None), ~is_eval))
    if count * _divergence(of_eval, of_all) <= enough:
        return None
    return _Deviation(kind.name, of_eval, of_train)


def _divergence(share: float, expected: float) -> float:
    """Return the Kullback-Leibler divergence of two shares."""
    pairs = ((share, expected), (1 - share, 1 - expected))
    return sum(q * math.log(q / p) for q, p in pairs if q > 0)
