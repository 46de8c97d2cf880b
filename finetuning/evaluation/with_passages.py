"""What passages did for the answers: base and tuned model, each with and without them, and which of the four to use.

A wrong answer is the retriever's fault where no passage that was shown has it, and the reader's where one has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from finetuning.evaluation.exam import ANSWERS_WITHOUT, Exam, outcomes
from finetuning.evaluation.intervals import Sides, gain_interval
from finetuning.evaluation.metrics import METRICS, Metric, Outcome
from finetuning.evaluation.report import Answering, Contestant, InContext, Pair, Retrieval, Sample
from finetuning.evaluation.verdict import side_of_zero
from finetuning.knowledge.context import as_compared, cites_right, refuses
from finetuning.knowledge.documents import with_secrets
from finetuning.knowledge.passages import passages_in
from finetuning.recipe.knowledge import ContextSpec

BASE, TUNED = "base", "tuned"
WITH = " with passages"
HIDDEN = "[of a document that seems to hold a secret]"
# The cheapest first: a training costs more than passages.
CONTESTANTS = (BASE, BASE + WITH, TUNED, TUNED + WITH)
# Each with each, the second of them being the one that more was done for.
PAIRS = tuple(combinations(CONTESTANTS, 2))


@dataclass(frozen=True)
class Answers:
    """One model's answers: the folder that `sit` left, and what it said with passages, citations and all."""

    folder: Path
    said: Sequence[Outcome]


@dataclass(frozen=True)
class Side:
    """One contestant's answers, as they were given and without citations."""

    said: Sequence[str]
    outcomes: Sequence[Outcome]


def uncited(outcomes: Sequence[Outcome], exam: Exam, spec: ContextSpec) -> list[Outcome]:
    """The outcomes with answers and references as they are compared: without the numbers of passages."""
    rows = zip(outcomes, exam.golden, exam.ranks, strict=True)
    return [_uncited(outcome, golden, rank, spec) for outcome, golden, rank in rows]


def _uncited(outcome: Outcome, golden: Sequence[int], rank: int | None, spec: ContextSpec) -> Outcome:
    answer, reference = as_compared(outcome.answer, outcome.reference, golden, rank, spec)
    return outcome._replace(answer=answer, reference=reference)


def without_secrets_of(samples: Sequence[Sample], chat_dataset: Path, index: Path, documents: Path) -> Sequence[Sample]:
    """Return the samples without what was asked and answered with passages of documents that seem to hold a secret.

    Of a key that is cut into passages, no part looks like one.

    Args:
        chat_dataset: the folder with the eval split that the samples are of, as `index` is that of its passages.
    """
    hidden = with_secrets(documents)
    if not hidden:
        return samples
    names = passages_in(index, ["document"])["document"].to_pylist()
    rows = pq.read_table(chat_dataset / "eval.parquet", columns=["place", "passages"]).to_pylist()
    places = {row["place"] for row in rows if not hidden.isdisjoint(names[number] for number in row["passages"])}
    told = {"asked": HIDDEN, "base": HIDDEN, "tuned": HIDDEN}
    return [replace(one, **told) if one.place in places else one for one in samples]


def in_context(spec: ContextSpec, metric: Metric, exam: Exam, answers: Mapping[str, Answers]) -> InContext:
    """Return how base and tuned model did with and without passages."""
    sides = {
        name: Side([], uncited(outcomes(found.folder, ANSWERS_WITHOUT), exam, spec)) for name, found in answers.items()
    }
    sides |= {
        name + WITH: Side([outcome.answer for outcome in found.said], uncited(found.said, exam, spec))
        for name, found in answers.items()
    }
    refused = np.array([refuses(question.reference, spec) for question in exam.questions])
    scores = {name: np.array([metric.score(outcome) for outcome in side.outcomes]) for name, side in sides.items()}
    pairs = [_pair(before, after, scores) for before, after in PAIRS]
    contestants = {name: _contestant(side, scores[name], refused, exam, spec) for name, side in sides.items()}
    return InContext(
        contestants=contestants,
        pairs=pairs,
        retrieval=_retrieval(exam, spec),
        advice=advice_on(advised({name: one.score for name, one in contestants.items()}, pairs), pairs),
    )


def _pair(before: str, after: str, scores: Mapping[str, np.ndarray]) -> Pair:
    ones = np.ones(len(scores[before]))
    sides = Sides(*(np.stack([scores[name], ones], axis=1) for name in (before, after)))
    gain = float(scores[after].mean() - scores[before].mean())
    return Pair(before=before, after=after, gain=gain, interval=gain_interval(sides, lambda mean: mean))


