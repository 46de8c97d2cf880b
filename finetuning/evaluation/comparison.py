"""Base and tuned answers beside each other: each metric of both, the gain, and the interval that it lies in."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from finetuning.evaluation.exam import ANSWERS, Exam
from finetuning.evaluation.generation import Question
from finetuning.evaluation.metrics import Metric, Outcome, metrics_for
from finetuning.evaluation.report import Figures, Findings, PublishedFigures, Sample
from finetuning.recipe.evaluation import EvaluationSpec

RESAMPLES = 10_000

RESAMPLES_AT_A_TIME = 500


def outcomes(folder: Path) -> list[Outcome]:
    """What a model made of each row, as `sit` left it."""
    return [Outcome(**row) for row in pq.read_table(folder / ANSWERS).to_pylist()]


def paired_bootstrap(
    metric: Metric, base: Sequence[Outcome], tuned: Sequence[Outcome], seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval (low, high) of the gain of `tuned` over `base`: the same rows drawn for both.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (percentile bootstrap), chapter 13.
    """
    sides = [np.array([[metric.weight(x) * metric.score(x), metric.weight(x)] for x in side]) for side in (base, tuned)]
    return interval_of(resampled(sides, metric.figure, seed))


def resampled(sides: Sequence[np.ndarray], figure: Callable[[Any], Any], seed: int = 0) -> tuple[np.ndarray, ...]:
    """The figure of each side for each resample (10,000): the same rows drawn for all sides.

    Args:
        sides: of each model an array (rows, 2): weight times score, and weight.
    """
    rng, rows = np.random.default_rng(seed), len(sides[0])
    figures = []
    for _ in range(RESAMPLES // RESAMPLES_AT_A_TIME):
        times_drawn = rng.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES_AT_A_TIME)
        sums = [times_drawn @ side for side in sides]
        figures.append([figure(side[:, 0] / np.maximum(side[:, 1], 1e-12)) for side in sums])
    return tuple(np.concatenate(side) for side in zip(*figures, strict=True))


def interval_of(drawn: Sequence[np.ndarray]) -> tuple[float, float]:
    """The middle 95 % (low, high) of what the second side gained over the first, resample by resample."""
    base, tuned = drawn
    low, high = np.percentile(tuned - base, [2.5, 97.5])
    return float(low), float(high)


def figure_of(metric: Metric, side: Sequence[Outcome]) -> float:
    """The metric's figure over all rows."""
    return float(metric.figure(np.average([metric.score(x) for x in side], weights=[metric.weight(x) for x in side])))


def compare(metric: Metric, base: Sequence[Outcome], tuned: Sequence[Outcome]) -> Figures:
    """Return the figures of base and tuned, the gain, and its 95 % interval."""
    before, after = figure_of(metric, base), figure_of(metric, tuned)
    return Figures(
        base=before,
        tuned=after,
        gain=after - before,
        interval=paired_bootstrap(metric, base, tuned),
        higher_is_better=metric.higher_is_better,
    )


def evaluate(spec: EvaluationSpec, exam: Exam, base: Path, tuned: Path) -> Findings:
    """Return the metrics of base and tuned, and every question with both answers.

    Args:
        base: the folder of the base model's answers, as `tuned` is of the tuned model's.
    """
    metrics, sides = metrics_for(spec.metrics), (outcomes(base), outcomes(tuned))
    main = next(iter(metrics.values()))
    return Findings(
        rows=len(exam.questions),
        metrics={name: compare(metric, *sides) for name, metric in metrics.items()},
        samples=[sample(main, *row) for row in zip(exam.questions, *sides, strict=True)],
    )


def compare_with_published(spec: EvaluationSpec, published: Path, tuned: Path) -> dict[str, PublishedFigures]:
    """Return for each metric the figures of published version and tuned model, the gain, and its 95 % interval.

    Args:
        published: the folder of the published version's answers, as `tuned` is of the tuned model's.
    """
    before, after = outcomes(published), outcomes(tuned)
    found = {name: compare(metric, before, after) for name, metric in metrics_for(spec.metrics).items()}
    return {
        name: PublishedFigures(published=figures.base, **figures.model_dump(exclude={"base"}))
        for name, figures in found.items()
    }


def sample(main: Metric, question: Question, base: Outcome, tuned: Outcome) -> Sample:
    """Return one question with both answers and their scores by the main metric."""
    return Sample(
        place=question.place,
        question=question.messages[-1]["content"],
        reference=question.reference,
        base=base.answer,
        tuned=tuned.answer,
        base_score=main.score(base),
        tuned_score=main.score(tuned),
    )
