"""Whether a model reads all of what it is trained on, and all that it says in its exam: asked before training.

A model without a position for a token fails there or, worse, goes on and understands nothing of it.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from finetuning.base_model.positions import positions_of
from finetuning.errors import FinetuningError
from finetuning.memory.data import most_in
from finetuning.recipe.recipe import Recipe
from finetuning.tokens import NOT_SUPERVISED
from finetuning.training.rows import files_of


def require_reach(recipe: Recipe, chat_dataset: Path, base_model: Path) -> None:
    """Check that the model in the folder `base_model` has a position for each token of rows and answers.

    Raises:
        FinetuningError: a row is longer than it reads, or an answer could end beyond.
    """
    limit = positions_of(json.loads((base_model / "config.json").read_bytes()))
    if limit is None:
        return
    longest = max(most_in(file, column)[0] for file in files_of(chat_dataset) for column in _columns_of_labels(file))
    if longest > limit:
        raise FinetuningError(
            f"{recipe.file}: chat.max_length: {recipe.chat.max_length}, by which the longest row has {longest} "
            f"tokens, and the base model reads {limit} (max_position_embeddings in its config.json). Write "
            f"max_length: {limit}, or take a model that reads more."
        )
    prompt, answer = (
        longest_prompt(chat_dataset / "eval.parquet", recipe.evaluation.rows),
        recipe.evaluation.max_new_tokens,
    )
    if prompt + answer > limit:
        most = max(limit - prompt, 1)
        raise FinetuningError(
            f"{recipe.file}: evaluation.max_new_tokens: {answer}, and after the longest prompt of the exam ({prompt} "
            f"tokens) an answer would end beyond the {limit} tokens that the base model reads (max_position_embeddings "
            f"in its config.json). Write max_new_tokens: {most} or less, or a smaller chat.max_length."
        )


def _columns_of_labels(file: Path) -> list[str]:
    return [name for name in pq.read_schema(file).names if name.endswith("labels")]


def longest_prompt(path: Path, rows: int) -> int:
    """Tokens of the longest prompt among the first `rows` rows: what comes before the last run of supervised tokens."""
    longest = 0
    for labels in pq.read_table(path, columns=["labels"]).slice(0, rows)["labels"].to_pylist():
        learned = np.asarray(labels) != NOT_SUPERVISED
        if learned.any():
            end = len(learned) - int(np.argmax(learned[::-1]))
            before = np.flatnonzero(~learned[:end])
            longest = max(longest, int(before[-1]) + 1 if len(before) else 0)
    return longest
