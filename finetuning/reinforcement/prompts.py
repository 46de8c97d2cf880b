"""The questions that answers are drawn to, and which of them are in which step.

{"input_ids": [12, 7, 40, 9, 2], "labels": [-100, -100, -100, 9, 2], "messages": […]}
-> {"prompt": [12, 7, 40], "reference": "#### 5", "golden": None, "rank": None}
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Dataset

from finetuning.chat.answers import split_thought
from finetuning.evaluation.references import ASKED
from finetuning.tokens import NOT_SUPERVISED
from finetuning.training.batches import StepBatches
from finetuning.training.job import TrainingJob

# Of a question that was asked with passages: the places of those that have the answer, and where the first was found.
PASSAGES = ("golden", "rank")


def prompt_rows(job: TrainingJob) -> Dataset:
    """The train split, with what its rows' answers say."""
    file = job.chat_dataset / "train.parquet"
    columns = ["input_ids", "labels", "messages", *(name for name in PASSAGES if name in pq.read_schema(file).names)]
    return Dataset.from_parquet(str(file), columns=columns)  # pyright: ignore[reportReturnType] # one split, no stream


def references(chat_dataset: Path) -> Iterator[tuple[str, str]]:
    """The place of each row of the train split, and what its answer says but for the passage that it names."""
    with pq.ParquetFile(chat_dataset / "train.parquet", pre_buffer=False) as file:
        said = ASKED if ASKED in file.schema_arrow.names else "messages"
        for batch in file.iter_batches(1_000, columns=["place", said]):
            for row in batch.to_pylist():
                yield row["place"], row[said][-1]["content"] or ""


class PromptRows(torch.utils.data.Dataset[Mapping[str, Any]]):
    """Rows by number, each as its question in tokens and what its last answer says."""

    def __init__(self, rows: Dataset) -> None:
        self.rows = rows
        self.lengths = np.array([len(prompt_of(row)) for row in rows.select_columns(["input_ids", "labels"])])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        row = self.rows[number]
        said = row["messages"][-1]["content"] or ""
        passages = {name: row.get(name) for name in PASSAGES}
        return {"prompt": prompt_of(row), "reference": split_thought(said)[1], **passages}


def prompt_of(row: Any) -> list[int]:
    """The tokens of a row before its answer, which alone is supervised."""
    answered = np.not_equal(row["labels"], NOT_SUPERVISED)
    return list(row["input_ids"][: int(answered.argmax()) if answered.any() else len(answered)])


@dataclass
class GroupBatches:
    """A batch sampler: lists of row numbers, each `copies` times, for this process's part of the answers of a step.

    A list is there `times` times, once for each pass that learns from its answers. What is left after an epoch's last
    whole step is in none.
    """

    steps: StepBatches
    """Of questions."""
    copies: int
    times: int

    def set_epoch(self, epoch: int) -> None:
        """Take that epoch's order for the next iteration."""
        self.steps.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.steps.lengths) // self.steps.rows_per_step * self.times

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.steps.steps():
            if len(rows) == self.steps.rows_per_step:
                mine = np.repeat(rows, self.copies).reshape(self.steps.processes, -1)[self.steps.process].tolist()
                yield from [mine] * self.times
