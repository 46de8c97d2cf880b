"""The rows that are read from files, and what is said of files that cannot be read."""

import csv
import json

import pytest

from finetuning.dataset.file_rows import read_files
from finetuning.dataset.raw_rows import RawRow
from finetuning.errors import FinetuningError

WHERE = "recipes/x.yaml: dataset.sources[0]"
ROWS = [{"question": f"{n} + 1? ünï€😀", "answer": f"#### {n + 1}"} for n in range(20)]


def read(*paths) -> list:
    return list(read_files(tuple(map(str, paths)), WHERE))


def rows_of(*paths) -> list[dict]:
    items = read(*paths)
    assert all(isinstance(item, RawRow) for item in items), items
    return [json.loads(item.text) for item in items]


def mistake(*paths) -> str:
    with pytest.raises(FinetuningError) as error:
        read(*paths)
    return str(error.value)


def as_jsonl(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_csv(rows, path, delimiter=",") -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
