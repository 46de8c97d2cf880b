"""One group of exams: the score of each model, which is better than which, and which is as good and smaller."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from finetuning.evaluation.intervals import Figure, Sides, figure_of, gain_interval, score_interval
from finetuning.evaluation.metrics import METRICS
from finetuning.evaluation.side_by_side import flat
from finetuning.leaderboard.claims import ERROR_RATE, Claim, beaten_by, claims
from finetuning.leaderboard.document import Comparison, Group, Standing
from finetuning.leaderboard.entrants import Entrant, Row
from finetuning.leaderboard.groups import Alike


def group_of(alike: Alike) -> Group:
    """Compare all models of a group on the rows that all of them were asked."""
    metric = METRICS[alike.way.metric]
    sides = {entrant.name: entrant.side(alike.rows) for entrant in alike.entrants}
    scores = {name: figure_of(side, metric.figure) for name, side in sides.items()}
    best_first = sorted(alike.entrants, key=lambda entrant: scores[entrant.name], reverse=metric.higher_is_better)
    made = claims(sides, metric.figure, metric.higher_is_better)
    beaten = beaten_by(made)
    standings = [
        standing(entrant, scores[entrant.name], score_interval(sides[entrant.name], metric.figure), beaten)
        for entrant in best_first
    ]
    front = on_front(standings, metric.higher_is_better)
    pairs = combinations(best_first, 2)
    return Group(
        metric=alike.way.metric,
        higher_is_better=metric.higher_is_better,
        max_new_tokens=alike.way.max_new_tokens,
        answer_markers=list(alike.way.answer_markers),
        with_passages=alike.way.with_passages,
        against=alike.way.against,
        rows=len(alike.rows),
        digest=alike.digest(),
        error_rate=round(ERROR_RATE, 6),
        models=[one.model_copy(update={"is_on_front": one.name in front}) for one in standings],
        comparisons=[compared(better, other, alike.rows, made) for better, other in pairs],
        unbeaten=[one.name for one in standings if not one.beaten_by],
    )


def standing(
    entrant: Entrant, score: float, interval: tuple[float, float], beaten: Mapping[str, list[str]]
) -> Standing:
    """What there is to say of one model; whether it is on the front is found among all."""
    report = entrant.examined.report
    main = report.metrics[entrant.way.metric]
    return Standing(
        name=entrant.name,
        report=entrant.report,
        adapter=report.adapter,
        score=score,
        interval=interval,
        gain=main.improvement,
        gain_interval=main.improvement_interval,
        passed=report.verdict.passed,
        beaten_by=beaten.get(entrant.name, []),
        is_on_front=False,
        costs=entrant.costs,
    )


def compared(better: Entrant, other: Entrant, rows: list[Row], made: Mapping[Claim, float]) -> Comparison:
    """Return what `better` gains over `other`, and the chance of that."""
    metric = METRICS[better.way.metric]
    sides = Sides(other.side(rows), better.side(rows))
    gain, (low, high) = gain_on(sides, metric.figure), gain_interval(sides, metric.figure)
    if not metric.higher_is_better:
        gain, low, high = 0.0 - gain, 0.0 - high, 0.0 - low
    chance = made[better.name, other.name]
    return Comparison(
        better=better.name,
        other=other.name,
        gain=gain,
        interval=(low, high),
        chance=chance,
        is_beyond_noise=chance <= ERROR_RATE,
        other_answers=sum(better.answers[row] != other.answers[row] for row in rows),
        other_settings=differing_settings(better, other),
    )


def gain_on(sides: Sides, figure: Figure) -> float:
    """The second model's figure less the first one's."""
    before, after = (figure_of(side, figure) for side in sides)
    return after - before


def differing_settings(one: Entrant, other: Entrant) -> list[str]:
    """The settings in which two recipes differ, by their places."""
    ours, theirs = flat(one.examined.sections), flat(other.examined.sections)
    return sorted(place for place in {**ours, **theirs} if ours.get(place) != theirs.get(place))


def on_front(standings: Sequence[Standing], higher_is_better: bool) -> set[str]:
    """The models to which none is superior: as good a score and smaller, or as small and better."""
    sign = 1 if higher_is_better else -1
    placed = {one.name: (sign * one.score, -one.costs.size_mb) for one in standings if one.costs.size_mb is not None}
    found = {name: np.array(place) for name, place in placed.items()}
    return {
        name
        for name, place in found.items()
        if not any((other >= place).all() and (other > place).any() for other in found.values())
    }
