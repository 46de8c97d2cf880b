"""Puts two exams side by side, as Markdown: settings, data, scores, and the answers in which they differ.

Both may be of one recipe or of two. Their answers are compared on the rows that both were asked: a difference in the
figures of two reports alone may be one in the questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from finetuning.evaluation.intervals import Sides, gain_interval
from finetuning.evaluation.judged import agreement_in_words
from finetuning.evaluation.report import Report
from finetuning.evaluation.tables import in_digits
from finetuning.recipe.evaluation import UNBOUNDED

ASKED = ["question", "reference"]
LONGEST = 600  # characters of a text that is shown
ABSENT = "–"


@dataclass(frozen=True)
class Examined:
    """One adapter with its exam."""

    name: str
    sections: Mapping[str, Any]
    """What its line was made from: the recipe's sections, as the artifacts have them."""
    facts: Mapping[str, str]
    """What is known of data and training, in words."""
    report: Report
    samples: pd.DataFrame
    """Every question with its reference, the tuned model's answer (`tuned`) and that one's score (`tuned_score`)."""

    @property
    def main(self) -> str:
        """The metric that the answers' scores are of."""
        return next(iter(self.report.metrics))


def side_by_side(first: Examined, second: Examined, shown: int) -> str:
    """Return the comparison; `shown` is of how many rows the answers are shown."""
    parts = [
        f"# {first.name} beside {second.name}",
        "## Settings that differ",
        _beside(first, second, flat(first.sections), flat(second.sections), only_others=True) or "None.",
        "## Data and training",
        _beside(first, second, first.facts, second.facts, only_others=False),
        "## Scores",
        _beside(first, second, _figures(first.report), _figures(second.report), only_others=False),
        *_answers(first, second, shown),
    ]
    return "\n\n".join(parts) + "\n"


