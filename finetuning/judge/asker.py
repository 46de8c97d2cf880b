"""Who can be asked as a judge: a model behind an API (`endpoint`), or one on this machine."""

from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from finetuning.judge.protocol import Message


class Reply(NamedTuple):
    """What the model said, and the tokens that it read and wrote."""

    text: str
    tokens: tuple[int, int]


class Asker(Protocol):
    """A model that several threads may ask."""

    name: str
    """What the report calls it: another name for other weights."""
    where: str
    """Where it is, for the log."""
    sent: int
    """Requests so far, tries again among them."""

    def at_work(self) -> AbstractContextManager[None]:
        """It is asked within the block alone."""
        ...

    def ask(self, messages: list[Message]) -> Reply:
        """Return what the model replies.

        Raises:
            FinetuningError: it refuses, cannot be reached, or all requests are used up.
        """
        ...

    def without_key(self, text: str) -> str:
        """Return the text without what only its owner may know."""
        ...

    def close(self) -> None:
        """Give up all that it holds."""
        ...
