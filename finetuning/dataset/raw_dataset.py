"""Reads the raw rows that a recipe's sources name, and keeps each as it is, with its place.

raw/train-00.parquet: {"file": "data/train.jsonl", "line": 7, "row": '{"question": "2 + 3?", "answer": "5"}'}
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from finetuning.checks.judgement import EXAMPLES
from finetuning.checks.secrets import find_secret
from finetuning.dataset import linear_equations
from finetuning.dataset.drawing import chosen_rows, describe, seed_of
from finetuning.dataset.file_rows import read_files
from finetuning.dataset.format_recognition import format_of, shortened
from finetuning.dataset.raw_folder import ROWS, UNREADABLE, RecordFile, read_rows
from finetuning.dataset.raw_rows import Item, RawRow, Unreadable, row_item
from finetuning.recipe.dataset import DatasetSpec, SourceSpec, sources

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# What is known of a source's columns is known from so many of its first rows, and not more than so many bytes of them.
FIRST_ROWS, FIRST_BYTES = 100, 16 << 20
PREVIEW_ROWS, PREVIEW_CHARACTERS, READ_FOR_PREVIEW = 5, 200, 50
SHOWN_UNREADABLE = 10


def write_raw(
    dataset: DatasetSpec, revisions: Mapping[str, str], folder: Path, *, api: "HfApi", file: str
) -> dict[str, Any]:
    """What is now in `folder` (see `raw_folder`): `rows` and `unreadable` (counts of all sources), `sources` (a record
    for each), `unreadable_examples` and `preview` (the first ones).

    Args:
        revisions: of every source, as `source_revisions.resolve_all` gives them.
        file: the recipe's, for messages.

    Raises:
        FinetuningError: a source cannot be read, has too few rows, or is not in its format.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records, examples = [], []
    with RecordFile(folder / "unreadable.parquet", UNREADABLE) as unreadable:
        for stem, (source, path) in sources(dataset).items():
            seed, where = seed_of(dataset.seed, stem), f"{file}: {path}"
            items = read(source, revision=revisions[stem], seed=seed, api=api, where=where)
            found = _write(folder / f"{stem}.parquet", items, source, seed, unreadable, examples, where)
            records.append(
                {
                    "stem": stem,
                    "split": stem.partition("-")[0],
                    "source": describe(source),
                    "revision": revisions[stem],
                    **found,
                }
            )
    (folder / "sources.json").write_bytes(orjson.dumps(records, option=orjson.OPT_INDENT_2))
    return {
        "rows": sum(record["rows"] for record in records),
        "unreadable": sum(record["unreadable"] for record in records),
        "unreadable_examples": examples,
        "checks": {"unreadable_rows": _counted(records, examples)},
        "sources": records,
        "preview": _preview(folder / f"{records[0]['stem']}.parquet"),
    }


def _counted(records: list[dict[str, Any]], examples: list[dict[str, Any]]) -> dict[str, Any]:
    """How many lines hold no row, of how many, and the first ones, as checks count them."""
    return {
        "rows": sum(record["unreadable"] for record in records),
        "of": sum(record["lines"] for record in records),
        "examples": [{"place": e["place"], "field": "", "detail": e["reason"]} for e in examples[:EXAMPLES]],
    }


def read(source: SourceSpec, *, revision: str, seed: int, api: "HfApi", where: str) -> Iterator[Item]:
    """The raw rows of one source, and the lines that are none. Of files these are all, whatever `source.rows` says.

    Args:
        revision: the commit to read, for a Hub data set.
        where: the source's place, such as `recipes/phi-2.yaml: dataset.sources[0]`.

    Raises:
        FinetuningError: the source cannot be read, or a Hub data set has fewer than `source.rows` rows.
    """
    if source.files:
        return read_files(source.files, where)
    if source.hub:
        # `datasets` takes a second to import, and files do not need it.
        from finetuning.dataset.hub_rows import read_hub

        return read_hub(source, revision=revision, drawn=seed, api=api, where=where)
    generated = linear_equations.generate(source.rows or 0, seed)
    return (row_item(str(source.generator), number, row) for number, row in enumerate(generated, 1))


def _write(
    path: Path,
    items: Iterator[Item],
    source: SourceSpec,
    seed: int,
    unreadable: RecordFile,
    examples: list[dict[str, str]],
    where: str,
) -> dict[str, Any]:
    """What is to be recorded of the rows that are then in `path`; the lines that are none are in `unreadable`."""
    drawn = source.files is not None and source.rows is not None
    draft = path.with_suffix(".draft") if drawn else path
    first, lost_before = _FirstRows(source, where), unreadable.count
    with RecordFile(draft, ROWS) as rows:
        for item in items:
            if isinstance(item, RawRow):
                rows.add(item)
                first.see(item.text)
            else:
                unreadable.add(item)
                if len(examples) < SHOWN_UNREADABLE:
                    examples.append(_example(item))
        first.check()
    lost = unreadable.count - lost_before
    record = {"columns": first.columns, "first_row": first.row, "lines": rows.count + lost, "unreadable": lost}
    if not drawn:
        return {**record, "rows": rows.count}
    chosen = chosen_rows(rows.count, source, seed, where)
    _draw(draft, path, chosen)
    draft.unlink()
    return {**record, "rows": len(chosen)}


def _draw(draft: Path, path: Path, chosen: np.ndarray) -> None:
    """Nothing; `path` has the chosen rows of `draft`, in their order."""
    wanted = set(chosen.tolist())
    with RecordFile(path, ROWS) as rows:
        for number, row in enumerate(read_rows(draft)):
            if number in wanted:
                rows.add(row)


def _example(item: Unreadable) -> dict[str, str]:
    return {"place": f"{item.file}:{item.line}", "reason": item.reason, "text": item.text}


def _preview(path: Path) -> list[dict[str, Any]]:
    texts = (row.text for row in islice(read_rows(path), READ_FOR_PREVIEW))
    # What is shown lies in the instance's event log, where nobody looks for secrets.
    rows = (orjson.loads(text) for text in texts if not find_secret(text.decode()))
    return [{column: _short(value) for column, value in row.items()} for row in islice(rows, PREVIEW_ROWS)]


def _short(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else orjson.dumps(shortened(value)).decode()
    return text if len(text) <= PREVIEW_CHARACTERS else text[: PREVIEW_CHARACTERS - 1] + "…"


@dataclass
class _FirstRows:
    """The first rows of a source, which tell its columns. Its format is checked as soon as they are there."""

    source: SourceSpec
    where: str
    columns: list[str] = field(default_factory=list)
    row: dict[str, Any] = field(default_factory=dict)
    _texts: list[bytes] = field(default_factory=list)
    _bytes: int = 0
    _checked: bool = False

    def see(self, text: bytes) -> None:
        """Nothing; one row more was read."""
        if not self._checked:
            self._texts.append(text)
            self._bytes += len(text)
            if len(self._texts) >= FIRST_ROWS or self._bytes >= FIRST_BYTES:
                self.check()

    def check(self) -> None:
        """Nothing, when the rows seen are of the source's format, or of one that is recognised.

        Raises:
            FinetuningError: they are not.
        """
        if self._checked or not self._texts:
            return
        rows = [orjson.loads(text) for text in self._texts]
        self.columns = list(dict.fromkeys(column for row in rows for column in row))
        # One with something in every column, if there is one: an empty row says nothing about the others.
        self.row = shortened(max(rows, key=lambda row: sum(map(bool, row.values()))))
        self._checked, self._texts = True, []
        format_of(self.columns, self.row, self.source, self.where)
