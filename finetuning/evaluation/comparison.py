"""Base and tuned answers beside each other: each metric of both, the gain, and the interval that it lies in."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from finetuning.dataset.other_formats import is_text
from finetuning.evaluation.exam import Exam, outcomes
from finetuning.evaluation.generation import Question
from finetuning.evaluation.intervals import Sides, figure_of, gain_interval
from finetuning.evaluation.judged import Measured, summary
from finetuning.evaluation.metrics import METRICS, Metric, Outcome, metrics_for
from finetuning.evaluation.report import Figures, Findings, PublishedFigures, Sample
from finetuning.evaluation.with_passages import BASE, TUNED, Answers, in_context, uncited
from finetuning.judge.judge import Judge, Judged
from finetuning.judge.protocol import Pair
from finetuning.recipe.evaluation import OF_ANSWERS, EvaluationSpec
from finetuning.recipe.judge import JUDGE
from finetuning.recipe.knowledge import ContextSpec
from finetuning.secrets import find_secret, masked

TELLING = 4  # characters that a key begins with; shorter words are in any text


def scores_of(metric: Metric, side: Sequence[Outcome]) -> np.ndarray:
    """Weight times score, and weight, of each row (rows, 2)."""
    return np.array([[metric.weight(x) * metric.score(x), metric.weight(x)] for x in side], dtype=float)


def compare(metric: Metric, base: Sequence[Outcome], tuned: Sequence[Outcome]) -> Figures:
    """Return the figures of base and tuned, the gain, and its 95 % interval."""
    sides = Sides(scores_of(metric, base), scores_of(metric, tuned))
    before, after = (figure_of(side, metric.figure) for side in sides)
    return Figures(
        base=before,
        tuned=after,
        gain=after - before,
        interval=gain_interval(sides, metric.figure),
        higher_is_better=metric.higher_is_better,
    )


def evaluate(
    spec: EvaluationSpec,
    exam: Exam,
    base: Path,
    tuned: Path,
    asked_with: ContextSpec | None = None,
    measured: Measured | None = None,
) -> Findings:
    """Return the metrics of base and tuned, and every question with both answers.

    Answers with passages are compared without their citations.

    Args:
        base: the folder of the base model's answers, as `tuned` is of the tuned model's.
        asked_with: how questions were asked, where that was with passages.
        measured: the judge, where the recipe has one.

    Raises:
        FinetuningError: the judge refuses, or cannot be reached.
    """
    metrics, said = metrics_for(spec), (outcomes(base), outcomes(tuned))
    main = next(iter(metrics.values()))
    sides, judged = _compared(said, exam, asked_with), None
    if measured:
        pairs = pairs_of(exam, *sides)
        found = measured.judge.decide(pairs, "base beside tuned")
        sides, judged = with_judgements(sides, found), summary(measured, pairs, found)
    figures = {name: compare(metric, *sides) for name, metric in metrics.items()}
    context = None
    if asked_with:
        answers = {BASE: Answers(base, said[0]), TUNED: Answers(tuned, said[1])}
        context = in_context(asked_with, main, exam, answers)
    return Findings(
        rows=len(exam.questions),
        metrics=with_text_metric(figures, *sides, reads_well=judged is None or judged.carries_verdict),
        samples=samples_of(main, exam, said, sides),
        context=context,
        judge=judged,
    )


def pairs_of(exam: Exam, first: Sequence[Outcome], second: Sequence[Outcome]) -> list[Pair]:
    """Return both answers to each question for a judge, without what looks like a secret, or like half of one."""
    found = []
    for question, before, after in zip(exam.questions, first, second, strict=True):
        texts, (*earlier, last) = shown(question, before, after), question.messages
        found.append(Pair([*earlier, {**last, "content": texts["question"]}], texts["base"], texts["tuned"]))
    return found


def with_judgements(
    sides: tuple[Sequence[Outcome], Sequence[Outcome]], found: Judged
) -> tuple[list[Outcome], list[Outcome]]:
    """Return both sides with the judge's scores: what one of them wins, the other loses."""
    first, second = (zip(side, found.decisions, strict=True) for side in sides)
    return (
        [outcome._replace(judged=1 - one.score) for outcome, one in first],
        [outcome._replace(judged=one.score) for outcome, one in second],
    )


def _compared(
    said: tuple[list[Outcome], list[Outcome]], exam: Exam, asked_with: ContextSpec | None
) -> tuple[list[Outcome], list[Outcome]]:
    """Two sides as they are compared."""
    before, after = said
    return (uncited(before, exam, asked_with), uncited(after, exam, asked_with)) if asked_with else said


def with_text_metric(
    figures: Mapping[str, Figures], base: Sequence[Outcome], tuned: Sequence[Outcome], reads_well: bool = True
) -> dict[str, Figures]:
    """Return the figures, with those of chrf where no other metric tells the tuned model's answers from garbage.

    Args:
        reads_well: whether the judge's figure, if there is one, tells that.
    """
    read = [name for name in OF_ANSWERS if name in figures and (reads_well or name != JUDGE)]
    if any(figures[name].tuned > 0 for name in read):
        return dict(figures)
    return {**figures, "chrf": compare(METRICS["chrf"], base, tuned)}


