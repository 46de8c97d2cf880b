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
from pydantic import JsonValue

from finetuning.checks.counted import Counted, Example
from finetuning.checks.judgement import EXAMPLES
from finetuning.dataset import linear_equations, product_manuals
from finetuning.dataset.drawing import chosen_rows, describe, seed_of
from finetuning.dataset.file_rows import read_files
from finetuning.dataset.format_recognition import format_of, shortened
from finetuning.dataset.raw_folder import ROWS, UNREADABLE, RecordFile, read_rows
from finetuning.dataset.raw_rows import Item, RawRow, Unreadable, row_item
from finetuning.dataset.raw_summary import JsonRow, RawSource, RawSummary, UnreadableLine
from finetuning.errors import FinetuningError
from finetuning.feedback.rows import rows_of, taken
from finetuning.recipe.dataset import DatasetSpec, sources
from finetuning.recipe.method import Method
from finetuning.recipe.source import SourceSpec
from finetuning.secrets import find_secret

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# What is known of a source's columns is known from so many of its first rows, and not more than so many bytes of them.
FIRST_ROWS, FIRST_BYTES = 100, 16 << 20
PREVIEW_ROWS, PREVIEW_CHARACTERS, READ_FOR_PREVIEW = 5, 200, 50
SHOWN_UNREADABLE = 10


