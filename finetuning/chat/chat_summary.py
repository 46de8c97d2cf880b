"""What `chat_dataset` leaves for later steps to read: counts, lengths, what the checks found, and a preview."""

from dataclasses import dataclass

from pydantic import Field, JsonValue

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
    dev_rows: int = 0
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
    template_date: str | None = None
    """What the chat template takes for today, where it writes the date."""
    template_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    """The arguments that it is given."""
    earlier_answers: int = 0
    """Rows of all splits that teach an earlier answer of a conversation by itself: the template asks for it."""
    lengths: Lengths
    preview: list[list[ShownToken]]
    text_rows: int = 0
    """Rows of train that are text and no conversation."""
    notes: list[str] = Field(default_factory=list)
    """What a person may want to change, and is no fault."""
