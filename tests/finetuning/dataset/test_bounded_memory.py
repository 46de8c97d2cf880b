"""Files of a few hundred bytes that stand for gigabytes are read in little memory, or are a clear error."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.waiting import PATIENCE


def repeated() -> pa.Table:
    """A text of five million letters, a thousand times."""
    return pa.table(
        {"q": pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["a" * 5_000_000]))}
    )


def of_turns() -> pa.Table:
    """The same within a record within a list."""
    row = pa.table({"messages": pa.array([[{"role": "user", "content": "a" * 5_000_000}]])})
    return row.take(pa.array([0] * 150))


def of_nothing() -> pa.Table:
    """One list of four hundred million nulls."""
    return pa.table(
        {"a": pa.ListArray.from_arrays(pa.array([0, 400_000_000], pa.int32()), pa.nulls(400_000_000, pa.int8()))}
    )


def of_zeros() -> pa.Table:
    """One list of three hundred million zeros."""
    zeros = pa.array(np.zeros(300_000_000, np.int64))
    return pa.table({"a": pa.ListArray.from_arrays(pa.array([0, 300_000_000], pa.int32()), zeros)})


READ = """
import resource, sys
from finetuning.dataset.file_rows import read_files
from finetuning.errors import FinetuningError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(sum(1 for row in read_files((sys.argv[1],), "x.yaml")), "rows")
except FinetuningError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.long("gigabytes of zeros")
@pytest.mark.parametrize(
    ("table", "told"),
    [(repeated, "1000 rows"), (of_turns, "150 rows"), (of_nothing, "GiB of memory"), (of_zeros, "GiB of memory")],
)
def test_a_few_bytes_of_parquet_never_take_gigabytes(table, told, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(table(), path, compression="zstd")
    assert path.stat().st_size < 20_000
    read = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, timeout=PATIENCE)
    said, taken = read.stdout.splitlines()
    assert told in said and int(taken) < 2048, read.stdout + read.stderr
