"""Rows in another order, with and without buckets."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetuning.chat import shuffling
from finetuning.chat.shuffling import write_in_order


@pytest.fixture(params=[1, 500, 2**30], ids=["a bucket a row", "some buckets", "one bucket"])
def folder(request, tmp_path, monkeypatch):
    monkeypatch.setattr(shuffling, "BUCKET_BYTES", request.param)
    return tmp_path


def write_rows(path, count: int, batch: int) -> list[dict]:
    rows = [{"number": n, "texts": ["x" * (n % 7)] * (n % 3)} for n in range(count)]
    schema = pa.schema([("number", pa.int64()), ("texts", pa.list_(pa.string()))])
    with pa.ipc.new_file(str(path), schema) as writer:
        for start in range(0, count, batch):
            writer.write_batch(pa.RecordBatch.from_pylist(rows[start : start + batch], schema))
    return rows


def in_order(rows: list[dict], position: np.ndarray) -> list[dict]:
    """What sorting in memory gives."""
    return [rows[i] for i in np.argsort(position) if position[i] >= 0]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(kept=st.lists(st.booleans(), max_size=60), batch=st.integers(1, 20), seed=st.integers(0, 9))
def test_the_rows_are_those_of_a_permutation_in_memory(folder, kept, batch, seed):
    rows = write_rows(folder / "rows.arrow", len(kept), batch)
    position = np.full(len(kept), -1, np.int64)
    position[np.flatnonzero(kept)] = np.random.default_rng(seed).permutation(sum(kept))
    write_in_order([(folder / "rows.arrow", position)], folder / "out.parquet")
    assert pq.read_table(folder / "out.parquet").to_pylist() == in_order(rows, position)
    assert sorted(path.name for path in folder.iterdir()) == ["out.parquet", "rows.arrow"]


def test_many_rows_are_written_in_groups(folder, monkeypatch):
    monkeypatch.setattr(shuffling, "ROW_GROUP_ROWS", 40)
    rows = write_rows(folder / "rows.arrow", 300, 50)
    position = np.random.default_rng(1).permutation(300)
    write_in_order([(folder / "rows.arrow", position)], folder / "out.parquet")
    with pq.ParquetFile(folder / "out.parquet") as file:
        assert file.num_row_groups >= 8
        assert file.read().to_pylist() == in_order(rows, position)


def test_nothing_is_written_of_no_rows(folder):
    write_rows(folder / "rows.arrow", 5, 5)
    write_in_order([(folder / "rows.arrow", np.full(5, -1))], folder / "out.parquet")
    table = pq.read_table(folder / "out.parquet")
    assert table.num_rows == 0 and table.column_names == ["number", "texts"]
