"""What the UI shows of the table that an asset holds: each column's name, type and meaning.

>>> columns_of(Path("train-00.parquet"), {"line": "its place there, counted from 1"}).columns[1].description
'its place there, counted from 1'
"""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg


def columns_of(file: Path, meanings: Mapping[str, str]) -> dg.TableSchema:
    """The columns of a Parquet file, with what each of them holds; of the file itself no more than its end is read."""
    import pyarrow.parquet as pq

    return dg.TableSchema(
        [dg.TableColumn(field.name, str(field.type), meanings.get(field.name)) for field in pq.read_schema(file)]
    )
