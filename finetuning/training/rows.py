"""The rows that training reads, and those that its loss is measured on: tokens and labels of the chat dataset."""

from pathlib import Path

from datasets import Dataset
from trl import pack_dataset

from finetuning.recipe.training import Method
from finetuning.training.job import TrainingJob


def train_rows(job: TrainingJob) -> Dataset:
    """The rows of the train split or, where the recipe packs, bins of at most `max_length` tokens of them.

    trl packs only while it tokenizes, and these rows are tokens already.
    """
    rows = tokens_of(job.chat_dataset / "train.parquet", job.training.method)
    return pack_dataset(rows, job.max_length, "bfd") if job.training.packing else rows


def tokens_of(path: Path, method: Method) -> Dataset:
    """`input_ids` and `labels` of one split, and for `dpo` those of the rejected answers."""
    rejected = ["rejected_input_ids", "rejected_labels"] if method == "dpo" else []
    return Dataset.from_parquet(str(path)).select_columns(["input_ids", "labels", *rejected])
