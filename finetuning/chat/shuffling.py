"""Writes the rows of a file in another order, with bounded memory: first into buckets, then bucket by bucket."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BUCKET_BYTES = 128 * 2**20
ROW_GROUP_ROWS = 10_000


def write_in_order(source: Path, position: np.ndarray, target: Path) -> None:
    """Write the rows of the Arrow file `source` that have a position to the Parquet file `target`, in that order.

    Args:
        position: each row's place in `target`, from 0 without a gap, or -1 (rows,).
    """
    rows = int((position >= 0).sum())
    buckets = min(max(1, -(-source.stat().st_size // BUCKET_BYTES)), max(rows, 1))
    bucket_rows = -(-max(rows, 1) // buckets)
    with pa.OSFile(str(source)) as file, pa.ipc.open_file(file) as reader:
        schema = reader.schema
        if buckets == 1:
            tables = [(reader.read_all(), position)]
        else:
            tables = _from_buckets(_batches(reader, position), schema, target, bucket_rows)
        with pq.ParquetWriter(target, schema, compression="zstd", compression_level=1) as writer:
            for table, places in tables:
                wanted = np.flatnonzero(places >= 0)
                in_order = wanted[np.argsort(places[wanted])]
                writer.write_table(table.take(in_order), row_group_size=ROW_GROUP_ROWS)


Part = tuple[pa.RecordBatch, np.ndarray]


def _batches(reader: pa.RecordBatchFileReader, position: np.ndarray) -> Iterator[Part]:
    """Yield the wanted rows of each batch, with their positions."""
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
