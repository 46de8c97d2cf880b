"""Metrics: each scores what a model made of one eval row; a model's figure is the mean over the rows.

final-answer   "… so 9 + 9 = 18.\n#### 18"  against  "…\n#### 18"   is 1.0
"""

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from finetuning.knowledge.context import has_words
from finetuning.recipe.evaluation import EvaluationSpec, with_implied

NUMBER = r"[-+]?[$€£¥]?\s*\d(?:[\d.,'’\u00a0\u2009\u202f]*\d)?(?:\s*/\s*\d+)?"
# Full-width characters, the minus of print, and the signs in Arabic numbers, as keyboards have them.
PLAIN = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},
    **{0x2212: "-", 0x066B: ".", 0x066C: ",", 0x3002: "."},
}
# In groups of three, or India's of two: "1,000", "1.000.000,5", "12,34,567.8".
GROUPED = (
    r"[1-9]\d{0,2}(,\d{3})+(\.\d+)?",
    r"[1-9]\d{0,2}((\.\d{3}){2,}(,\d+)?|\.\d{3},\d+)",
    r"[1-9]\d?(,\d\d)+,\d{3}(\.\d+)?",
    r"[1-9]\d{0,2}((?P<space>['’\s])\d{3})((?P=space)\d{3})*([.,]\d+)?",
)
# What models end an answer with, the most explicit first; the last occurrence in the text counts.
MARKERS = (
    r"####\s*(?P<answer>[^\n]+)",
    r"\\boxed\{(?P<answer>[^{}]+)\}",
    rf"(?i:answer|result|solution)\s*(?i:is|:|=)\s*(?:[a-z]\s*=\s*)?(?P<answer>{NUMBER})",
    rf"\b[a-z]\s*=\s*(?P<answer>{NUMBER})\s*\.?\s*$",
)

LARGEST = math.log(1e100)  # nats
# Letters and signs that nobody sees: the fillers of Korean, and the blanks of Braille and of music.
BLANK = str.maketrans("", "", "\u115f\u1160\u3164\uffa0\u2800\U0001d159")
AROUND = " \t*_`"  # spaces and emphasis, on either side of an answer


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
    judged: float = 0.5
    """1 where a judge calls the answer better than the other model's, 0 where it calls that one better; else 0.5."""


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


def final_answer(text: str, markers: Sequence[str] = ()) -> str | None:
    """The final answer that `text` states, or None where it states none (an unclear answer).

    Args:
        markers: words of the recipe after which it stands, up to the end of the line.
    """
    text, markers = text.translate(PLAIN), [marker.translate(PLAIN) for marker in markers]
    explicit, *others = MARKERS
    escaped = [f"(?i:{re.escape(marker)})" for marker in markers]
    own = [rf"{words}[ \t*_]*+[:=]?+(?P<answer>(?:(?!{words})[^\n])+)" for words in escaped]
    for marker in (explicit, *own, *others):
        found = list(re.finditer(marker, text, re.MULTILINE))
        if found:
            return found[-1]["answer"].strip(AROUND) or None
    return text.strip() if as_number(text) is not None or is_ambiguous(text) else None


def as_number(text: str) -> Fraction | None:
    """The exact value of `text`: "0.5", "0,5", "1/2", "1,000", "$18.00", "-3"; None where it is not a number.

    A comma is a thousands sign before exactly three digits, and a decimal one before fewer or more.
    """
    if is_ambiguous(text):
        return None
    found = re.fullmatch(r"(?P<sign>[-+]?)(?P<number>[^/]+)(?:/(?P<divisor>[^/]+))?", bare_number(text))
    if not found:
        return None
    number, divisor = (plain_digits(part.strip()) for part in (found["number"], found["divisor"] or "1"))
    if number is None or divisor is None:
        return None
    try:
        return Fraction(found["sign"] + number) / Fraction(divisor)
    except ZeroDivisionError:
        return None


def is_ambiguous(text: str) -> bool:
    """Whether `text` is a number such as "1.000" or "2.500", which is a thousand times as much in half of the world."""
    return re.fullmatch(r"[-+]?[1-9]\d{0,2}\.\d\d0", bare_number(text)) is not None


def bare_number(text: str) -> str:
    """`text` without what may stand around a number: spaces, currency, percent, the sentence's own full stop."""
    plain = re.sub(r"[$€£¥%]", "", text.translate(PLAIN)).strip().rstrip(".,").strip()
    return re.sub(r"^([-+])\s+", r"\1", plain)