def _contestant(side: Side, scores: np.ndarray, refused: np.ndarray, exam: Exam, spec: ContextSpec) -> Contestant:
    refuses_it = np.array([refuses(outcome.answer, spec) for outcome in side.outcomes])
    found = Contestant(
        score=float(scores.mean()),
        says_it=float(np.mean([METRICS["contains"].score(outcome) for outcome in side.outcomes])),
        right_refusals=_share(refuses_it[refused]),
        wrong_refusals=_share(refuses_it[~refused]),
    )
    if not side.said:
        return found
    shown = np.array([bool(places) for places in exam.golden])
    to_be_found = np.array([rank is not None for rank in exam.ranks])
    cites = np.array([cites_right(text, places, spec) for text, places in zip(side.said, exam.golden, strict=True)])
    wrong = (scores == 0) & to_be_found
    # Of graded scores none is simply wrong.
    is_graded = bool(((scores > 0) & (scores < 1)).any())
    return found.model_copy(
        update={
            "right_citations": _share(cites[shown]),
            "retrievers_fault": None if is_graded else int((wrong & ~shown).sum()),
            "readers_fault": None if is_graded else int((wrong & shown).sum()),
        }
    )


def _share(marks: np.ndarray) -> float | None:
    return float(marks.mean()) if len(marks) else None


def _retrieval(exam: Exam, spec: ContextSpec) -> Retrieval:
    ranks = np.array([rank for rank in exam.ranks if rank is not None])
    found = ranks > 0
    depths = sorted({1, spec.passages, 5, 10})
    return Retrieval(
        questions=len(ranks),
        recall={depth: float((found & (ranks <= depth)).mean()) if len(ranks) else 0.0 for depth in depths},
        mean_reciprocal_rank=float((found / np.maximum(ranks, 1)).mean()) if len(ranks) else 0.0,
    )


def advised(scores: Mapping[str, float], pairs: Sequence[Pair]) -> str:
    """Return the cheapest contestant that is not shown to be worse than another: the best one, or one as good.

    >>> pairs = [Pair(before=BASE, after=TUNED, gain=0.1, interval=(-0.1, 0.3))]
    >>> advised({BASE: 0.4, TUNED: 0.5}, pairs)
    'base'
    """
    best = max(scores, key=scores.__getitem__)
    changes = [(pair, side_of_zero(pair.interval)) for pair in pairs]
    worse = {pair.before for pair, change in changes if change == "better"}
    worse |= {pair.after for pair, change in changes if change == "worse"}
    return next((name for name in CONTESTANTS if name in scores and name not in worse), best)


def advice_on(name: str, pairs: Sequence[Pair]) -> str:
    """Say that this one of the four is to be used, and why."""
    change = {(pair.before, pair.after): side_of_zero(pair.interval) for pair in pairs}
    passages, training = change[TUNED, TUNED + WITH], change[BASE + WITH, TUNED + WITH]
    if name == BASE:
        return "Use the base model as it is: neither passages nor training add anything that shows."
    if name == BASE + WITH:
        return "Use the base model with passages: retrieval alone is as good, and training adds nothing that shows."
    if name == TUNED and passages == "worse":
        return "Use the tuned model without passages, which add nothing: with them its answers are worse."
    if name == TUNED:
        return "Use the tuned model without passages, which add nothing to it that shows."
    if passages == training == "better":
        return "Use the tuned model with passages: each of the two adds to the other."
    return "Use the tuned model with passages: each of the other three is worse than one of the four."


def in_words(found: InContext, answering: Mapping[str, Answering]) -> list[str]:
    """The part of the report on passages."""
    contestants = [
        {
            "": name,
            "right": f"{one.score:.1%}",
            "says it in some words": f"{one.says_it:.1%}",
            "cites the right passage": _percent(one.right_citations),
            "refuses what no document says": _percent(one.right_refusals),
            "refuses what one says": _percent(one.wrong_refusals),
            "wrong by the retriever": "" if one.retrievers_fault is None else str(one.retrievers_fault),
            "wrong by the reader": "" if one.readers_fault is None else str(one.readers_fault),
            **_took(name, answering),
        }
        for name, one in found.contestants.items()
    ]
    pairs = [
        {
            "from": pair.before,
            "to": pair.after,
            "gain": f"{100 * pair.gain:+.2f} points",
            "95 % interval": f"{100 * pair.interval[0]:+.2f} to {100 * pair.interval[1]:+.2f}",
            "change": side_of_zero(pair.interval),
        }
        for pair in found.pairs
    ]
    recall = ", ".join(f"{share:.1%} among the first {depth}" for depth, share in found.retrieval.recall.items())
    return [
        "## With passages and without",
        f"**{found.advice}** Base, tuned and gain above are those with passages: what training adds beyond retrieval.",
        pd.DataFrame(contestants).to_markdown(index=False, disable_numparse=True),
        pd.DataFrame(pairs).to_markdown(index=False, disable_numparse=True),
        f"The passage with the answer to {found.retrieval.questions} questions was found: {recall}; mean reciprocal "
        f"rank {found.retrieval.mean_reciprocal_rank:.3f}."
        if found.retrieval.questions
        else "No row names the passage that answers it, so that nothing is known of the retrieval.",
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _took(name: str, answering: Mapping[str, Answering]) -> dict[str, str]:
    took = answering.get(name.removesuffix(WITH))
    if took is None or took.without is None:
        return {}
    seconds, tokens = (took.seconds, took.tokens) if name.endswith(WITH) else took.without
    rows = max(took.rows or 1, 1)
    return {"seconds an answer": f"{seconds / rows:.2f}", "tokens an answer": f"{tokens / rows:.1f}"}
