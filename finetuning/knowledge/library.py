"""The documents of a model that is in use: finds passages for the question at the end of a conversation.

>>> messages, shown = library.look_up([{"role": "user", "content": "Which button resets the Kelvane B7?"}])
>>> shown[0].document
'kelvane-b7.md'
"""

from collections.abc import Sequence
from pathlib import Path

from finetuning.dataset.turns import Message
from finetuning.knowledge.context import asked_with, question_of
from finetuning.knowledge.embedding import Embedder
from finetuning.knowledge.passages import Passage
from finetuning.knowledge.retriever import Retriever
from finetuning.recipe.recipe import Recipe


class Library:
    """An index in memory, with how questions are asked with what is found in it."""

    def __init__(self, index: Path, embedding: Path | None, recipe: Recipe) -> None:
        """Load them.

        Args:
            embedding: the folder of the embedding model; None for an index by words alone.

        Raises:
            FinetuningError: the embedding model cannot be loaded.
        """
        assert recipe.knowledge and recipe.context, "a recipe without documents has no index"
        self.spec = recipe.context
        embedder = Embedder(embedding, recipe.knowledge.embedding, recipe.file) if embedding else None
        self._retriever = Retriever(index, embedder)

    def look_up(self, messages: Sequence[Message]) -> tuple[list[Message], list[Passage]]:
        """Return the messages with passages in the last question, as in the exam, and these passages in their order.

        Where tools were called since, the question is asked with the same ones again.
        """
        last = question_of(messages)
        if last is None:
            return list(messages), []
        (numbers,) = self._retriever.find([messages[last]["content"]], self.spec.passages)
        passages = self._retriever.passages(numbers)
        return asked_with(messages, passages, self.spec), passages
