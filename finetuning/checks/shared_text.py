"""Finds the text that many rows share, such as an instruction that opens all questions, so that it does not count.

"Name the class of this message: …" 1,560 times, each with another message -> the message alone is compared
"""

from dataclasses import dataclass

import numpy as np

# Text that many different texts hold is shared: more than this share of them, and more than a few. A group of so many
# that nearly repeat each other is as good as a template.
SHARE, FEW = 0.02, 20
# Of less than 80 texts, more than a quarter of them, and more than three.
QUARTER, THREE = 0.25, 3
# It is shared in passages of ten tokens, since "What is the" is language: eight sequences, of which these hold all ten.
PASSAGE, CORNERS = 8, (0, 3, 6, 7)
# Passages are counted by a part of their hash, so that memory is bounded: 4 MiB a table. Two that fall together are
# taken for each other; a passage that is not shared is taken for one that is as often as these fill the table.
COUNTERS = 2**20
SAMPLE = 20_000  # texts of a side, whose passages are counted: of 2 % of these there are 400, give or take 20
MIXER = np.uint64(0x9E3779B97F4A7C15)


@dataclass
class Texts:
    """Some texts: the hashes of their sequences of three tokens, one text after another (sequences,), and how many
    each has (texts,)."""

    sequences: np.ndarray
    lengths: np.ndarray

    @property
    def numbers(self) -> np.ndarray:
        """The number of the text that each sequence is of (sequences,)."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def digests(self) -> np.ndarray:
        """Return a number for the sequences of each text, whatever their order (texts,)."""
        mixed = self.sequences.astype(np.uint64) * MIXER
        sums = np.r_[np.uint64(0), np.cumsum(mixed ^ (mixed >> np.uint64(29)))]
        ends = np.cumsum(self.lengths)
        return sums[ends] - sums[ends - self.lengths]


class SharedText:
    """Counts in how many texts each passage is, for train and eval apart, and marks those that many have."""

    def __init__(self) -> None:
        self._tables: dict[bool, np.ndarray] = {}
        self._texts = {False: 0, True: 0}
        self._shared: np.ndarray | None = None

    def count(self, texts: Texts, is_eval: np.ndarray) -> None:
        """Count the passages of some texts, once in each; `is_eval` (texts,) tells the side of each."""
        places, buckets = _passages(texts)
        numbers = texts.numbers[places]
        for side in np.unique(is_eval).tolist():
            of_side = is_eval[numbers] == side
            # As np.unique gives it, in a tenth of its time.
            found = np.sort(numbers[of_side] * COUNTERS + buckets[of_side])
            once = found[np.r_[True, found[1:] != found[:-1]]] if len(found) else found
            table = self._tables.setdefault(side, np.zeros(COUNTERS, np.int32))
            table += np.bincount(once % COUNTERS, minlength=COUNTERS).astype(np.int32)
            self._texts[side] += int((is_eval == side).sum())

    def mark(self, texts: Texts) -> np.ndarray:
        """Mark the sequences that are in a shared passage (sequences,)."""
        if self._shared is None:
            self._shared = self._frequent()
        if not self._shared.any():
            return np.zeros(len(texts.sequences), bool)
        places, buckets = _passages(texts)
        begins = np.zeros(len(texts.sequences) + 1, np.int32)
        begins[places + 1] = self._shared[buckets]
        begun = np.cumsum(begins)
        return begun[1:] > begun[np.maximum(np.arange(len(texts.sequences)) + 1 - PASSAGE, 0)]

    def _frequent(self) -> np.ndarray:
        count = sum(self._texts.values())
        total = sum(self._tables.values(), np.zeros(COUNTERS, np.int32))
        found = total > max(SHARE * count, min(FEW, max(THREE, QUARTER * count)))
        for side, table in self._tables.items():
            found |= table > max(SHARE * self._texts[side], FEW)
        return found


def _passages(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Return where passages begin (passages,), and where each is counted (passages,)."""
    sequences = texts.sequences.astype(np.uint64)
    last = len(sequences) - PASSAGE + 1
    if last <= 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    mixed = np.zeros(last, np.uint64)
    for corner in CORNERS:
        mixed = (mixed ^ sequences[corner : corner + last]) * MIXER
    numbers = texts.numbers
    places = np.flatnonzero(numbers[:last] == numbers[PASSAGE - 1 :])
    return places, (mixed[places] >> np.uint64(44)).astype(np.int64)
