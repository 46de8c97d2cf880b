"""Exams that asked the same rows in the same way, by the text of question and reference.

Tokenizers differ, and with them which rows are too long for `chat.max_length`: exams of the same data may differ in a
few rows. Those of a group have at least nine tenths of their rows in common, and are compared on these alone.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from finetuning.leaderboard.entrants import Entrant, Row, Way

ALIKE = 0.9  # the least share of rows in common


class Alike(NamedTuple):
    """Exams that are compared, and the rows on which they are."""

    way: Way
    entrants: list[Entrant]
    rows: list[Row]
    """Sorted."""

    def digest(self) -> str:
        """Sixteen hexadecimal digits that are the same for the same rows."""
        return hashlib.sha256(json.dumps(self.rows, separators=(",", ":")).encode()).hexdigest()[:16]


def groups_of(entrants: Sequence[Entrant]) -> list[Alike]:
    """Return each exam in one group, those of most exams first."""
    by_way: dict[Way, list[Entrant]] = {}
    for entrant in sorted(entrants, key=lambda entrant: entrant.name):
        by_way.setdefault(entrant.way, []).append(entrant)
    found = [group for way, asked in by_way.items() for group in _of_one_way(way, asked)]
    return sorted(found, key=lambda group: -len(group.entrants))


def _of_one_way(way: Way, asked: list[Entrant]) -> list[Alike]:
    """Divide exams by their rows, beginning with the rows that most of them have."""
    found, left = [], list(asked)
    while left:
        times = Counter(frozenset(entrant.scores) for entrant in left)
        first = max(times, key=lambda rows: (times[rows], len(rows)))
        entrants, common = [], first
        for entrant in sorted(left, key=lambda entrant: -len(first & entrant.scores.keys())):
            both = common & entrant.scores.keys()
            if len(both) >= ALIKE * max(len(first), len(entrant.scores)):
                entrants.append(entrant)
                common = both
        found.append(Alike(way, entrants, sorted(common)))
        left = [entrant for entrant in left if entrant not in entrants]
    return found
