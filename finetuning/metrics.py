"""Scores of one answer against its reference, each a function from (answer, reference) to a number between 0 and 1.

final-answer   "… so 9 + 9 = 18.\n#### 18"  against  "…\n#### 18"   is 1.0
"""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

NUMBER = r"[-+]?\$?\s*\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?"
# What models end an answer with, the most explicit first; the last occurrence in the text counts.
MARKERS = (
    r"####\s*(?P<answer>[^\n]+)",
    r"\\boxed\{(?P<answer>[^{}]+)\}",
    rf"(?i:answer|result|solution)\s*(?i:is|:|=)\s*(?:[a-z]\s*=\s*)?(?P<answer>{NUMBER})",
    rf"\b[a-z]\s*=\s*(?P<answer>{NUMBER})\s*\.?\s*$",
)


class Metric(NamedTuple):
    """How an answer is scored, and which way is better."""

    score: Callable[[str, str], float]
    higher_is_better: bool = True


def final_answer(text: str) -> str | None:
    """The final answer that `text` states, or None where it states none (an unclear answer)."""
    for marker in MARKERS:
        found = list(re.finditer(marker, text, re.MULTILINE))
        if found:
            return found[-1]["answer"].strip()
    return None


def as_number(text: str) -> Fraction | None:
    """The exact value of `text`: "0.5", "1/2", "1,000", "$18.00", "-3"; None where it is no number."""
    plain = re.sub(r"[\s,$%]", "", text).rstrip(".")
    if not re.fullmatch(r"[-+]?\d{1,30}(\.\d{1,30})?(/\d{1,30})?", plain):  # "1e99999999" takes hours to write out
        return None
    try:
        return Fraction(plain)
    except (ValueError, ZeroDivisionError):
        return None


def same_answer(answer: str, reference: str) -> bool:
    """Whether both are the same number or, where they are no numbers, the same text but for case and outer spaces."""
    numbers = as_number(answer), as_number(reference)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return answer.strip().casefold() == reference.strip().casefold()


def score_final_answer(answer: str, reference: str) -> float:
    """1.0 where the final answers are equal; never by substring, so that 8 is not found in 18."""
    stated, expected = final_answer(answer), final_answer(reference)
    return float(stated is not None and expected is not None and same_answer(stated, expected))


def score_unclear(answer: str, reference: str) -> float:
    """1.0 where the answer states no final answer."""
    return float(final_answer(answer) is None)


def score_exact_match(answer: str, reference: str) -> float:
    """1.0 where the whole texts are equal but for outer white space."""
    return float(answer.strip() == reference.strip())


METRICS = {
    "final-answer": Metric(score_final_answer),
    "unclear": Metric(score_unclear, higher_is_better=False),
    "exact-match": Metric(score_exact_match),
}


def metrics_for(names: tuple[str, ...]) -> dict[str, Metric]:
    """The metrics that a recipe asks for; the share of unclear answers always goes with `final-answer`."""
    wanted = [*names, "unclear"] if "final-answer" in names and "unclear" not in names else list(names)
    return {name: METRICS[name] for name in wanted}
