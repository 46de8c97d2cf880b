"""A malformed file with what has to become of it, and how such files are written."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

GOOD = 12
ROWS = [{"question": f"{word} {n} + 1?", "answer": f"#### {n + 1}"} for n, word in enumerate("abcdefghijkl")]
TURNS = [
    [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}] for row in ROWS
]


@dataclass(frozen=True)
class Case:
    """A file, and what becomes of it and of its rows; those that are not told of are in train or eval."""

    name: str
    content: bytes | Callable[[Path], object]
    refused: str = ""
    """What the message says; empty where the file is read."""
    kept: int = GOOD
    """How many rows are in train and eval."""
    unreadable: dict[int, str] = field(default_factory=dict)
    """Reasons by line."""
    dropped: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Reason and field by line."""
    said: dict[int, str] = field(default_factory=dict)
    """What the user says in rows that are kept, by line."""
    source: dict[str, Any] = field(default_factory=dict)
    """Keys of the recipe's source."""
    template: str = ""
    """A chat template other than `instruction`."""


def in_lines(*rows: Any) -> bytes:
    """JSON lines; a row in bytes is a line as it is."""
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def among(bad: Any, good: list[Any] = ROWS) -> bytes:
    """JSON lines of which the third is `bad`."""
    return in_lines(*good[:2], bad, *good[2:])


def in_csv(*lines: bytes, header: bytes = b"question,answer", end: bytes = b"\n") -> bytes:
    """A CSV file with the good rows, then `lines`."""
    good = [f"{row['question']},{row['answer']}".encode() for row in ROWS]
    return end.join([header, *good, *lines, b""])


def in_parquet(rows: list[Any] | pa.Table, **keys: Any) -> bytes:
    """A Parquet file of the rows."""
    sink = io.BytesIO()
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), sink, **keys)
    return sink.getvalue()


def nested(depth: int, start: str = '{"a":', end: str = "}") -> str:
    """JSON of that many objects, each in the one before."""
    return start * depth + "1" + end * depth


def whole(name: str, content: bytes | Callable[[Path], object], refused: str, **source: Any) -> Case:
    """A file that is refused."""
    return Case(name, content, refused=refused, source=source)


def read(name: str, content: bytes, kept: int = GOOD, **keys: Any) -> Case:
    """A file that is read."""
    return Case(name, content, kept=kept, **keys)


def qa(row: dict[str, str]) -> tuple[str, str]:
    """Question and answer of a row."""
    return row["question"], row["answer"]


ALL = in_lines(*ROWS)
ARRAY = json.dumps(ROWS).encode()
TABLE = in_parquet(ROWS)
CUT = "no valid JSON: unexpected end of data"
HALF = "half of a surrogate pair (\\ud800 to \\udfff)"
