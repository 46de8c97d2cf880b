"""What `documents`, `passages` and `retrieval_index` leave for later steps to read."""

from dataclasses import dataclass

from finetuning.checks.counted import Counted
from finetuning.record import Record


@dataclass(frozen=True)
class Collection:
    """What is known of one collection of documents."""

    source: str
    """Where it comes from, in words."""
    revision: str
    documents: int
    unreadable: int


@dataclass(frozen=True)
class UnreadableDocument:
    """A document that no text could be read from."""

    name: str
    reason: str


class DocumentsSummary(Record):
    """The documents that were read, and the first of those that could not be."""

    documents: int
    characters: int
    unreadable: int
    unreadable_examples: list[UnreadableDocument]
    checks: dict[str, Counted]
    collections: list[Collection]


class PassagesSummary(Record):
    """How documents were cut. Lengths are in tokens of the embedding model."""

    passages: int
    documents: int
    longest: int
    mean: float
    checks: dict[str, Counted]
    without_text: int
    """Documents of which no passage was made."""


class IndexSummary(Record):
    """What is in an index."""

    method: str
    passages: int
    embedding: str
    """The embedding model with its revision; empty for an index by words alone."""
    dimensions: int
    embedded: int
    """Passages that were embedded for this index; the others were known from the one before it."""
