"""The vocabulary that rows of tokens are written in: what a token is trained as, and what each of a row holds."""

from dataclasses import dataclass, field

import numpy as np

NOT_SUPERVISED = -100

# What a token is: of the template or a system prompt, of the user's or a tool's turn, supervised, or what was thought
# within an answer, where that is not learned.
OTHER, QUESTION, ANSWER, THOUGHT = 0, 1, 2, 3


@dataclass
class Tokens:
    """Rendered conversations, one after another: `ids` and `kinds` (tokens,), `ends` (conversations,).

    `spelled_out` has the numbers of those whose text spells out a control token.
    """

    ids: np.ndarray
    kinds: np.ndarray
    ends: np.ndarray
    spelled_out: list[int] = field(default_factory=list)

    @property
    def labels(self) -> np.ndarray:
        """The id of each supervised token, -100 for the others (tokens,)."""
        return np.where(self.kinds == ANSWER, self.ids, np.int32(NOT_SUPERVISED))

    def of(self, row: int) -> "Tokens":
        """One conversation alone."""
        part = slice(self.ends[row - 1] if row else 0, self.ends[row])
        return Tokens(self.ids[part], self.kinds[part], self.ends[row : row + 1] - part.start)
