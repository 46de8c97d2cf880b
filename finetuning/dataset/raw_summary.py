"""What `raw_dataset` leaves for later steps to read: counts, the sources, and the first rows."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from finetuning.checks.counted import Counted
from finetuning.record import Record

# One row of a data set as its authors have it: a JSON object whose keys are theirs.
JsonRow = Mapping[str, JsonValue]


@dataclass(frozen=True)
class RawSource:
    """What is known of one source whose rows were read; `sources.json` has a list of these."""

    stem: str
    """The file that holds its rows, such as `train-00`."""
    split: str
    source: str
    """Where it comes from, in words."""
    revision: str
    columns: list[str]
    """Those of the first rows."""
    first_row: JsonRow
    """A row with something in every column, if there is one, shortened."""
    lines: int
    unreadable: int
    rows: int


@dataclass(frozen=True)
class UnreadableLine:
    """A line that no row could be read from."""

    place: str
    reason: str
    text: str


class RawSummary(Record):
    """What is in a folder of raw rows; `rows` and `unreadable` are the sums over all sources."""

    rows: int
    unreadable: int
    unreadable_examples: list[UnreadableLine]
    checks: dict[str, Counted]
    sources: list[RawSource]
    preview: list[JsonRow]