def compare_with_published(
    spec: EvaluationSpec,
    exam: Exam,
    published: Path,
    tuned: Path,
    asked_with: ContextSpec | None = None,
    judge: Judge | None = None,
) -> dict[str, PublishedFigures]:
    """Return for each metric the figures of published version and tuned model, the gain, and its 95 % interval.

    Args:
        published: the folder of the published version's answers, as `tuned` is of the tuned model's.
        asked_with: how questions were asked, where that was with passages. Citations are no part of what is compared.
        judge: compares the two answers, where the metrics have `judge`.

    Raises:
        FinetuningError: the judge refuses, or cannot be reached.
    """
    before, after = _compared((outcomes(published), outcomes(tuned)), exam, asked_with)
    if judge:
        found = judge.decide(pairs_of(exam, before, after), "published beside tuned")
        before, after = with_judgements((before, after), found)
    found = {name: compare(metric, before, after) for name, metric in metrics_for(spec).items()}
    return {
        name: PublishedFigures(published=figures.base, **figures.model_dump(exclude={"base"}))
        for name, figures in found.items()
    }


def compare_with_start(
    spec: EvaluationSpec, exam: Exam, start: Path, tuned: Path, asked_with: ContextSpec | None = None
) -> dict[str, Figures]:
    """Return for each metric the figures of the adapter that training went on from (as `base`) and of the tuned model.

    Args:
        start: the folder of the answers of the former, as `tuned` is of the tuned model's.
        asked_with: how questions were asked, where that was with passages. Citations are no part of what is compared.
    """
    before, after = _compared((outcomes(start), outcomes(tuned)), exam, asked_with)
    return {name: compare(metric, before, after) for name, metric in metrics_for(spec).items()}


def samples_of(
    main: Metric,
    exam: Exam,
    said: tuple[Sequence[Outcome], Sequence[Outcome]],
    compared: tuple[Sequence[Outcome], Sequence[Outcome]],
) -> list[Sample]:
    """Return every question with both answers. Passages are no part of the question, which is published.

    Args:
        said: the answers of base and tuned model, and `compared` what they are scored by.
    """
    scores = zip(*([main.score(outcome) for outcome in side] for side in compared), strict=True)
    rows = zip(exam.without or exam.questions, *said, scores, strict=True)
    found = [sample(question, base, tuned, scored) for question, base, tuned, scored in rows]
    if not exam.without:
        return found
    return [
        replace(one, asked=masked(question.messages[-1]["content"]))
        for one, question in zip(found, exam.questions, strict=True)
    ]


def sample(question: Question, base: Outcome, tuned: Outcome, scores: tuple[float, float]) -> Sample:
    """Return one question with both answers and their scores by the main metric, without what looks like a secret."""
    before, after = scores
    return Sample(place=question.place, **shown(question, base, tuned), base_score=before, tuned_score=after)


def shown(question: Question, base: Outcome, tuned: Outcome) -> dict[str, str]:
    """Return the texts of a sample without what looks like a secret, and none of them where one of two is half of one.

    >>> key = "AKIA" + "IOSFODNN7EXAMPLE"
    >>> halves = Question("a:1", [{"role": "text", "content": f"It is {key[:8]}"}], [], key[8:])
    >>> shown(halves, Outcome("", key[8:], True), Outcome("", "unknown", True))["tuned"]
    '[AWS Access Key]'
    """
    asked, expected, is_one = question.messages[-1]["content"], question.reference, is_text(question.messages)
    parts = {"question": asked, "reference": expected, "base": base.answer, "tuned": tuned.answer}
    found = [cut_through([asked, expected, question.after], is_one)]
    for answer in (base, tuned):
        found.append(cut_through([asked, answer.answer], is_one))
        if not answer.stopped:
            found += [_cut_off(answer.answer, known) for known in (asked, expected + question.after)]
    kind = next(filter(None, found), None)
    return {name: f"[{kind}]" if kind else masked(text) for name, text in parts.items()}


def cut_through(parts: Sequence[str], in_one: bool) -> str | None:
    """Return what kind of secret goes on from one part into the next; None where none does.

    Args:
        in_one: whether they are parts of one text, in which a secret that is whole may go on, too.
    """
    kind = find_secret("".join(parts))
    if kind is None:
        return None
    if in_one:
        return kind if masked("".join(parts)) != "".join(map(masked, parts)) else None
    return None if any(map(find_secret, parts)) else kind


def _cut_off(answer: str, known: str) -> str | None:
    """Return what kind of secret an answer ends within that is whole in the text `known`."""
    *_, last = answer.split() or [""]
    if len(last) < TELLING or last not in known:
        return None
    return cut_through([answer, known.partition(last)[2]], in_one=False)
