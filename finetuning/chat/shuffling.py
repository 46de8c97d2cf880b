"""Writes the rows of a file in another order, with bounded memory: first into buckets, then bucket by bucket."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BUCKET_BYTES = 128 * 2**20
ROW_GROUP_ROWS = 10_000


Part = tuple[pa.RecordBatch, np.ndarray]
Source = tuple[Path, np.ndarray]


def write_in_order(sources: Sequence[Source], target: Path) -> None:
    """Write the rows of Arrow files that have a position to the Parquet file `target`, in that order.

    Args:
        sources: files with the same columns, and each row's place in `target`, among the rows of all files, from 0
            without a gap, or -1 (rows,).
    """
    rows = sum(int((position >= 0).sum()) for _, position in sources)
    size = sum(source.stat().st_size for source, _ in sources)
    buckets = min(max(1, -(-size // BUCKET_BYTES)), max(rows, 1))
    bucket_rows = -(-max(rows, 1) // buckets)
    with pa.OSFile(str(sources[0][0])) as file, pa.ipc.open_file(file) as reader:
        schema = reader.schema
    parts = chain.from_iterable(map(_batches, sources))
    tables = [_at_once(list(parts), schema)] if buckets == 1 else _from_buckets(parts, schema, target, bucket_rows)
    with pq.ParquetWriter(target, schema, compression="zstd", compression_level=1) as writer:
        for table, places in tables:
            writer.write_table(table.take(np.argsort(places)), row_group_size=ROW_GROUP_ROWS)


def _at_once(parts: list[Part], schema: pa.Schema) -> tuple[pa.Table, np.ndarray]:
    places = [np.zeros(0, np.int64), *(places for _, places in parts)]
    return pa.Table.from_batches([batch for batch, _ in parts], schema), np.concatenate(places)


def _batches(source: Source) -> Iterator[Part]:
    """Yield the wanted rows of each batch of a file, with their positions."""
    path, position = source
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        yield from _wanted(reader, position)


def _wanted(reader: pa.RecordBatchFileReader, position: np.ndarray) -> Iterator[Part]:
    start = 0
    for i in range(reader.num_record_batches):
        batch = reader.get_batch(i)
        places = position[start : start + batch.num_rows]
        start += batch.num_rows
        kept = np.flatnonzero(places >= 0)
        yield batch.take(kept), places[kept]


def _from_buckets(
    parts: Iterator[Part], schema: pa.Schema, target: Path, bucket_rows: int
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yield a table for each bucket: the rows whose positions lie in it, and these positions."""
    paths: dict[int, Path] = {}
    writers: dict[int, pa.RecordBatchFileWriter] = {}
    placed: dict[int, list[np.ndarray]] = {}
    for batch, places in parts:
        for bucket in np.unique(places // bucket_rows).tolist():
            inside = np.flatnonzero(places // bucket_rows == bucket)
            if bucket not in writers:
                paths[bucket] = target.with_name(f".{target.name}.{bucket}")
                writers[bucket] = pa.ipc.new_file(str(paths[bucket]), schema)
                placed[bucket] = []
            writers[bucket].write_batch(batch.take(inside))
            placed[bucket].append(places[inside])
    for writer in writers.values():
        writer.close()
    for bucket in sorted(paths):
        with pa.OSFile(str(paths[bucket])) as file, pa.ipc.open_file(file) as reader:
            yield reader.read_all(), np.concatenate(placed[bucket])
        paths[bucket].unlink()
