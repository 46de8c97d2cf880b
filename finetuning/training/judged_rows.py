"""Rows with an answer that was judged, and beside each its prompt with the answer of another row of the same step.

step [7 2 5] -> (7, 5) (2, 7) (5, 2): the prompt of row 7 with its own answer, and with that of row 5

How likely the answers of other prompts have become is how far the model has gone from the base model as a whole.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset

from finetuning.tokens import NOT_SUPERVISED
from finetuning.training.batches import StepBatches, TokenRows

Rows = list[dict[str, Any]]


class MismatchedBatches(StepBatches):
    """Lists of pairs: a row's number, and that of the row whose answer its prompt is also read with.

    Within a step every answer is read once with its own prompt and once with another one, whatever passes and processes
    share the step; a row that is alone in its step is read with the answer of the next row of the data.
    """

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        count = len(self.lengths)
        others = np.zeros(count, np.int64)
        for step in self.steps():
            others[step] = np.roll(step, 1) if len(step) > 1 else (step + 1) % count
        for batch in super().__iter__():
            yield [(row, int(others[max(row, -1 - row)])) for row in batch]


class JudgedRows(TokenRows):
    """Rows of tokens and labels by such pairs; the second row's answer is cut where the two exceed `max_length`."""

    def __init__(self, rows: Dataset, max_length: int | None) -> None:
        super().__init__(rows)
        self.max_length = max_length

    def __getitem__(self, pair: tuple[int, int]) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        number, other = pair
        row = super().__getitem__(number)
        own = self.rows[max(number, -1 - number)]
        learned = np.not_equal(own["labels"], NOT_SUPERVISED)
        prompt = own["input_ids"][: int(learned.argmax()) if learned.any() else len(learned)]
        answer = [label for label in self.rows[other]["labels"] if label != NOT_SUPERVISED]
        labels = [NOT_SUPERVISED] * len(prompt) + (answer if number >= 0 else [NOT_SUPERVISED] * len(answer))
        kept = slice(self.max_length)
        return row | {"mismatched": {"input_ids": (prompt + answer)[kept], "labels": labels[kept]}}


@dataclass
class JudgedCollator:
    """Makes a batch of judged rows: conversations, what was judged `desirable`, and the mismatched conversations."""

    collate: Callable[[Rows], dict[str, Any]]

    def __call__(self, rows: Rows) -> dict[str, Any]:
        """The batch; `mismatched` is a batch by itself, where the rows have such conversations."""
        tokens = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows]
        batch = self.collate(tokens) | {"desirable": torch.tensor([bool(row["desirable"]) for row in rows])}
        mismatched = [row["mismatched"] for row in rows if "mismatched" in row]
        return batch | {"mismatched": self.collate(cast(Rows, mismatched))} if mismatched else batch
