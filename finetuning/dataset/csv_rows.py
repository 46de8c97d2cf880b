"""Reads the rows of a CSV file, whose values all stay the text that they are.

question,answer
"2 + 3,
or 5?",05
-> line 2: {"question": "2 + 3,\\nor 5?", "answer": "05"}
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO, cast

import orjson

from finetuning.dataset.encodings import conversion
from finetuning.dataset.json_rows import lines
from finetuning.dataset.raw_rows import MOST_BYTES, TOO_LONG, Item, RawRow, Unreadable, excerpt
from finetuning.errors import FinetuningError
from finetuning.secrets import masked

DELIMITERS = (",", ";", "\t", "|")
OPEN_QUOTE = "a quote that is never closed"
FAULTS = {
    "unexpected end of data": OPEN_QUOTE,
    "field larger": TOO_LONG,
    "expected after": "text after a closing quote",
    "new-line character": "a carriage return within a line",
}


def csv_items(stream: BinaryIO, name: str, where: str, delimiter: str) -> Iterator[Item]:
    """The rows after the header, each numbered by the line that it begins on.

    Raises:
        FinetuningError: the header names no column, or one twice; or a quote takes in the rest of the file, or 64 MiB
            of it.
    """
    csv.field_size_limit(MOST_BYTES)
    delimiter = _delimiter(cast(io.BufferedReader, stream).peek(), delimiter)
    source = _Lines(stream)
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    header = _header(reader, name, where)
    while True:
        line, source.first, source.too_long = reader.line_num + 1, "", False
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = _fault(error)
            if fault == OPEN_QUOTE or (fault == TOO_LONG and reader.line_num > line):
                raise FinetuningError(
                    f"{where}: {name} cannot be read beyond line {line}: {OPEN_QUOTE} takes in the lines after "
                    f"it: {masked(_shown(source.first))[:80]!r}. Close it; within quotes, a quote is written twice."
                ) from error
            yield Unreadable(name, line, fault, _shown(source.first))
            continue
        if source.too_long:
            yield Unreadable(name, line, TOO_LONG, _shown(source.first))
        elif len(fields) != len(header):
            if len(fields) > 1 or "".join(fields).strip():
                counts = f"{len(fields)} field{'s' * (len(fields) != 1)}, the header has {len(header)}"
                yield Unreadable(name, line, counts, _shown(source.first))
        else:
            yield _item(name, line, dict(zip(header, fields, strict=True)), source.first)


def _delimiter(start: bytes, named: str) -> str:
    """Return what separates the columns of a header: the delimiter that the file's name stands for, unless it has one
    column by that and several by another.
    """
    first = next((line for line in start.decode(errors="replace").splitlines() if line.strip()), "")
    try:
        columns = {sign: len(next(csv.reader([first], delimiter=sign), [])) for sign in (named, *DELIMITERS)}
    except csv.Error:
        return named
    return named if columns[named] > 1 else max(columns, key=lambda sign: columns[sign])


def _header(reader: Iterator[list[str]], name: str, where: str) -> list[str]:
    try:
        header = next(reader, [])
        while header == []:
            header = next(reader)
    except StopIteration:
        return []
    except csv.Error as error:
        raise FinetuningError(f"{where}: {name} cannot be read: its header has {_fault(error)}.") from error
    named = [column.encode(errors="replace").decode() for column in header]
    if named != header:
        raise FinetuningError(
            f"{where}: {name} cannot be read: its header is not valid UTF-8: {_list(named)}. Convert the file: "
            f"{conversion(','.join(header).encode(errors='surrogateescape'))}."
        )
    strange = next((column for column in header if "\0" in column), None)
    if strange:
        raise FinetuningError(
            f"{where}: {name} cannot be read: its header has a NUL byte in {masked(strange)[:80]!r}. Rename it."
        )
    empty = next((number for number, column in enumerate(header, 1) if not column.strip()), None)
    if empty:
        raise FinetuningError(
            f"{where}: {name} cannot be read: column {empty} of its header has no name; it has {_list(named)}. "
            "Name it, or take the column out."
        )
    twin = next((column for column, times in Counter(named).items() if times > 1), None)
    if twin:
        raise FinetuningError(
            f"{where}: {name} cannot be read: its header has {twin!r} twice; it has {_list(named)}. Rename one."
        )
    return header


def _list(columns: list[str]) -> str:
    return ", ".join(repr(masked(column)[:40]) for column in columns[:20]) + (", …" if len(columns) > 20 else "")


def _item(name: str, line: int, row: dict[str, str], first: str) -> Item:
    try:
        text = orjson.dumps(row)
    except TypeError:
        return Unreadable(name, line, "not valid UTF-8", _shown(first))
    if b"\\u0000" in text and any("\0" in value for value in row.values()):
        return Unreadable(name, line, "a NUL byte", _shown(first))
    return RawRow(name, line, text)


def _fault(error: csv.Error) -> str:
    said = str(error)
    return next((reason for words, reason in FAULTS.items() if words in said), f"no valid CSV: {said}")


def _shown(line: str) -> str:
    return excerpt(line.encode(errors="surrogateescape"))


class _Lines:
    """The lines of a stream as text, in which what is no UTF-8 stays recognisable; `first` is that of the record."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = lines(stream)
        self.first, self.too_long = "", False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        _, line = next(self._lines)
        self.too_long = self.too_long or len(line) > MOST_BYTES
        text = line.decode(errors="surrogateescape")
        self.first = self.first or text[:1000]
        return text
