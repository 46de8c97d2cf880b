"""What `chat_dataset` leaves for later steps to read: counts, lengths, what the checks found, and a preview."""

from dataclasses import dataclass

from pydantic import Field

from finetuning.checks.counted import Counted, Dropped
from finetuning.record import Record


@dataclass(frozen=True)
class Histogram:
    """How many rows have a length between two edges (tokens); there is one edge more than counts."""

    edges: list[int]
    counts: list[int]


@dataclass(frozen=True)
class Lengths:
    """Lengths of rows in tokens: those in train, and the longest of any row before the limit."""

    train: Histogram
    max: int


@dataclass(frozen=True)
class ShownToken:
    """One token of a preview, and whether it is learned."""

    text: str
    id: int
    supervised: bool


class ChatSummary(Record):
    """What is in a folder of conversations; `tokens` and `supervised_tokens` are counted in train."""

    train_rows: int
    eval_rows: int
    dropped: list[Dropped]
    unused_columns: dict[str, list[str]]
    """By the source's path in the recipe."""
    checks: dict[str, Counted]
    raw_checks: dict[str, Counted] = Field(default_factory=dict)
    """What the checks of the raw rows counted."""
    tokens: int
    supervised_tokens: int
    stop_token: str
    given_tokens: dict[str, str]
    """Control tokens that the tokenizer was given, and where each came from."""
    lengths: Lengths
    preview: list[list[ShownToken]]
