"""What a chat data set asks of the memory that trains on it.

>>> training_data(recipe, chat_dataset, base_model)
TrainingData(longest=72, supervised=27, new_tokens=[])
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from transformers import AutoTokenizer

from finetuning.chat.vocabulary import new_tokens
from finetuning.memory.rows import TrainingData
from finetuning.recipe.recipe import Recipe
from finetuning.tokens import NOT_SUPERVISED
from finetuning.training.rows import files_of


def training_data(recipe: Recipe, chat_dataset: Path, base_model: Path) -> TrainingData:
    """What is in the folder `chat_dataset`; packed rows are taken to be full."""
    trust = recipe.base_model.trust_remote_code
    tokenizers = (
        AutoTokenizer.from_pretrained(x, trust_remote_code=trust) for x in (chat_dataset / "tokenizer", base_model)
    )
    if recipe.training.packing:
        return TrainingData(recipe.chat.max_length, recipe.chat.max_length, new_tokens(*tokenizers))
    if recipe.training.method == "grpo":
        drawn = recipe.training.max_completion_length
        longest = max(map(longest_prompt, files_of(chat_dataset)))
        return TrainingData(longest + drawn, drawn, new_tokens(*tokenizers))
    columns = ["labels", "rejected_labels"] if recipe.training.method == "dpo" else ["labels"]
    found = [most_in(path, column) for path in files_of(chat_dataset) for column in columns]
    longest, supervised = np.max(found, axis=0)
    return TrainingData(int(longest), int(supervised), new_tokens(*tokenizers))


def most_in(path: Path, column: str = "labels") -> tuple[int, int]:
    """The most tokens of any row in that column of a file, and the most supervised ones of any."""
    longest = supervised = 0
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(10_000, columns=[column]):
            labels: Any = batch.column(0)
            ends = labels.offsets.to_numpy() - labels.offsets[0].as_py()
            learned = np.cumsum(np.concatenate([[False], labels.flatten().to_numpy() != NOT_SUPERVISED]))
            longest = max(longest, int(np.diff(ends).max(initial=0)))
            supervised = max(supervised, int(np.diff(learned[ends]).max(initial=0)))
    return longest, supervised


def longest_prompt(path: Path) -> int:
    """The most tokens of any row in a file before the first one that is supervised."""
    longest = 0
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(10_000, columns=["labels"]):
            for labels in batch.column(0).to_numpy(zero_copy_only=False):
                longest = max(longest, int((np.asarray(labels) != NOT_SUPERVISED).argmax()))
    return longest
