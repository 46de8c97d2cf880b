"""Finds conversations that nearly repeat each other, by MinHash over three-token sequences and banding.

Text that many rows share (`shared_text`) does not count: two that are alike are so with it and without it.

Source: Broder, On the resemblance and containment of documents (1997); Leskovec, Rajaraman, Ullman, Mining of Massive
Datasets, chapter 3.
"""

import mmap
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rensa

from finetuning.checks.shared_text import SAMPLE, SharedText, Texts
from finetuning.tokens import ANSWER, QUESTION, Tokens

# Of pairs with 0.85 of their three-token sequences in common (Jaccard), these bands find 92 %, at 0.9 99 %, at 0.7
# 38 %, at 0.5 3 %; the signatures then rule out those below the similarity that is asked for.
BANDS, BAND_HASHES = 8, 8
QUESTION_HASHES, ANSWER_HASHES = BANDS * BAND_HASHES, 32
WIDTH = QUESTION_HASHES + ANSWER_HASHES
# Questions and answers, each with its columns of a signature.
PARTS = {QUESTION: slice(0, QUESTION_HASHES), ANSWER: slice(QUESTION_HASHES, WIDTH)}
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
    """The signatures of conversations and the sequences that they are of, in files: 4 bytes a token.

    In memory are, of each conversation, 24 bytes, and 64 more while pairs are looked for.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._own_path = path, path.with_name(f"{path.name}-own")
        self._sequences_path = path.with_name(f"{path.name}-sequences")
        self._file, self._sequences = path.open("wb"), self._sequences_path.open("wb")
        self._lengths: list[dict[int, np.ndarray]] = []
        self._digests: dict[int, list[np.ndarray]] = {kind: [] for kind in PARTS}

    def add(self, tokens: Tokens) -> None:
        """Add the conversations in `tokens`, which get the next numbers."""
        parts = {kind: _texts(tokens, kind) for kind in PARTS}
        self._file.write(np.hstack([_signatures(part, PARTS[kind]) for kind, part in parts.items()]).tobytes())
        for kind, part in parts.items():
            self._sequences.write(part.sequences.tobytes())
            self._digests[kind].append(part.digests())
        self._lengths.append({kind: part.lengths.astype(np.int32) for kind, part in parts.items()})

    def pairs(self, is_eval: np.ndarray, similarity: float) -> Pairs:
        """Find pairs of conversations with nearly the same question; `is_eval` (conversations,) puts some first.

        Within a band, each is compared with the first one and with the one before it, so that the time is linear.
        """
        self._file.close()
        self._sequences.close()
        bands = self._without_shared_text(is_eval)
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

    def remove(self) -> None:
        """Delete the files."""
        for path in (self.path, self._own_path, self._sequences_path):
            path.unlink(missing_ok=True)

    def _without_shared_text(self, is_eval: np.ndarray) -> np.ndarray:
        """Write the signatures of what is each conversation's own; return the bands of these (conversations, BANDS)."""
        shared = {kind: SharedText() for kind in PARTS}
        new = {kind: _different_ones(self._digests[kind], is_eval) for kind in PARTS}
        for rows, parts in self._batches():
            for kind, part in parts.items():
                shared[kind].count(*_chosen(part, new[kind][rows], is_eval[rows]))
        bands = [np.zeros((0, BANDS), np.uint64)]
        with self.path.open("rb") as signatures, self._own_path.open("wb") as own:
            for rows, parts in self._batches():
                count = rows.stop - rows.start
                found = np.fromfile(signatures, np.uint32, count * WIDTH).reshape(count, WIDTH)
                for kind, part in parts.items():
                    is_shared = shared[kind].mark(part)
                    if is_shared.any():
                        changed = np.unique(part.numbers[is_shared])
                        found[changed, PARTS[kind]] = _signatures(_own(part, is_shared, changed), PARTS[kind])
                own.write(found.tobytes())
                bands.append(_bands(found))
        return np.concatenate(bands)

    def _batches(self) -> Iterator[tuple[slice, dict[int, Texts]]]:
        """Yield the numbers of the conversations that were added together, and their questions and answers."""
        start = 0
        with self._sequences_path.open("rb") as file:
            for lengths in self._lengths:
                rows = slice(start, start + len(lengths[QUESTION]))
                start = rows.stop
                yield rows, {kind: Texts(np.fromfile(file, np.uint32, n.sum()), n) for kind, n in lengths.items()}

    def _compare(self, pairs: np.ndarray, count: int, similarity: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs whose questions are nearly the same, and whether their answers are."""
        if not len(pairs):
            return pairs, np.zeros(0, bool)
        both = [np.memmap(path, np.uint32, "r", shape=(count, WIDTH)) for path in (self.path, self._own_path)]
        kept, same_answer = [], []
        for start in range(0, len(pairs), COMPARED_TOGETHER):
            some = pairs[start : start + COMPARED_TOGETHER]
            first, second = np.divmod(some, count)
            near, same = np.ones(len(some), bool), np.ones(len(some), bool)
            for signatures in both:
                equal = signatures[first] == signatures[second]
                near &= equal[:, PARTS[QUESTION]].mean(axis=1) >= similarity
                same &= equal[:, PARTS[ANSWER]].mean(axis=1) >= similarity
                # Pages that were read would count as this process's memory until something else needs it.
                signatures._mmap.madvise(mmap.MADV_DONTNEED)  # pyright: ignore[reportAttributeAccessIssue]
            kept.append(some[near])
            same_answer.append(same[near])
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


def _texts(tokens: Tokens, kind: int) -> Texts:
    """Return the three-token sequences of each conversation's tokens of that kind, as 32 bits of a hash."""
    chosen = tokens.kinds == kind
    ids = tokens.ids[chosen].astype(np.uint64) + np.uint64(1)
    rows = np.repeat(np.arange(len(tokens.ends)), np.diff(tokens.ends, prepend=0))[chosen]
    sequences = ids * MULTIPLIERS[0]
    for step in (1, 2):
        inside = rows[step:] == rows[:-step]
        sequences[:-step] += np.where(inside, ids[step:], np.uint64(0)) * MULTIPLIERS[step]
    sequences ^= sequences >> np.uint64(32)
    return Texts(sequences.astype(np.uint32), np.bincount(rows, minlength=len(tokens.ends)))


def _signatures(texts: Texts, columns: slice) -> np.ndarray:
    """Return the MinHash signature of each text (texts, hashes), of as many hashes as it has columns."""
    count, hashes = len(texts.lengths), columns.stop - columns.start
    bounds = np.r_[0, np.cumsum(texts.lengths)].astype(np.uint64)
    sequences = texts.sequences.astype(np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(sequences, bounds, hashes, SEED)  # pyright: ignore[reportAttributeAccessIssue]
    return np.fromiter(chain.from_iterable(matrix.to_rows()), np.uint32, count * hashes).reshape(count, hashes)


def _bands(signatures: np.ndarray) -> np.ndarray:
    """Return a number for each band of the question's signature (conversations, BANDS)."""
    halves = np.ascontiguousarray(signatures[:, PARTS[QUESTION]]).view(np.uint64)
    bands = halves.reshape(len(halves), BANDS, BAND_HASHES // 2)
    mixed = np.zeros(bands.shape[:2], np.uint64)
    for column in range(bands.shape[2]):
        mixed = (mixed ^ bands[:, :, column]) * MULTIPLIERS[0] ^ (mixed >> np.uint64(29))
    return mixed


def _different_ones(digests: list[np.ndarray], is_eval: np.ndarray) -> np.ndarray:
    """Mark texts that are different from each other (texts,): all of each side, or a sample by their digests.

    How often a text is repeated is no matter of how many texts share a part of it.
    """
    joined = np.concatenate([np.zeros(0, np.uint64), *digests])
    chosen = np.zeros(len(joined), bool)
    for side in (False, True):
        rows = np.flatnonzero(is_eval == side)
        chosen[rows[np.unique(joined[rows], return_index=True)[1][:SAMPLE]]] = True
    return chosen


def _chosen(texts: Texts, keep: np.ndarray, is_eval: np.ndarray) -> tuple[Texts, np.ndarray]:
    """Return the texts that are marked in `keep` (texts,), and the side of each."""
    if keep.all():
        return texts, is_eval
    return Texts(texts.sequences[np.repeat(keep, texts.lengths)], texts.lengths[keep]), is_eval[keep]


def _own(texts: Texts, is_shared: np.ndarray, changed: np.ndarray) -> Texts:
    """Return what is not shared of the texts with these numbers; for one that is shared as a whole, one sequence
    stands for all of it, so that it is like none but those that are equal."""
    numbers = texts.numbers
    lengths = np.bincount(numbers[~is_shared], minlength=len(texts.lengths))
    whole = np.flatnonzero((lengths == 0) & (texts.lengths > 0))
    is_changed = np.zeros(len(texts.lengths), bool)
    is_changed[changed] = True
    kept = ~is_shared & is_changed[numbers]
    order = np.argsort(np.r_[numbers[kept], whole], kind="stable")
    sequences = np.r_[texts.sequences[kept], texts.digests()[whole].astype(np.uint32)][order]
    lengths[whole] = 1
    return Texts(sequences, lengths[changed])


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
