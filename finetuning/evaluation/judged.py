"""What a judge found, how far it is to be trusted, and what that means for the verdict.

Agreement with people is a share of their choices: 1 where both orders of the answers come to the choice, 0.5 for a tie
or for orders that contradict each other, 0 for the other answer or a reply that is no choice. Tossing coins comes to
0.5. The lower end of its 95 % interval has to reach what the recipe asks: of judges whose true agreement does not, at
most 2.5 % carry a verdict. The measured value itself would let through half of those that are at that limit.
"""

from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

import numpy as np

from finetuning.evaluation.intervals import score_interval
from finetuning.evaluation.report import Findings, JudgeReport, Verdict
from finetuning.evaluation.verdict import judge as by_rules
from finetuning.judge.judge import Judge, Judged
from finetuning.judge.protocol import Decision, Pair
from finetuning.recipe.evaluation import OF_ANSWERS, EvaluationSpec
from finetuning.recipe.judge import JUDGE


class Measured(NamedTuple):
    """A judge beside people's choices."""

    judge: Judge
    choices: int
    agreement: float | None
    interval: tuple[float, float] | None
    questions: int
    tokens: tuple[int, int]

    @property
    def carries_verdict(self) -> bool:
        """Whether its agreement reaches what the recipe asks, beyond noise."""
        return self.interval is not None and self.interval[0] >= self.judge.spec.agreement


def measure(judge: Judge, choices: Sequence[Pair]) -> Measured:
    """Ask the judge about what people chose between; of each pair they preferred the second answer.

    Raises:
        FinetuningError: the judge refuses, or cannot be reached.
    """
    if not choices:
        return Measured(judge, 0, None, None, 0, (0, 0))
    found = judge.decide(choices, "human choices")
    agreement, interval = agreement_of(found.decisions)
    return Measured(judge, len(choices), agreement, interval, found.questions, found.tokens)


def agreement_of(decisions: Sequence[Decision]) -> tuple[float, tuple[float, float]]:
    """Return the share of choices (the second answers) that a judge agrees with, and its 95 % interval."""
    scores = np.array([one.score if one.is_clear else 0.0 for one in decisions])
    return float(scores.mean()), score_interval(np.stack([scores, np.ones(len(scores))], axis=1), lambda share: share)


def summary(measured: Measured, pairs: Sequence[Pair], found: Judged) -> JudgeReport:
    """Put in numbers what a judge made of an exam: base (first) and tuned answers (second)."""
    asked = [(pair, one) for pair, one in zip(pairs, found.decisions, strict=True) if not one.is_same]
    lengths = [ends_of(pair, one) for pair, one in asked if one.score != 0.5]
    unequal = [(winner, loser) for winner, loser in lengths if winner != loser]
    clear = [one for _, one in asked if one.is_clear]
    spec = measured.judge.spec
    return JudgeReport(
        name=measured.judge.asker.name,
        asked_agreement=spec.agreement,
        choices=measured.choices,
        agreement=measured.agreement,
        agreement_interval=measured.interval,
        carries_verdict=measured.carries_verdict,
        pairs=len(pairs),
        won=sum(one.score == 1 for one in found.decisions),
        lost=sum(one.score == 0 for one in found.decisions),
        same=len(pairs) - len(asked),
        unclear=len(asked) - len(clear),
        orders_agree=mean(one.orders_agree for one in clear) if clear else None,
        winner_length=mean(winner for winner, _ in lengths) if lengths else None,
        loser_length=mean(loser for _, loser in lengths) if lengths else None,
        longer_won=mean(winner > loser for winner, loser in unequal) if unequal else None,
        questions=measured.questions + found.questions,
        tokens=(measured.tokens[0] + found.tokens[0], measured.tokens[1] + found.tokens[1]),
    )


def ends_of(pair: Pair, decision: Decision) -> tuple[int, int]:
    """The lengths in characters of the answer that won and of the one that lost."""
    return (len(pair.second), len(pair.first)) if decision.score == 1 else (len(pair.first), len(pair.second))


def without_judge(spec: EvaluationSpec) -> EvaluationSpec:
    """The exam's rules as they are where its judge carries no verdict: by the other metrics, chrf if there are none."""
    others = tuple(name for name in spec.metrics if name != JUDGE)
    reads = others if set(others) & set(OF_ANSWERS) else (*others, "chrf")
    gate = {name: rule for name, rule in spec.gate.items() if name != JUDGE}
    return spec.model_copy(update={"metrics": reads, "gate": gate, "judge": None})


