"""Collects the texts that teach an earlier answer of a conversation by itself, where the template asks for that.

Qwen3 writes an answer with what was thought before it, and without that once the user speaks again: a conversation of
three answers is then three rows to learn from. For split and checks it stays one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from finetuning.chat.conversations import Batch, Row
from finetuning.chat.splits import Split
from finetuning.chat.tokenized_rows import SCHEMA, record_batch
from finetuning.checks.findings import FindingsTable
from finetuning.checks.tokens import lengths, supervised, take
from finetuning.tokens import Tokens


class EarlierAnswers:
    """An Arrow file of such rows, and of each the number of its conversation and how many tokens it has."""

    def __init__(self, folder: Path, max_length: int, findings: FindingsTable) -> None:
        self.path = folder / ".earlier.arrow"
        self.max_length, self.findings = max_length, findings
        self._conversation: list[np.ndarray] = []
        self._tokens: list[np.ndarray] = []
        self._supervised: list[np.ndarray] = []
        self._writer = pa.ipc.new_file(str(self.path), SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def add(self, batch: Batch, tokens: Tokens, numbers: Mapping[str, int]) -> None:
        """Write the earlier answers of a batch.

        Args:
            tokens: of all of them, one after another.
            numbers: of the conversations that were kept, by their places; those of others are left out.
        """
        rows: list[Row] = []
        keep: list[bool] = []
        sizes = lengths(tokens)
        for row, laid_out in zip(batch.rows, batch.laid_out, strict=False):
            for earlier in laid_out.earlier:
                long = bool(sizes[len(keep)] > self.max_length)
                if long and row.place in numbers:
                    reason = f"an earlier answer is longer than {self.max_length} tokens, and left out"
                    self.findings.add(row.place, "max_length", reason)
                keep.append(row.place in numbers and not long)
                if keep[-1]:
                    messages = row.conversation.messages[: earlier.layout.turns]
                    rows.append(row._replace(conversation=row.conversation._replace(messages=messages)))
        if not rows:
            return
        tokens = take(tokens, np.array(keep))
        self._conversation.append(np.array([numbers[row.place] for row in rows], np.int64))
        self._tokens.append(lengths(tokens))
        self._supervised.append(supervised(tokens))
        self._writer.write_batch(record_batch(rows, tokens))

    @property
    def conversation(self) -> np.ndarray:
        """The number of each row's conversation (rows,)."""
        return np.concatenate([np.zeros(0, np.int64), *self._conversation])

    def tokens_in(self, decided: Split, fate: int) -> tuple[np.ndarray, np.ndarray]:
        """Return how many tokens, and supervised ones, each row of a split has: two arrays (rows,)."""
        inside = decided.fate[self.conversation] == fate
        counted = (np.concatenate([np.zeros(0, np.int64), *some])[inside] for some in (self._tokens, self._supervised))
        return tuple(counted)  # pyright: ignore[reportReturnType]

    def positions(self, decided: Split, fate: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of conversations and of these rows in a split: before the conversation that they are of."""
        of = self.conversation
        main = np.where(decided.fate == fate, decided.position, -1)
        place = np.r_[main, main[of]]
        is_main = np.r_[np.ones(len(main), bool), np.zeros(len(of), bool)]
        wanted = np.flatnonzero(place >= 0)
        found = np.full(len(place), -1, np.int64)
        found[wanted[np.lexsort((is_main[wanted], place[wanted]))]] = np.arange(len(wanted))
        return found[: len(main)], found[len(main) :]
