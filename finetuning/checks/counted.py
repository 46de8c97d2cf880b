"""What was counted in the data: rows with a fault, rows that were dropped, and where the first of them are."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True)
class Example:
    """One row with a fault: `place` is its file and line, `field` the part of it, `detail` what is wrong."""

    place: str
    field: str
    detail: str


@dataclass(frozen=True)
class Counted:
    """What one check counted: how many rows have the fault, of how many, and the first of them."""

    rows: int
    of: int
    examples: list[Example]
    percentiles: Annotated[list[int] | None, Field(exclude_if=lambda found: found is None)] = None
    """Of `max_length` alone: lengths in tokens, from that of the shortest row to that of the longest."""
    fraction: Annotated[float | None, Field(exclude_if=lambda found: found is None)] = None
    """Of `eval_size` alone: the share of the rows that is in eval."""
    reason: Annotated[str, Field(exclude_if=lambda found: not found)] = ""
    """The most frequent reason, of faults that have several."""


@dataclass(frozen=True)
class Dropped:
    """How many rows were left out for one reason, and the place of the first."""

    reason: str
    rows: int
    example: str
