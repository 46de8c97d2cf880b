"""What each side of `benchmarks.data` shares: the job that it is given, and the record of what it prepared.

A side is a process of its own, `python -m benchmarks.data_NAME JOB.json`. Every one of them runs this module, in its
own environment: it needs numpy and pyarrow, and nothing of the project.
"""

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

NOT_SUPERVISED = -100


class Job(NamedTuple):
    """What a side prepares, and where."""

    rows: str
    """The JSONL file of rows with `messages`."""
    tokenizer: str
    """The folder of the tokenizer."""
    work: str
    """An empty folder."""
    max_length: int
    workers: int | None
    """Worker processes that the peers are told to use; None is their default, one process."""
    record: str
    """Where the record goes; the digests of the rows go beside it."""


def job() -> Job:
    """The job that the command line names."""
    return Job(**json.loads(Path(sys.argv[1]).read_text()))


def report(job: Job, seconds: float, prepared: Iterable[pa.Table | pa.RecordBatch], **more: Any) -> None:
    """The record of a preparation that took `seconds` is written, and digests of its rows beside it."""
    digests, tokens, supervised = [], 0, 0
    for batch in prepared:
        for ids, labels in zip(_arrays(batch, "input_ids"), _arrays(batch, "labels"), strict=True):
            tokens += len(ids)
            supervised += int(np.count_nonzero(labels != NOT_SUPERVISED))
            digests.append((_digest(ids), _digest(ids, labels)))
    np.save(digests_of(job), np.array(digests, dtype=np.uint64).reshape(-1, 2))
    record = {"seconds": seconds, "rows": len(digests), "tokens": tokens, "supervised_tokens": supervised, **more}
    Path(job.record).write_text(json.dumps(record))


def digests_of(job: Job) -> Path:
    """The file with two digests of every row: of its tokens, and of its tokens and labels."""
    return Path(job.record).with_suffix(".npy")


def _arrays(batch: pa.Table | pa.RecordBatch, column: str) -> Iterable[np.ndarray]:
    found = batch.column(column)
    lists = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    values = np.asarray(lists.flatten()).astype(np.int32)
    return np.split(values, np.cumsum(np.asarray(lists.value_lengths()))[:-1])


def _digest(*arrays: np.ndarray) -> int:
    return int.from_bytes(hashlib.blake2b(b"".join(array.tobytes() for array in arrays), digest_size=8).digest())
