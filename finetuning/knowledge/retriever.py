"""Finds the passages for a question in an index.

"Which button resets the Kelvane B7?" -> [Hit(412, "kelvane-b7.md", "… press the red button …"), …]
"""

import json
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetuning.knowledge.embedding import Embedder
from finetuning.knowledge.index import BM25, INDEX, VECTORS, words_of
from finetuning.knowledge.passages import Passage, passages_at, passages_in

# Of each of the two ways so many are ranked before the ranks are joined.
CANDIDATES = 50
# Source: Cormack, Clarke and Büttcher, Reciprocal Rank Fusion outperforms Condorcet (2009), whose constant it is.
RANK_CONSTANT = 60
ASKED_TOGETHER, SCORED_TOGETHER = 64, 50_000  # questions, and passages, whose vectors are in memory at once


class Retriever:
    """An index in memory: the words as they are, the vectors mapped from the disk."""

    def __init__(self, folder: Path, embedder: Embedder | None) -> None:
        import bm25s

        self.method = json.loads((folder / INDEX).read_bytes())["method"]
        self._embedder, self._folder = embedder, folder
        self._words: Any = bm25s.BM25.load(folder / BM25, mmap=True) if self.method != "embedding" else None
        self._vectors = None
        if self.method != "bm25":
            self._vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)

    @cached_property
    def table(self) -> Any:
        """The passages, one row each, in one piece: of one in many, a row is taken in the time of all."""
        table = passages_in(self._folder)
        large = [field.with_type(pa.large_string()) if field.type == pa.string() else field for field in table.schema]
        return table.cast(pa.schema(large)).combine_chunks()

    def passages(self, numbers: Iterable[int]) -> list[Passage]:
        """The passages of those numbers."""
        return passages_at(self.table, numbers)

    def passages_of(self, documents: Collection[str]) -> set[int]:
        """The numbers of the passages of those documents."""
        return {number for number, name in enumerate(self.table["document"].to_pylist()) if name in documents}

    def find(self, questions: Sequence[str], most: int) -> list[list[int]]:
        """Return the numbers of at most `most` passages for each question, the best first.

        By both ways together, a passage counts by the sum of 1 / (60 + its rank) in each.
        """
        if not questions:
            return []
        if self.method == "bm25":
            return self._by_words(questions, most)
        if self.method == "embedding":
            return self._by_meaning(questions, most)
        candidates = max(CANDIDATES, most)
        ways = zip(self._by_words(questions, candidates), self._by_meaning(questions, candidates), strict=True)
        return [joined(ranked, most) for ranked in ways]

    def _by_words(self, questions: Sequence[str], most: int) -> list[list[int]]:
        words = words_of(questions)
        count = min(most, self.table.num_rows)
        numbers, scores = self._words.retrieve(words, k=count, show_progress=False)
        return [
            [int(number) for number, score in zip(row, of_row, strict=True) if score > 0]
            for row, of_row in zip(numbers, scores, strict=True)
        ]

    def _by_meaning(self, questions: Sequence[str], most: int) -> list[list[int]]:
        assert self._embedder is not None
        asked, found = self._embedder.of_questions(questions), list[list[int]]()
        for start in range(0, len(asked), ASKED_TOGETHER):
            found += self.nearest(asked[start : start + ASKED_TOGETHER], most)
        return found

    def nearest(self, asked: np.ndarray, most: int) -> list[list[int]]:
        """Return the passages with the largest cosines with each vector of `asked` (questions, dimensions)."""
        assert self._vectors is not None
        numbers, scores = np.zeros((len(asked), 0), np.int64), np.zeros((len(asked), 0), np.float32)
        for start in range(0, len(self._vectors), SCORED_TOGETHER):
            part = self._vectors[start : start + SCORED_TOGETHER]
            # One question at a time: of several in one product, each would be rounded as those beside it have it.
            found = np.stack([part @ question for question in asked])
            scores = np.concatenate([scores, found], axis=1)
            numbers = np.concatenate(
                [numbers, np.broadcast_to(np.arange(start, start + len(part)), found.shape)], axis=1
            )
            count = min(most, scores.shape[1])
            best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
            numbers, scores = (np.take_along_axis(kept, best, axis=1) for kept in (numbers, scores))
        order = [np.lexsort((row, -score)) for row, score in zip(numbers, scores, strict=True)]
        return [row[places].tolist() for row, places in zip(numbers, order, strict=True)]


def joined(ranked: Iterable[Sequence[int]], most: int) -> list[int]:
    """Join several ranks of the same passages by reciprocal rank fusion.

    >>> joined([[7, 3, 5], [3, 9]], 2)
    [3, 7]
    """
    scores: dict[int, float] = {}
    for numbers in ranked:
        for rank, number in enumerate(numbers, 1):
            scores[number] = scores.get(number, 0.0) + 1 / (RANK_CONSTANT + rank)
    return sorted(scores, key=lambda number: (-scores[number], number))[:most]
