"""What a chat template makes of conversations: pieces that are always the same, and pieces with slots for turns."""

from itertools import chain, groupby
from typing import NamedTuple

import numpy as np

from finetuning.tokens import Tokens

# What tokenizers take for white space; Python's own strip takes some control characters too.
WHITE_SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


class Pattern(NamedTuple):
    """A text with slots for the contents of turns."""

    text: str
    slots: tuple[int, ...] = ()

    def fill(self, contents: list[str]) -> str:
        """The text with the contents in the slots."""
        return self.text % tuple([contents[slot] for slot in self.slots])


class Piece(NamedTuple):
    """Tokens that are always the same, or a text whose slots take the contents of turns."""

    ids: list[int] | None
    pattern: Pattern
    kind: int
    before: str = "\n"
    """What the piece is tokenized behind: a control token's text, or a line break."""
    strip: tuple[bool, bool] = (False, False)
    """Whether the control tokens before and after it take the space on their side of it."""
    margins: tuple[Pattern, Pattern] | None = None
    """What stands before and after the user's own words, in a piece of kind QUESTION."""

    def text(self, contents: list[str]) -> str:
        """What is tokenized, with the contents of a conversation's turns in the slots."""
        text = self.pattern.fill(contents)
        if self.strip[0]:
            text = text.lstrip(WHITE_SPACE)
        return text.rstrip(WHITE_SPACE) if self.strip[1] else text


class Layout(NamedTuple):
    """All conversations with the same roles: their text as one pattern with slots, and the pieces of it."""

    pattern: Pattern
    pieces: list[Piece]
    parts: list[list[int]]
    """The tokens of each piece, none yet for one with slots."""
    kinds: list[int]
    texts: list[tuple[int, Piece]]
    """The pieces with slots, and their places among all pieces."""
    margins: list[tuple[int, Pattern, Pattern]]
    """Of those with a user's own words: the place, and what stands before and after these."""
    controls: int
    """Control tokens in all pieces."""
    strips: tuple[bool, ...] = ()
    """Whether the template takes white space off either end of each turn."""
    is_known: bool = False
    """Whether the template does with all texts what it does with those that it was tried on."""
    turns: int = 0
    """How many turns of the conversation it has: the last one is an answer that is learned in it."""


class LaidOut(NamedTuple):
    """One conversation before it is tokenized: its layout, and the contents for the slots."""

    layout: Layout
    contents: list[str]
    earlier: tuple["LaidOut", ...] = ()
    """Texts of their own for answers that the template writes otherwise once another turn follows."""

    @property
    def text(self) -> str:
        """What the template made of the conversation."""
        return self.layout.pattern.fill(self.contents)


def layout_of(pieces: list[Piece], control: set[int]) -> Layout:
    """The layout of these pieces; neighbours of one kind whose tokens are always the same become one."""
    merged: list[Piece] = []
    for (mergeable, kind), some in groupby(pieces, key=lambda p: (p.ids is not None and p.margins is None, p.kind)):
        if mergeable:
            group = list(some)
            ids = list(chain.from_iterable(piece.ids or () for piece in group))
            merged.append(Piece(ids, _joined_patterns(group), kind))
        else:
            merged += some
    return Layout(
        _joined_patterns(pieces),
        merged,
        [piece.ids or [] for piece in merged],
        [piece.kind for piece in merged],
        [(place, piece) for place, piece in enumerate(merged) if piece.ids is None],
        [(place, *piece.margins) for place, piece in enumerate(merged) if piece.margins],
        sum(token in control for piece in merged for token in piece.ids or ()),
    )


def _joined_patterns(pieces: list[Piece]) -> Pattern:
    slots = chain.from_iterable(piece.pattern.slots for piece in pieces)
    return Pattern("".join(piece.pattern.text for piece in pieces), tuple(slots))


def joined(parts: list[list[int]], kinds: list[int], ends: list[int]) -> Tokens:
    """The parts one after another; `ends` has the number of parts up to the end of each conversation."""
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    return Tokens(
        np.fromiter(chain.from_iterable(parts), np.int32, int(lengths.sum())),
        np.repeat(np.array(kinds, np.int8), lengths),
        np.cumsum(lengths)[np.array(ends, np.int64) - 1],
    )