def decides(spec: EvaluationSpec) -> bool:
    """Whether the verdict is by the judge: the gate names it or, without one, it is the first metric."""
    return JUDGE in spec.gate if spec.gate else spec.metrics[:1] == (JUDGE,)


def verdict_on(spec: EvaluationSpec, found: Findings, with_passages: bool) -> Verdict:
    """Judge what an exam found by the recipe's rules, and by its judge only where that is to be trusted.

    A verdict that is to be by a judge who is not does not pass, whatever the other metrics are.
    """
    told = found.judge
    if told is None or told.carries_verdict:
        return by_rules(spec, found.rows, found.metrics, found.benchmarks, found.published, with_passages)
    others = {name: figures for name, figures in found.metrics.items() if name != JUDGE}
    verdict = by_rules(without_judge(spec), found.rows, others, found.benchmarks, found.published, with_passages)
    if not decides(spec):
        return verdict.model_copy(update={"reasons": (*verdict.reasons, f"{untrusted(told)}; it is only reported")})
    reasons = (f"{untrusted(told)}; the verdict is to be by it", *verdict.reasons)
    return verdict.model_copy(update={"passed": False, "reasons": reasons})


def untrusted(found: JudgeReport) -> str:
    """Why a judge carries no verdict."""
    asked = f"evaluation.judge.agreement asks that the lower end reach {found.asked_agreement:.3f}"
    told = f"judge {found.name} carries no verdict"
    if found.agreement is None or found.agreement_interval is None:
        return f"{told}: there are fewer than 10 human choices to measure it by, and {asked}"
    low, high = found.agreement_interval
    return (
        f"{told}: it agrees with {found.agreement:.3f} of {found.choices} human choices, 95 % interval {low:.3f} to "
        f"{high:.3f}, and {asked}"
    )


def agreement_in_words(found: JudgeReport) -> str:
    """Judge, agreement and interval, in a few words."""
    carries = "carries the verdict" if found.carries_verdict else "carries no verdict"
    if found.agreement is None or found.agreement_interval is None:
        return f"{found.name}: not measured, {carries}"
    low, high = found.agreement_interval
    return f"{found.name}: {found.agreement:.1%} ({low:.1%} to {high:.1%}) of {found.choices} choices, {carries}"


def judge_in_words(found: JudgeReport) -> list[str]:
    """The part of report and card on the judge."""
    ties = found.pairs - found.won - found.lost
    same = f", {found.same:,} of them the same answer twice" if found.same else ""
    parts = [
        f"`{found.name}` compared base and tuned answers to {found.pairs:,} questions, each pair in both orders: tuned "
        f"better {found.won:,}, base better {found.lost:,}, ties {ties:,}{same}. An answer is better only where both "
        "orders say so, and a tie is half a win of each.",
    ]
    if found.orders_agree is not None:
        parts.append(f"Both orders came to the same in {found.orders_agree:.1%} of the pairs that it was asked about.")
    if found.unclear:
        parts.append(f"To {found.unclear:,} of them a reply was no choice; they are ties.")
    if found.winner_length is not None:
        longer = "" if found.longer_won is None else f"; the longer answer won {found.longer_won:.1%}"
        parts.append(
            f"Answers that won have {found.winner_length:,.0f} characters on average, those that lost "
            f"{found.loser_length:,.0f}{longer}."
        )
    read, written = found.tokens
    parts.append(f"It answered {found.questions:,} questions, by {read:,} tokens read and {written:,} written.")
    return [" ".join(parts), trust_in_words(found)]


def trust_in_words(found: JudgeReport) -> str:
    """How far the judge agrees with people, and whether it carries a verdict."""
    if not found.carries_verdict:
        return f"**{untrusted(found)}.**"
    low, high = found.agreement_interval or (0.0, 0.0)
    return (
        f"It agrees with {found.agreement or 0:.1%} of {found.choices} choices that people made (95 % interval "
        f"{low:.1%} to {high:.1%}; a tie counts half, and tossing coins comes to 50 %). The lower end reaches the "
        f"{found.asked_agreement:.1%} that the recipe asks for, so that it carries a verdict."
    )
