"""What decides about memory in the rows that are trained on. Imports nothing, so that `resources` may name it."""

from typing import NamedTuple


class TrainingData(NamedTuple):
    """The most that a row of any split has, and what is new to the base model."""

    longest: int
    """Tokens."""
    supervised: int | None
    """Tokens that are learned; None for all of them."""
    new_tokens: list[int]
    """Ids."""