def flat(value: Any, place: str = "") -> dict[str, str]:
    """Every key of nested sections by its whole path, with what it holds in words.

    >>> flat({"lora": {"r": 8, "bias": None}, "dataset": {"sources": [{"hub": "a/b"}]}})
    {'lora.r': '8', 'lora.bias': 'null', 'dataset.sources[0].hub': 'a/b'}
    """
    if isinstance(value, Mapping) and value:
        inner = {f"{place}.{key}" if place else str(key): held for key, held in value.items()}
    elif isinstance(value, list) and any(isinstance(entry, (Mapping, list)) for entry in value):
        inner = {f"{place}[{number}]": held for number, held in enumerate(value)}
    else:
        return {place: _in_words(value)}
    return {path: text for name, held in inner.items() for path, text in flat(held, name).items()}


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_in_words, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _beside(
    first: Examined, second: Examined, ours: Mapping[str, str], theirs: Mapping[str, str], only_others: bool
) -> str:
    names = [*{**ours, **theirs}]
    if only_others:
        names = sorted(name for name in names if ours.get(name) != theirs.get(name))
    rows = [("", first.name, second.name)]
    rows += [(name, ours.get(name, ABSENT), theirs.get(name, ABSENT)) for name in names]
    return _table(rows) if names else ""


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(_in_a_cell, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _in_a_cell(text: str) -> str:
    """A text that neither ends a cell nor is taken for HTML."""
    return " ".join(text.replace("|", "\\|").replace("<", "\\<").split())


def _figures(report: Report) -> dict[str, str]:
    """Each metric and benchmark of the tuned model, beside its base's, in words; and the verdict."""
    found = {
        name: f"{_figure(name, figures.tuned)} (base {_figure(name, figures.base)})"
        for name, figures in report.figures.items()
    }
    judge = {"judge's agreement with people": agreement_in_words(report.judge)} if report.judge else {}
    return {"verdict": "passed" if report.verdict.passed else "failed", "rows": f"{report.rows:,}", **found, **judge}


def _figure(name: str, figure: float) -> str:
    return in_digits(figure) if name in UNBOUNDED else f"{figure:.1%}"


def _answers(first: Examined, second: Examined, shown: int) -> list[str]:
    """What the second gained over the first on the rows that both were asked, and the answers in which they differ."""
    title = "## Answers"
    if first.main != second.main:
        return [title, f"Not compared: {first.name} is scored by {first.main}, {second.name} by {second.main}."]
    if why := not_comparable(first.report, second.report):
        return [title, f"Not compared: {why}."]
    both = common_rows(first, second)
    if both.empty:
        return [title, "Not compared: no question with the same reference was asked of both."]
    lower = not first.report.metrics[first.main].higher_is_better
    other = [row for row in both.to_dict("records") if row["tuned_first"] != row["tuned_second"]]
    chosen = sorted(other, key=lambda row: -abs(row["tuned_score_second"] - row["tuned_score_first"]))[:shown]
    told = f"{len(other):,} of {len(both):,} answers differ" + (f"; {len(chosen)} of them:" if chosen else ".")
    shown_rows = [_row(first, second, row) for row in chosen]
    return [title, gained(both, first, second, lower), told, *shown_rows]


def not_comparable(first: Report, second: Report) -> str | None:
    """Why a judge's scores of two exams say nothing about each other; None where they do, or are no judge's."""
    if first.scored_against != second.scored_against:
        return "a judge's scores say how answers are beside the base's, and these are of another base or judge"
    untrusted = first.scored_against and not all(one.judge and one.judge.carries_verdict for one in (first, second))
    return "the judge carries no verdict" if untrusted else None


def common_rows(first: Examined, second: Examined) -> pd.DataFrame:
    """The rows that both were asked, each question with its reference once."""
    ours, theirs = (side.samples.drop_duplicates(ASKED) for side in (first, second))
    return ours.merge(theirs, on=ASKED, suffixes=("_first", "_second"))


def gained(both: pd.DataFrame, first: Examined, second: Examined, lower_is_better: bool) -> str:
    """What the second gained on the same rows, with its 95 % interval, in a sentence."""
    sides = Sides(*(_weighed(both[f"tuned_score_{side}"].to_numpy(float)) for side in ("first", "second")))
    low, high = gain_interval(sides, lambda mean: mean)
    gain = float(sides.second[:, 0].mean() - sides.first[:, 0].mean())
    if lower_is_better:
        gain, low, high = -gain, -high, -low
    scale, unit = (1, "") if first.main in UNBOUNDED else (100, " points")
    gain, low, high = (scale * figure for figure in (gain, low, high))
    numbers = f"{gain:+.2f}{unit} in {first.main}, 95 % interval {low:+.2f} to {high:+.2f}"
    if low > 0 or high < 0:
        better = second.name if low > 0 else first.name
        return f"**{better} is better** on the {len(both):,} rows that both were asked: {second.name} gains {numbers}."
    return f"**Neither is better** beyond noise on the {len(both):,} rows that both were asked: {numbers}."


def _weighed(scores: np.ndarray) -> np.ndarray:
    return np.stack([scores, np.ones(len(scores))], axis=1)


def _row(first: Examined, second: Examined, row: Mapping[Any, Any]) -> str:
    """One question with its reference and both answers, each as it is."""
    parts = [
        ("question", row["question"]),
        ("reference", row["reference"]),
        (f"{first.name} ({row['tuned_score_first']:g})", row["tuned_first"]),
        (f"{second.name} ({row['tuned_score_second']:g})", row["tuned_second"]),
    ]
    return f"### {row['place_first']}\n\n" + "\n\n".join(f"{name}:\n\n{_quoted(text)}" for name, text in parts)


def _quoted(text: str) -> str:
    """A text as a block of code that no text of its own can end."""
    text = text if len(text) <= LONGEST else text[:LONGEST] + " …"
    fence = "`" * max(3, 1 + max((len(run) for run in _runs(text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _runs(text: str) -> list[str]:
    return [run for run in "".join(letter if letter == "`" else " " for letter in text).split(" ") if run]
