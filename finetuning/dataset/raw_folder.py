"""The files of a folder of raw rows, written in pieces that fit into memory whatever the number of rows.

train-00.parquet, eval-00.parquet, …   the rows of each source: file, line, row (one JSON object as text)
unreadable.parquet                     lines that no row could be read from: file, line, reason, text
sources.json                           a record for each source
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from finetuning.dataset.raw_rows import RawRow, Unreadable
from finetuning.dataset.raw_summary import RawSource

ROWS = pa.schema([("file", pa.string()), ("line", pa.int64()), ("row", pa.string())])
UNREADABLE = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())])
GROUP_ROWS, GROUP_BYTES = 4_000, 16 << 20
# Of the few that repeat; a dictionary of rows, each its own, takes time and saves nothing.
DICTIONARIES = ["file", "reason"]


class RecordFile:
    """A Parquet file that records are added to. Row groups are bounded in rows and in bytes."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema, self._writer = schema, pq.ParquetWriter(path, schema, use_dictionary=cast(Any, DICTIONARIES))
        self._records: list[RawRow | Unreadable] = []
        self._bytes = 0
        self.count = 0

    def add(self, record: RawRow | Unreadable) -> None:
        """Write one more record to the file, at the latest when it is closed."""
        self._records.append(record)
        self._bytes += len(record[-1])
        self.count += 1
        if len(self._records) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._records:
            columns = zip(*self._records, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._records, self._bytes = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush()
        self._writer.close()


def read_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a raw file, in order."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            names, numbers, texts = (column.to_pylist() for column in file.read_row_group(group).columns)
            for name, number, text in zip(names, numbers, texts, strict=True):
                yield RawRow(name, number, text.encode())


def read_sources(folder: Path) -> list[RawSource]:
    """Return what is known of each source, as `sources.json` has it."""
    return [RawSource(**source) for source in orjson.loads((folder / "sources.json").read_bytes())]
