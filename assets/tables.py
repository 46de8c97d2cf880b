"""What the UI shows of the table that an asset holds: each column's name, type and meaning.

>>> columns_of(Path("train-00.parquet"), {"line": "its place there, counted from 1"}).columns[1].description
'its place there, counted from 1'
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from pyarrow import DataType


def columns_of(file: Path, meanings: Mapping[str, str]) -> dg.TableSchema:
    """The columns of a Parquet file, with what each of them holds; of the file itself no more than its end is read."""
    import pyarrow.parquet as pq

    return dg.TableSchema(
        [dg.TableColumn(field.name, type_of(field.type), meanings.get(field.name)) for field in pq.read_schema(file)]
    )


def type_of(column: "DataType") -> str:
    """The type in a word or two: `list<int32>`, `list<struct>`."""
    import pyarrow as pa

    if isinstance(column, pa.ListType):
        return f"list<{type_of(column.value_type)}>"
    return "struct" if isinstance(column, pa.StructType) else str(column)
