"""Finds the passages for a question in an index.

"Which button resets the Kelvane B7?" -> [Hit(412, "kelvane-b7.md", "… press the red button …"), …]
"""

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from finetuning.knowledge.embedding import Embedder
from finetuning.knowledge.index import BM25, INDEX, VECTORS, words_of
from finetuning.knowledge.passages import Passage, passages_at, passages_in

# Of each of the two ways so many are ranked before the ranks are joined.
CANDIDATES = 50
# Source: Cormack, Clarke and Büttcher, Reciprocal Rank Fusion outperforms Condorcet (2009), whose constant it is.
RANK_CONSTANT = 60
SCORED_TOGETHER = 1 << 27  # products of questions and passages in memory


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
        """The passages, one row each."""
        return passages_in(self._folder)

    def passages(self, numbers: Iterable[int]) -> list[Passage]:
        """The passages of those numbers."""
        return passages_at(self.table, numbers)

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
        assert self._embedder is not None and self._vectors is not None
        asked = self._embedder.of_questions(questions)
        found, count = [], min(most, len(self._vectors))
        for question in asked:
            scores = self._scores(question)
            best = np.argpartition(-scores, count - 1)[:count]
            found.append(best[np.lexsort((best, -scores[best]))].tolist())
        return found

    def _scores(self, question: np.ndarray) -> np.ndarray:
        """The cosine of the question with every passage (passages,), in parts that fit into memory."""
        assert self._vectors is not None
        rows = max(1, SCORED_TOGETHER // self._vectors.shape[1] // 4)
        parts = range(0, len(self._vectors), rows)
        return np.concatenate([self._vectors[start : start + rows].astype(np.float32) @ question for start in parts])


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
