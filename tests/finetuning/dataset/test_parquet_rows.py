"""A Parquet file is read to its end, and what JSON does not have or is no text becomes text or is told."""

import datetime
import time

import pyarrow as pa
import pyarrow.parquet as pq

from tests.finetuning.dataset.read_rows import read, rows_of


def test_a_column_of_a_table_that_is_null_at_first_is_read(tmp_path):
    pq.write_table(pa.table({"a": ["x"], "b": pa.nulls(1)}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": ["y"], "b": ["z"]}), tmp_path / "1.parquet")
    assert rows_of(tmp_path / "0.parquet", tmp_path / "1.parquet") == [{"a": "x", "b": None}, {"a": "y", "b": "z"}]


def test_values_of_parquet_that_json_does_not_have_become_text(tmp_path):
    row = {
        "when": datetime.datetime(2026, 1, 2, 3, 4, 5),
        "day": datetime.date(2026, 1, 2),
        "wait": datetime.timedelta(seconds=5),
        "text": b"as bytes",
        "picture": b"\xff\xd8",
        "nothing": None,
        "list": [{"a": 1.5}],
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (found,) = rows_of(tmp_path / "a.parquet")
    assert found.pop("when").startswith("2026-01-02T03:04:05") and found.pop("wait") == "0:00:05"
    assert found == {
        "day": "2026-01-02",
        "text": "as bytes",
        "picture": {"bytes": 2},
        "nothing": None,
        "list": [{"a": 1.5}],
    }


def test_text_in_parquet_that_is_no_utf_8_is_unreadable_and_the_rows_around_it_are_read(tmp_path):
    texts = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    assert [(item.line, getattr(item, "reason", "")) for item in read(tmp_path / "a.parquet")] == [
        (1, ""),
        (2, "not valid UTF-8"),
        (3, ""),
    ]


def test_a_parquet_file_of_several_row_groups_is_read_to_its_end(tmp_path):
    empty, one = (pa.table({"a": pa.array(values, pa.int64())}) for values in ([], [1]))
    with pq.ParquetWriter(tmp_path / "a.parquet", one.schema) as writer:
        for table in (one, empty, one):
            writer.write_table(table)
    assert [item.line for item in read(tmp_path / "a.parquet")] == [1, 2]


def test_a_table_of_very_many_columns_is_read_in_seconds(tmp_path):
    pq.write_table(pa.table({f"column {n}": ["1"] for n in range(8_000)}), tmp_path / "a.parquet")
    began = time.process_time()
    (row,) = rows_of(tmp_path / "a.parquet")
    assert len(row) == 8_000 and time.process_time() - began < 5
