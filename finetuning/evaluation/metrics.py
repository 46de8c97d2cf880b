"""Metrics: each scores what a model made of one eval row; a model's figure is the mean over the rows.

final-answer   "… so 9 + 9 = 18.\n#### 18"  against  "…\n#### 18"   is 1.0
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from finetuning.recipe.evaluation import with_implied

NUMBER = r"[-+]?\$?\s*\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?"
# What models end an answer with, the most explicit first; the last occurrence in the text counts.
MARKERS = (
    r"####\s*(?P<answer>[^\n]+)",
    r"\\boxed\{(?P<answer>[^{}]+)\}",
    rf"(?i:answer|result|solution)\s*(?i:is|:|=)\s*(?:[a-z]\s*=\s*)?(?P<answer>{NUMBER})",
    rf"\b[a-z]\s*=\s*(?P<answer>{NUMBER})\s*\.?\s*$",
)


class Outcome(NamedTuple):
    """What one model made of one eval row."""

    reference: str
    answer: str
    stopped: bool
    """Whether the answer ended with the stop token, before `max_new_tokens`."""
    loss: float = 0.0
    """Negative log likelihood (nats) of the row's supervised tokens, their sum; 0 where it was not measured."""
    supervised: int = 0
    """The number of these tokens."""
    passed: float = 0.0
    """1 where the code in the answer ran to its end and kept the reference's asserts; 0 where it was not run."""


def each_row_alike(outcome: Outcome) -> float:
    """1.0: most metrics are plain means over the rows."""
    return 1.0


@dataclass(frozen=True)
class Metric:
    """How a row is scored, and how rows become one figure."""

    score: Callable[[Outcome], float]
    higher_is_better: bool = True
    weight: Callable[[Outcome], float] = each_row_alike
    """The weight of a row in the mean."""
    figure: Callable[[Any], Any] = lambda mean: mean
    """What is shown of the mean, a number or an array of them."""


def final_answer(text: str) -> str | None:
    """The final answer that `text` states, or None where it states none (an unclear answer)."""
    for marker in MARKERS:
        found = list(re.finditer(marker, text, re.MULTILINE))
        if found:
            return found[-1]["answer"].strip()
    return None


def as_number(text: str) -> Fraction | None:
    """The exact value of `text`: "0.5", "1/2", "1,000", "$18.00", "-3"; None where it is not a number."""
    plain = re.sub(r"[\s,$%]", "", text).rstrip(".")
    if not re.fullmatch(r"[-+]?\d{1,30}(\.\d{1,30})?(/\d{1,30})?", plain):  # "1e99999999" takes hours to write out
        return None
    number, _, divisor = plain.partition("/")
    try:
        return Fraction(number) / Fraction(divisor or 1)
    except ZeroDivisionError:
        return None


def same_answer(answer: str, reference: str) -> bool:
    """Whether both are the same number or, where they are no numbers, the same text but for case and outer spaces."""
    numbers = as_number(answer), as_number(reference)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return answer.strip().casefold() == reference.strip().casefold()


def score_final_answer(outcome: Outcome) -> float:
    """1.0 where the final answers are equal; never by substring, so that 8 is not found in 18."""
    stated, expected = final_answer(outcome.answer), final_answer(outcome.reference)
    return float(stated is not None and expected is not None and same_answer(stated, expected))


def score_unclear(outcome: Outcome) -> float:
    """1.0 where the answer states no final answer."""
    return float(final_answer(outcome.answer) is None)


def score_exact_match(outcome: Outcome) -> float:
    """1.0 where the whole texts are equal but for outer white space."""
    return float(outcome.answer.strip() == outcome.reference.strip())


def score_stop(outcome: Outcome) -> float:
    """1.0 where the model ended its answer itself, with the stop token."""
    return float(outcome.stopped)


def score_rouge_l(outcome: Outcome) -> float:
    """F-measure of the longest common subsequence of words, between 0 and 1; of letters a to z and digits alone.

    Source: Lin, ROUGE: A Package for Automatic Evaluation of Summaries (2004).
    """
    return float(_rouge().score(outcome.reference, outcome.answer)["rougeL"].fmeasure)


def score_chrf(outcome: Outcome) -> float:
    """F-score of common character sequences (chrF2), between 0 and 1; for any language.

    Source: Popović, chrF: character n-gram F-score for automatic MT evaluation (2015).
    """
    return _chrf().sentence_score(outcome.answer, [outcome.reference]).score / 100


def score_loss(outcome: Outcome) -> float:
    """Mean negative log likelihood (nats) of the row's supervised tokens."""
    return outcome.loss / max(outcome.supervised, 1)


def score_python_tests(outcome: Outcome) -> float:
    """1.0 where the code in the answer ran to its end and kept the reference's asserts."""
    return outcome.passed


def supervised_tokens(outcome: Outcome) -> float:
    """How many tokens a mean over tokens counts a row for."""
    return float(outcome.supervised)


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # it and sacrebleu are loaded by those who ask for them alone

    return RougeScorer(["rougeL"])


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


METRICS = {
    "final-answer": Metric(score_final_answer),
    "unclear": Metric(score_unclear, higher_is_better=False),
    "exact-match": Metric(score_exact_match),
    "stop-rate": Metric(score_stop),
    "rouge-l": Metric(score_rouge_l),
    "chrf": Metric(score_chrf),
    "python-tests": Metric(score_python_tests),
    "loss": Metric(score_loss, higher_is_better=False, weight=supervised_tokens),
    "perplexity": Metric(score_loss, higher_is_better=False, weight=supervised_tokens, figure=np.exp),
}


def metrics_for(names: tuple[str, ...]) -> dict[str, Metric]:
    """The metrics that a recipe asks for, and those that always go with them."""
    return {name: METRICS[name] for name in with_implied(names)}
