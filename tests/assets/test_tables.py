"""The columns that the UI shows of a table."""

import pyarrow as pa
import pyarrow.parquet as pq

from assets import chat_dataset, raw_dataset
from assets.tables import columns_of
from finetuning.chat.tokenized_rows import IN_CONTEXT, JUDGED, REJECTED, SCHEMA
from finetuning.dataset.raw_folder import ROWS


def test_a_column_has_a_short_type_and_what_is_known_of_it(tmp_path):
    schema = pa.schema([("turns", pa.list_(pa.struct([("role", pa.string())]))), ("ids", pa.list_(pa.int32()))])
    pq.write_table(schema.empty_table(), tmp_path / "rows.parquet")
    shown = columns_of(tmp_path / "rows.parquet", {"ids": "numbers"}).columns
    assert [(column.name, column.type, column.description) for column in shown] == [
        ("turns", "list<struct>", None),
        ("ids", "list<int32>", "numbers"),
    ]


def test_every_column_of_the_data_is_explained():
    assert set(raw_dataset.COLUMNS) == set(ROWS.names)
    assert set(chat_dataset.COLUMNS) == {*SCHEMA.names, *(name for name, _ in [*REJECTED, *JUDGED, *IN_CONTEXT])}
