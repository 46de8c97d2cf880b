"""Questions of an exam that a model has learned from, in another data set than the exam's own.

>>> seen_rows(Path("artifacts/chat_dataset/both/0a1b…"), Path("artifacts/chat_dataset/maths/2c3d…"))
['train.jsonl:17']
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROWS = 1000  # that are looked at together


def seen_rows(chat_dataset: Path, other: Path) -> list[str]:
    """The places of the eval rows of `chat_dataset` whose question is asked in a row to learn, or dev row, of `other`.

    A question is all that the user says, but for white space and case, or a text as a whole.
    """
    examined = dict(_questions(chat_dataset / "eval.parquet"))
    learned = [file for name in ("train", "dev") if (file := other / f"{name}.parquet").exists()]
    found = {question for file in learned for question, _ in _questions(file) if question in examined}
    return sorted(examined[question] for question in found)


def _questions(file: Path) -> Iterator[tuple[str, str]]:
    """Each question, and the place of its row."""
    parquet = pq.ParquetFile(file)
    column = "asked" if "asked" in parquet.schema_arrow.names else "messages"  # without the passages of a search
    for batch in parquet.iter_batches(ROWS, columns=[column, "place"]):
        for row in batch.to_pylist():
            yield _question(row[column]), row["place"]


def _question(messages: list[Mapping[str, Any]]) -> str:
    said = [message["content"] for message in messages if message["role"] == "user"] or [messages[0]["content"]]
    return "\x1e".join(" ".join(text.split()).casefold() for text in said)
