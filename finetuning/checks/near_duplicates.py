"""Finds conversations that nearly repeat each other, by MinHash over three-token sequences and banding.

Source: Broder, On the resemblance and containment of documents (1997); Leskovec, Rajaraman, Ullman, Mining of Massive
Datasets, chapter 3.
"""

import mmap
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rensa

from finetuning.tokens import ANSWER, QUESTION, Tokens

# Of pairs with 0.85 of their three-token sequences in common (Jaccard), these bands find 92 %, at 0.9 99 %, at 0.7
# 38 %, at 0.5 3 %; the signatures then rule out those below the similarity that is asked for.
BANDS, BAND_HASHES = 8, 8
QUESTION_HASHES, ANSWER_HASHES = BANDS * BAND_HASHES, 32
WIDTH = QUESTION_HASHES + ANSWER_HASHES
SEED = 42
COMPARED_TOGETHER = 100_000
# Odd numbers without a pattern in their bits: the fractional digits of pi in base 16.
MULTIPLIERS = np.array([0x243F6A8885A308D3, 0x13198A2E03707345, 0xA4093822299F31D1], dtype=np.uint64)


class Pairs(NamedTuple):
    """Conversations with nearly the same question: numbers `first` < `second` (pairs,), and whether the answers are
    nearly the same as well (pairs,)."""

    first: np.ndarray
    second: np.ndarray
    same_answer: np.ndarray


class Sketches:
    """The signatures of conversations, in a file, and their bands, in memory: 64 bytes a conversation."""

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, path.open("wb")
        self._bands: list[np.ndarray] = []

    def add(self, tokens: Tokens) -> None:
        """Add the conversations in `tokens`, which get the next numbers."""
        signatures = np.hstack(
            [_signatures(tokens, QUESTION, QUESTION_HASHES), _signatures(tokens, ANSWER, ANSWER_HASHES)]
        )
        self._file.write(signatures.tobytes())
        halves = np.ascontiguousarray(signatures[:, :QUESTION_HASHES]).view(np.uint64)
        bands = halves.reshape(len(halves), BANDS, BAND_HASHES // 2)
        mixed = np.zeros(bands.shape[:2], np.uint64)
        for column in range(bands.shape[2]):
            mixed = (mixed ^ bands[:, :, column]) * MULTIPLIERS[0] ^ (mixed >> np.uint64(29))
        self._bands.append(mixed)

    def pairs(self, is_eval: np.ndarray, similarity: float) -> Pairs:
        """Find pairs of conversations with nearly the same question; `is_eval` (conversations,) puts some first.

        Within a band, each is compared with the first one and with the one before it, so that the time is linear.
        """
        self._file.close()
        bands = np.concatenate(self._bands) if self._bands else np.zeros((0, BANDS), np.uint64)
        self._bands.clear()
        eval_first = np.argsort(~is_eval, kind="stable")
        found = np.zeros(0, np.int64)
        same_answer = np.zeros(0, bool)
        for band in range(BANDS):
            pairs = np.setdiff1d(_neighbours(bands[:, band], eval_first), found, assume_unique=True)
            pairs, same = self._compare(pairs, len(bands), similarity)
            found, same_answer = np.concatenate([found, pairs]), np.concatenate([same_answer, same])
        first, second = np.divmod(found, max(len(bands), 1))
        order = np.argsort(found)
        return Pairs(first[order], second[order], same_answer[order])

    def _compare(self, pairs: np.ndarray, count: int, similarity: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs whose questions are nearly the same, and whether their answers are."""
        if not len(pairs):
            return pairs, np.zeros(0, bool)
        signatures = np.memmap(self.path, np.uint32, "r", shape=(count, WIDTH))
        kept, same_answer = [], []
        for start in range(0, len(pairs), COMPARED_TOGETHER):
            some = pairs[start : start + COMPARED_TOGETHER]
            first, second = np.divmod(some, count)
            equal = signatures[first] == signatures[second]
            near = equal[:, :QUESTION_HASHES].mean(axis=1) >= similarity
            kept.append(some[near])
            same_answer.append(equal[near][:, QUESTION_HASHES:].mean(axis=1) >= similarity)
            # Pages that were read would count as this process's memory until something else needs it.
            signatures._mmap.madvise(mmap.MADV_DONTNEED)  # pyright: ignore[reportAttributeAccessIssue]
        return np.concatenate(kept), np.concatenate(same_answer)


def clusters(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return, for each of `count` numbers, the smallest one that pairs connect it with (count,)."""
    label = np.arange(count)
    while True:
        before = label.copy()
        low = np.minimum(label[first], label[second])
        np.minimum.at(label, first, low)
        np.minimum.at(label, second, low)
        label = label[label]
        if np.array_equal(label, before):
            return label


def _signatures(tokens: Tokens, kind: int, hashes: int) -> np.ndarray:
    """Return the MinHash signature of each conversation's tokens of that kind (conversations, hashes)."""
    chosen = tokens.kinds == kind
    ids = tokens.ids[chosen].astype(np.uint64) + np.uint64(1)
    rows = np.repeat(np.arange(len(tokens.ends)), np.diff(tokens.ends, prepend=0))[chosen]
    sequences = ids * MULTIPLIERS[0]
    for step in (1, 2):
        inside = rows[step:] == rows[:-step]
        sequences[:-step] += np.where(inside, ids[step:], np.uint64(0)) * MULTIPLIERS[step]
    sequences ^= sequences >> np.uint64(32)
    bounds = np.searchsorted(rows, np.arange(len(tokens.ends) + 1)).astype(np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(sequences, bounds, hashes, SEED)  # pyright: ignore[reportAttributeAccessIssue]
    count = len(tokens.ends)
    return np.fromiter(chain.from_iterable(matrix.to_rows()), np.uint32, count * hashes).reshape(count, hashes)


def _neighbours(band: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return pairs within each group of equal values, as `first * len(band) + second`, each once (pairs,)."""
    order = order[np.argsort(band[order], kind="stable")]
    new = np.r_[True, band[order][1:] != band[order][:-1]] if len(order) else np.zeros(0, bool)
    position = np.arange(len(order))
    start = np.maximum.accumulate(np.where(new, position, 0))
    pairs = [(order[start[position > start]], order[position > start])]
    later = position > start + 1
    pairs.append((order[:-1][later[1:]], order[later]) if len(order) else (order, order))
    low = np.concatenate([np.minimum(a, b) for a, b in pairs]).astype(np.int64)
    high = np.concatenate([np.maximum(a, b) for a, b in pairs]).astype(np.int64)
    return np.unique(low * len(band) + high)
