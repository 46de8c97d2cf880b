"""Keeps account of rows that were dropped and of rows that have a fault: all of them in a table, some as examples."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from finetuning.checks.counted import Dropped, Example
from finetuning.checks.judgement import EXAMPLES
from finetuning.secrets import find_secret, masked

SHOWN_CHARACTERS = 200
WRITTEN_TOGETHER = 10_000
MOST_REASONS = 100  # some hold a word of the row


class Finding(NamedTuple):
    """One row with a fault."""

    place: str
    """`file:line`."""
    check: str
    """The check that it belongs to; empty for a row that is as it should be, and was not chosen."""
    reason: str
    field: str
    text: str
    """How the row begins."""


SCHEMA = pa.schema([(name, pa.string()) for name in Finding._fields])


@dataclass
class Count:
    """How many rows have one fault, and the first of them."""

    rows: int = 0
    examples: list[Example] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    """How many have each reason, of the first MOST_REASONS."""

    def add(self, place: str, detail: str, field: str) -> None:
        """Count one more row."""
        self.rows += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(Example(place, field, detail))
        if detail in self.reasons or len(self.reasons) < MOST_REASONS:
            self.reasons[detail] = self.reasons.get(detail, 0) + 1


class FindingsTable:
    """A Parquet file of findings, written as they come; counts them by reason and by check."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA)
        self._waiting: list[Finding] = []
        self.reasons: dict[str, Count] = {}
        self.checks: dict[str, Count] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._write()
        self._writer.close()

    def add(self, place: str, check: str, reason: str, field: str = "", text: str = "") -> None:
        """Write down one more row, without its text where that looks like a secret."""
        shown, reason = "" if find_secret(text) else text[:SHOWN_CHARACTERS], masked(reason)
        self._waiting.append(Finding(place, check, reason, field, shown))
        known = reason in self.reasons or len(self.reasons) < MOST_REASONS
        self.reasons.setdefault(reason if known else "other reasons", Count()).add(place, "", field)
        self.checks.setdefault(check, Count()).add(place, reason, field)
        if len(self._waiting) >= WRITTEN_TOGETHER:
            self._write()

    def by_reason(self) -> list[Dropped]:
        """Return how many rows have each reason, the most frequent first, with the place of the first row."""
        found = [Dropped(reason, count.rows, count.examples[0].place) for reason, count in self.reasons.items()]
        return sorted(found, key=lambda dropped: -dropped.rows)

    def _write(self) -> None:
        columns = zip(*self._waiting, strict=True) if self._waiting else [()] * len(SCHEMA)
        self._writer.write_table(pa.table([pa.array(column, pa.string()) for column in columns], SCHEMA))
        self._waiting.clear()


def most_frequent(counts: Iterable[Count]) -> str:
    """Return the reason that most of the rows in some counts have; empty where there is none."""
    together: Counter[str] = Counter()
    for count in counts:
        together.update(count.reasons)
    return together.most_common(1)[0][0] if together else ""