def write_raw(
    dataset: DatasetSpec, revisions: Mapping[str, str], folder: Path, *, api: "HfApi", file: str, method: Method = "sft"
) -> RawSummary:
    """Write the rows of every source into `folder` (see `raw_folder`); return its summary.

    Args:
        revisions: of every source, as `revisions.resolve_all` gives them.
        file: the recipe's, for messages.
        method: that of training, which may learn from one format alone.

    Raises:
        FinetuningError: a source cannot be read, has too few rows, or is not in its format.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[RawSource] = []
    with RecordFile(folder / "unreadable.parquet", UNREADABLE) as unreadable:
        lost = _Lost(unreadable)
        for stem, (source, path) in sources(dataset).items():
            seed, where = seed_of(dataset.seed, stem), f"{file}: {path}"
            items = read(source, revision=revisions[stem], seed=seed, api=api, where=where, method=method)
            target, first, lost_before = folder / f"{stem}.parquet", _FirstRows(source, where, method), unreadable.count
            there = _write(target, items, first, lost)
            found.append(
                RawSource(
                    stem=stem,
                    split=stem.partition("-")[0],
                    source=describe(source),
                    revision=revisions[stem],
                    columns=first.columns,
                    first_row=first.row,
                    lines=there + unreadable.count - lost_before,
                    unreadable=unreadable.count - lost_before,
                    # A generator and the Hub give no more rows than are asked for.
                    rows=_draw(target, chosen_rows(there, source, seed, where)) if _is_drawn(source) else there,
                )
            )
    (folder / "sources.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    return RawSummary(
        rows=sum(source.rows for source in found),
        unreadable=unreadable.count,
        unreadable_examples=lost.examples,
        checks={"unreadable_rows": _counted(found, lost.examples)},
        sources=found,
        preview=_preview(folder / f"{found[0].stem}.parquet"),
    )


def _is_drawn(source: SourceSpec) -> bool:
    return source.files is not None and source.rows is not None


def _counted(found: list[RawSource], examples: list[UnreadableLine]) -> Counted:
    """Return how many lines hold no row, of how many, and the first ones."""
    return Counted(
        rows=sum(source.unreadable for source in found),
        of=sum(source.lines for source in found),
        examples=[Example(line.place, "", line.reason) for line in examples[:EXAMPLES]],
    )


def read(
    source: SourceSpec, *, revision: str, seed: int, api: "HfApi", where: str, method: Method = "sft"
) -> Iterator[Item]:
    """The raw rows of one source, and the lines that are none. Of files these are all, whatever `source.rows` says.

    Args:
        revision: the commit to read, for a Hub data set.
        where: the source's place, such as `recipes/phi-2.yaml: dataset.sources[0]`.
        method: that of training, which says what is learned of feedback.

    Raises:
        FinetuningError: the source cannot be read, or a Hub data set has fewer than `source.rows` rows.
    """
    if source.files:
        return read_files(source.files, where)
    if source.hub:
        # `datasets` takes a second to import, and files do not need it.
        from finetuning.dataset.hub_rows import read_hub

        return read_hub(source, revision=revision, drawn=seed, api=api, where=where)
    if source.feedback:
        learned = rows_of(taken(source.feedback, source.every), method)
        return (row_item(describe(source), number, row) for number, row in enumerate(learned, 1))
    if source.generator == "product-manuals":
        generated = product_manuals.generate(source.rows or 0, seed, source.split)
        if (source.rows or 0) > (most := product_manuals.questions(source.split)):
            raise FinetuningError(
                f"{where}.rows: {source.rows}, and product-manuals has {most} questions. Write fewer."
            )
    else:
        generated = linear_equations.generate(source.rows or 0, seed, source.split)
    return (row_item(str(source.generator), number, row) for number, row in enumerate(generated, 1))


@dataclass
class _FirstRows:
    """The first rows of a source, which tell its columns. Its format is checked as soon as they are there."""

    source: SourceSpec
    where: str
    method: Method = "sft"
    columns: list[str] = field(default_factory=list)
    row: JsonRow = field(default_factory=dict)
    _texts: list[bytes] = field(default_factory=list)
    _bytes: int = 0
    _checked: bool = False

    def see(self, text: bytes) -> None:
        """Take note of one more row."""
        if not self._checked:
            self._texts.append(text)
            self._bytes += len(text)
            if len(self._texts) >= FIRST_ROWS or self._bytes >= FIRST_BYTES:
                self.check()

    def check(self) -> None:
        """Raise an error unless the rows seen are in the source's format, or in one that is recognised.

        Raises:
            FinetuningError: they are in neither.
        """
        if self._checked or not self._texts:
            return
        rows = [orjson.loads(text) for text in self._texts]
        self.columns = list(dict.fromkeys(column for row in rows for column in row))
        # One with something in every column, if there is one: an empty row says nothing about the others.
        fullest = max(rows, key=lambda row: sum(map(bool, row.values())))
        self.row = {column: shortened(value, depth=1) for column, value in fullest.items()}
        self._checked, self._texts = True, []
        format_of(self.columns, self.row, self.source, self.where, self.method)


@dataclass
class _Lost:
    """Lines that no row could be read from: all of them in a file, the first ones as examples."""

    file: RecordFile
    examples: list[UnreadableLine] = field(default_factory=list)

    def add(self, line: Unreadable) -> None:
        """Write down one more line."""
        self.file.add(line)
        if len(self.examples) < SHOWN_UNREADABLE:
            self.examples.append(UnreadableLine(f"{line.file}:{line.line}", line.reason, line.text))


def _write(path: Path, items: Iterator[Item], first: _FirstRows, lost: _Lost) -> int:
    """Write the rows among the items to `path`, showing them to `first`; return how many they are."""
    with RecordFile(path, ROWS) as rows:
        for item in items:
            if isinstance(item, RawRow):
                rows.add(item)
                first.see(item.text)
            else:
                lost.add(item)
        first.check()
    return rows.count


def _draw(path: Path, chosen: np.ndarray) -> int:
    """Leave only the chosen rows in `path`, in their order; return how many they are."""
    wanted, whole = set(chosen.tolist()), path.with_suffix(".draft")
    path.rename(whole)
    with RecordFile(path, ROWS) as rows:
        for number, row in enumerate(read_rows(whole)):
            if number in wanted:
                rows.add(row)
    whole.unlink()
    return rows.count


def _preview(path: Path) -> list[JsonRow]:
    texts = (row.text for row in islice(read_rows(path), READ_FOR_PREVIEW))
    # What is shown lies in the instance's event log, where nobody looks for secrets.
    rows = (row for row in map(orjson.loads, texts) if not find_secret("\n".join(_texts(row))))
    return [{column: _short(value) for column, value in row.items()} for row in islice(rows, PREVIEW_ROWS)]


def _texts(row: JsonRow) -> Iterator[str]:
    """Yield every key and text of a row, as they are shown."""
    waiting: list[Any] = [row]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            yield value


def _short(value: JsonValue) -> JsonValue:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else orjson.dumps(shortened(value)).decode()
    return text if len(text) <= PREVIEW_CHARACTERS else text[: PREVIEW_CHARACTERS - 1] + "…"
