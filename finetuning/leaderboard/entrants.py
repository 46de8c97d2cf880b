"""The exams that take part: what each model answered, how it was asked, and what it takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from finetuning.evaluation.judged import agreement_in_words
from finetuning.evaluation.side_by_side import ASKED, Examined
from finetuning.leaderboard.document import Costs
from finetuning.recipe.evaluation import UNBOUNDED

ANSWERS = "answers.parquet"


class Row(NamedTuple):
    """What makes two rows of two exams the same."""

    question: str
    reference: str
    tokens: int = 1
    """By how many supervised tokens a loss is the mean; a model with other tokens has a loss of another kind."""


class Way(NamedTuple):
    """How an exam was asked: scores of two ways are not compared."""

    metric: str
    max_new_tokens: int
    answer_markers: tuple[str, ...]
    with_passages: bool
    against: str | None = None
    """Of a judge's scores: the judge, and the base answers that it compared with."""


@dataclass(frozen=True, eq=False)
class Entrant:
    """One exam in force."""

    examined: Examined
    report: str
    """Its fingerprint."""
    costs: Costs

    @property
    def name(self) -> str:
        """The recipe's."""
        return self.examined.name

    @property
    def way(self) -> Way:
        """How it was asked."""
        asked = self.examined.sections["evaluation"]
        markers = tuple(asked.get("answer_markers", ()))
        report = self.examined.report
        with_passages = report.context is not None
        return Way(self.examined.main, asked["max_new_tokens"], markers, with_passages, report.scored_against)

    @property
    def why_left_out(self) -> str | None:
        """Why its scores prove nothing; None where they do."""
        report = self.examined.report
        if report.scored_against and report.judge and not report.judge.carries_verdict:
            return f"its scores are by a judge that carries no verdict ({agreement_in_words(report.judge)})"
        return None

    @cached_property
    def scores(self) -> Mapping[Row, float]:
        """The score of each row, by the main metric; a row that was asked twice counts once."""
        return dict(zip(self._rows, map(float, self._samples["tuned_score"]), strict=True))

    @cached_property
    def answers(self) -> Mapping[Row, str]:
        """The answer to each row."""
        return dict(zip(self._rows, self._samples["tuned"], strict=True))

    @cached_property
    def _samples(self) -> pd.DataFrame:
        return self.examined.samples.drop_duplicates(ASKED)

    @property
    def _rows(self) -> list[Row]:
        weights = self._samples["supervised"] if self.way.metric in UNBOUNDED else [1] * len(self._samples)
        return list(map(Row, self._samples["question"], self._samples["reference"], map(int, weights)))

    def side(self, rows: list[Row]) -> np.ndarray:
        """Weight times score, and weight, of these rows (rows, 2)."""
        return np.array([[row.tokens * self.scores[row], row.tokens] for row in rows], dtype=float)


def samples_of(folder: Path, metric: str) -> pd.DataFrame:
    """Return every row of the report in `folder`: question, reference, answers, scores and, for a loss, its tokens."""
    samples = pd.read_parquet(folder / "samples.parquet")
    if metric in UNBOUNDED:
        samples["supervised"] = pd.read_parquet(folder / ANSWERS, columns=["supervised"])["supervised"].to_numpy()
    return samples