def plain_digits(number: str) -> str | None:
    """A number without its thousands signs and with a decimal point; None where it is none."""
    if re.fullmatch(r"\d{1,30}([.,]\d{1,30})?", number) and not re.fullmatch(GROUPED[0], number):
        return number.replace(",", ".")  # "1e99999999" would take hours to write out
    if len(number) > 60 or not any(re.fullmatch(form, number) for form in GROUPED):
        return None
    whole, sign, part = number, "", ""
    if found := re.fullmatch(r"(.+)([.,])(\d+)", number):
        # The last sign is a decimal one where the others are not the same, or where it is no thousands sign.
        others = re.sub(r"\d", "", found[1])
        if others and found[2] not in others:
            whole, sign, part = found[1], ".", found[3]
    return re.sub(r"\D", "", whole) + sign + part


def same_answer(answer: str, reference: str) -> bool:
    """Whether both are the same number or, where they are no numbers, the same text but for case and outer spaces."""
    numbers = as_number(answer), as_number(reference)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return _bare(answer) == _bare(reference)


def _bare(text: str) -> str:
    """An answer in words without what is around it: spaces, emphasis, the full stop."""
    return text.translate(PLAIN).strip(AROUND + ".").casefold()


def score_final_answer(outcome: Outcome, markers: Sequence[str] = ()) -> float:
    """1.0 where the final answers are equal; never by substring, so that 8 is not found in 18."""
    stated, expected = final_answer(outcome.answer, markers), final_answer(outcome.reference, markers)
    return float(stated is not None and expected is not None and same_answer(stated, expected))


def score_unclear(outcome: Outcome, markers: Sequence[str] = ()) -> float:
    """1.0 where the answer states no final answer."""
    return float(final_answer(outcome.answer, markers) is None)


def score_exact_match(outcome: Outcome) -> float:
    """1.0 where the whole texts are equal but for outer white space."""
    return float(outcome.answer.strip() == outcome.reference.strip())


def score_contains(outcome: Outcome) -> float:
    """1.0 where the answer has the reference in it as whole words, whatever is around it; case makes no difference.

    >>> [score_contains(Outcome("4.2", answer, True)) for answer in ("It weighs 4.2 kg.", "It weighs 14.2 kg.")]
    [1.0, 0.0]
    """
    return float(has_words(outcome.answer, outcome.reference))


def score_stop(outcome: Outcome) -> float:
    """1.0 where the model ended its answer itself, with the stop token."""
    return float(outcome.stopped)


def score_empty(outcome: Outcome) -> float:
    """1.0 where the answer has no letter or digit of any script; signs say something where the reference has no other.

    Beside white space that is what shows nothing, such as U+200B or the letter U+3164, and "..." or "```".
    """
    answer, reference = outcome.answer.translate(BLANK), outcome.reference.translate(BLANK)
    if any(map(str.isalnum, answer)):
        return 0.0
    of_signs = bool(reference.strip()) and not any(map(str.isalnum, reference))
    return float(not (of_signs and any(unicodedata.category(sign)[0] in "SP" for sign in answer)))


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


def score_judge(outcome: Outcome) -> float:
    """1.0 where the judge calls the answer better than the other model's, 0.5 for a tie."""
    return outcome.judged


def perplexity(loss: Any) -> Any:
    """The exponential of a loss, up to 1e100; a model that is worse than that is as bad as one can be."""
    return np.exp(np.minimum(loss, LARGEST))


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
    "contains": Metric(score_contains),
    "stop-rate": Metric(score_stop),
    "empty": Metric(score_empty, higher_is_better=False),
    "rouge-l": Metric(score_rouge_l),
    "chrf": Metric(score_chrf),
    "python-tests": Metric(score_python_tests),
    "judge": Metric(score_judge),
    "loss": Metric(score_loss, higher_is_better=False, weight=supervised_tokens),
    "perplexity": Metric(score_loss, higher_is_better=False, weight=supervised_tokens, figure=perplexity),
}


# Those that look for a final answer, which a recipe can have words of its own for.
STATED = {"final-answer": score_final_answer, "unclear": score_unclear}


def metrics_for(spec: EvaluationSpec) -> dict[str, Metric]:
    """The metrics that a recipe asks for, and those that always go with them."""
    found = {name: METRICS[name] for name in with_implied(spec.metrics)}
    if spec.answer_markers:
        for name in STATED.keys() & found.keys():
            found[name] = replace(found[name], score=partial(STATED[name], markers=spec.answer_markers))
    return found
