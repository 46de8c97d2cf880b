"""Which rows go into which step of training: the same ones however many processes and micro-batches share a step.

lengths 30 9 31 8 12 11, 2 rows a step, grouped by length -> [5 4] [0 2] [1 3], in an order that the seed decides
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from finetuning.tokens import NOT_SUPERVISED

Order = Literal["random", "sequential", "group_by_length"]
# Rows of so many steps are sorted by length at a time: enough for rows of one length to meet, few enough for steps to
# stay a random draw of the data.
STEPS_SORTED_TOGETHER = 50


@dataclass
class StepBatches:
    """A batch sampler: lists of row numbers, one for each micro-batch of this process.

    A step has `rows_per_step` rows, dealt to `processes` times `parts` micro-batches; the last one of an epoch has what
    is left. A process that would have none gets row `i` as `-1 - i`, of which nothing is learned.

    With `tokens_per_step`, a step has as many rows as so many tokens, padding included, have room for. Which rows meet
    is then the same in every epoch, so that all have as many steps; the order of the steps is not.
    """

    lengths: np.ndarray
    """Tokens of each row (rows,)."""
    rows_per_step: int
    parts: int
    """Micro-batches of a step and process: `gradient_accumulation_steps`."""
    order: Order
    seed: int
    process: int = 0
    processes: int = 1
    epoch: int = 0
    tokens_per_step: int | None = None

    def set_epoch(self, epoch: int) -> None:
        """Take that epoch's order for the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.tokens_per_step:
            return len(self._filled) * self.parts
        steps, left = divmod(len(self.lengths), self.rows_per_step)
        return steps * self.parts + self._parts_of(left)

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.steps():
            # Longest first, so that a training that will run out of memory does so at its beginning.
            rows = rows[np.argsort(-self.lengths[rows], kind="stable")]
            parts = np.array_split(rows, self._parts_of(len(rows)) * self.processes)
            for part in parts[self.process :: self.processes]:
                yield part.tolist() or [-1 - int(rows[0])]

    def steps(self) -> list[np.ndarray]:
        """The row numbers of each step of the epoch (rows,)."""
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.tokens_per_step:
            filled = self._filled
            return filled if self.order == "sequential" else [filled[i] for i in rng.permutation(len(filled))]
        count, size = len(self.lengths), self.rows_per_step
        rows = np.arange(count) if self.order == "sequential" else rng.permutation(count)
        if self.order != "group_by_length":
            return _cut(rows, size)
        # What is left over after the last whole step stays a random draw too, instead of the longest or shortest rows.
        whole, left = np.split(rows, [count - count % size])
        steps = []
        for some in _cut(whole, size * STEPS_SORTED_TOGETHER):
            steps += _cut(some[np.argsort(self.lengths[some], kind="stable")], size)
        steps = [steps[i] for i in rng.permutation(len(steps))]
        return [*steps, left] if len(left) else steps

    @cached_property
    def _filled(self) -> list[np.ndarray]:
        """The rows of each step of at most `tokens_per_step`, in no order."""
        count = len(self.lengths)
        rows = np.arange(count)
        if self.order != "sequential":
            rows = np.random.default_rng(self.seed).permutation(count)
        if self.order == "group_by_length":
            rows = rows[np.argsort(self.lengths[rows], kind="stable")]
        cuts, longest, start = [], 0, 0
        for place, length in enumerate(self.lengths[rows].tolist()):
            longest = max(longest, length)
            if place > start and (place + 1 - start) * longest > (self.tokens_per_step or 0):
                cuts.append(place)
                longest, start = length, place
        return np.split(rows, cuts) if count else []

    def _parts_of(self, rows: int) -> int:
        """Into how many micro-batches of a process so many rows of a step are cut."""
        if self.tokens_per_step:
            return self.parts
        most = -(-self.rows_per_step // (self.parts * self.processes))
        return self.parts if rows == self.rows_per_step else -(-rows // (most * self.processes))


class EpochLoader(DataLoader[Any]):
    """A data loader whose batch sampler is told the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Take that epoch's batches for the next iteration."""
        batches: Any = self.batch_sampler
        batches.set_epoch(epoch)


class TokenRows(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows of tokens and labels by number; `-1 - i` is row `i` with nothing supervised.

    A row of two answers (`rejected_input_ids`, `rejected_labels`) is as long as the longer one.
    """

    def __init__(self, rows: Dataset) -> None:
        self.rows = rows
        sides = [name for name in ("input_ids", "rejected_input_ids") if name in rows.column_names]
        self.lengths = np.max([_lengths(rows, side) for side in sides], axis=0)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        if number >= 0:
            return self.rows[number]
        row = self.rows[-1 - number]
        return row | {name: [NOT_SUPERVISED] * len(row[name]) for name in row if name.endswith("labels")}


def unpadded_tokens(inputs: dict[str, Any]) -> int:
    """How many tokens of a batch that is on the host are no padding.

    Without a mask rows lie end to end with none: transformers would take each stop token for padding where the two are
    one.
    """
    mask = inputs.get("attention_mask")
    return inputs["input_ids"].numel() if mask is None else int(mask.sum())


def _lengths(rows: Dataset, column: str) -> np.ndarray:
    batches = rows.select_columns(column).with_format("arrow").iter(1_000)
    lengths = [pc.list_value_length(batch[column]).to_numpy() for batch in batches]  # pyright: ignore
    return np.concatenate([np.zeros(0, np.int64), *lengths])


def _cut(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return np.split(rows, range(size, len(rows), size)) if len(rows) else []
