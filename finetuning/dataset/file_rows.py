"""Streams the raw rows of files: JSON lines, JSON, CSV and Parquet, compressed or not."""

import codecs
import io
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from finetuning.dataset.bounded_memory import MOST, bounded_memory
from finetuning.dataset.csv_rows import csv_items
from finetuning.dataset.encodings import SAMPLE_BYTES, conversion
from finetuning.dataset.files import KINDS, SourceFile, decompressed, matching_files, said_by
from finetuning.dataset.json_rows import json_items, json_lines
from finetuning.dataset.raw_rows import Item, RawRow, row_item
from finetuning.errors import FinetuningError

BATCH_ROWS = 64
JSON_SPACE = b" \t\r\n"


def read_files(patterns: tuple[str, ...], where: str) -> Iterator[Item]:
    """Every row of the files, in their order, and every line that is none.

    Raises:
        FinetuningError: a file is missing, of no kind that can be read, damaged, or holds not a single row.
    """
    files = matching_files(patterns, where)
    strange = next((file for file in files if file.kind is None), None)
    if strange:
        raise FinetuningError(
            f"{where}.files: {strange.name} is of no kind that can be read; its name must end in {', '.join(KINDS)}, "
            "or in one of these and .gz, .bz2, .xz or .zst."
        )
    for file in files:
        yield from read_file(file, f"{where}.files")


def read_file(file: SourceFile, where: str) -> Iterator[Item]:
    """Every row of one file, and every line that is none; `where` is the key that names it.

    Raises:
        FinetuningError: it is damaged, or holds not a single row.
    """
    rows, first_fault = 0, None
    for item in (_read_parquet if file.kind == "parquet" else _read_text)(file, where):
        if isinstance(item, RawRow):
            rows += 1
        else:
            first_fault = first_fault or item
        yield item
    if first_fault and not rows:
        place = f"line {first_fault.line}" if file.kind in ("jsonl", "csv", "tsv") else f"row {first_fault.line}"
        hint = _hint(first_fault.text) if first_fault.text.lstrip().startswith("[") else ""
        if "UTF-8" in first_fault.reason and file.kind != "parquet":
            with decompressed(file, where) as stream:
                hint = f" Convert the file: {conversion(stream.read(SAMPLE_BYTES))}."
        raise FinetuningError(
            f"{where}: {file.name} cannot be read: none of its lines is a row. {place}: {first_fault.reason}: "
            f"{first_fault.text[:80]!r}.{hint}"
        )
    if not rows:
        raise FinetuningError(f"{where}: {file.name} holds no rows. Fill it, or leave it out.")


def _hint(text: str) -> str:
    """What to write where the first line begins a list: a file of one list, or a list a row."""
    if re.match(r"""\s*\[\s*\[?\s*\{\s*"(role|from)"\s*:""", text):
        return ' It looks like a conversation: write each as {"messages": […]}.'
    return " It looks like one JSON array: name it .json."


def _read_text(file: SourceFile, where: str) -> Iterator[Item]:
    with _text(file, where) as stream:
        if file.kind == "jsonl":
            yield from json_lines(stream, file.name)
        elif file.kind == "json":
            yield from json_items(stream, file.name, where)
        else:
            yield from csv_items(stream, file.name, where, delimiter="\t" if file.kind == "tsv" else ",")


@contextmanager
def _text(file: SourceFile, where: str) -> Iterator[BinaryIO]:
    """The file's text in UTF-8, after the mark that it may begin with.

    Raises:
        FinetuningError: it is empty, or in another encoding.
    """
    with decompressed(file, where) as stream:
        first = cast(io.BufferedReader, stream).peek(4)[:4]
        if not first:
            raise FinetuningError(f"{where}: {file.name} is empty. Fill it, or leave it out.")
        encoding = _wide_encoding(first)
        if encoding:
            raise FinetuningError(
                f"{where}: {file.name} cannot be read: it is {encoding}, and UTF-8 is what is read. Convert it: "
                f"`iconv -f {encoding} -t UTF-8 OLD > NEW`."
            )
        if first.startswith(codecs.BOM_UTF8):
            stream.read(len(codecs.BOM_UTF8))
        yield stream


def _wide_encoding(first: bytes) -> str | None:
    """UTF-16 or UTF-32, by the mark that a text begins with or by the zeros beside its first letters."""
    if first.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    zeros = "".join("0" if byte == 0 else "x" for byte in first)
    return {"x0x0": "UTF-16LE", "0x0x": "UTF-16BE", "x000": "UTF-32LE", "000x": "UTF-32BE"}.get(zeros)


def _read_parquet(file: SourceFile, where: str) -> Iterator[Item]:
    with _table(file, where) as table:
        twins = [name for name, count in Counter(table.schema_arrow.names).items() if count > 1]
        if twins:
            raise FinetuningError(f"{where}: {file.name} has two columns {min(twins)!r}; rename one.")
        number = 0
        # In this thread, for in another one memory that is not there ends the process.
        batches = table.iter_batches(BATCH_ROWS, use_threads=False)
        while (rows := _next_rows(batches, file, number, where)) is not None:
            for row in rows:
                number += 1
                yield row_item(file.name, number, row)


@contextmanager
def _table(file: SourceFile, where: str) -> Iterator[pq.ParquetFile]:
    """The table in the file, which its reader needs whole on this machine's disk."""
    with decompressed(file, where) as stream, tempfile.TemporaryFile() as copy:
        source: Any = file.path
        if file.system or file.compression:
            while piece := stream.read(1 << 20):
                copy.write(piece)
            copy.seek(0)
            source = copy
        elif not Path(file.path).stat().st_size:
            raise FinetuningError(f"{where}: {file.name} is empty. Fill it, or leave it out.")
        try:
            table = pq.ParquetFile(source, buffer_size=1 << 20, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise _broken_table(file, error, where) from error
        with table:
            yield table


def _next_rows(
    batches: Iterator[pa.RecordBatch], file: SourceFile, before: int, where: str
) -> list[Mapping[str, object] | str] | None:
    """The next rows, after the first `before`; None at the end."""
    try:
        with bounded_memory():
            batch = next(batches, None)
            return None if batch is None else list(rows_of(batch))
    except MemoryError:
        raise FinetuningError(
            f"{where}: {file.name} cannot be read: a few of its rows, from row {before + 1} on, take more than "
            f"{MOST >> 30} GiB of memory. Leave out what makes them so large."
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise _broken_table(file, error, where) from error


def _broken_table(file: SourceFile, error: Exception, where: str) -> FinetuningError:
    return FinetuningError(
        f"{where}: {file.name} cannot be read: it is no whole Parquet file ({said_by(error)}). Fetch or make it again."
    )


def rows_of(batch: pa.RecordBatch) -> Iterator[Mapping[str, object] | str]:
    """The batch's rows; of one that Python cannot hold, why not."""
    try:
        yield from batch.to_pylist()
    except MemoryError:
        raise
    except Exception:  # one by one, each row tells whether it was the one
        for i in range(len(batch)):
            try:
                yield batch.slice(i, 1).to_pylist()[0]
            except MemoryError:
                raise
            except UnicodeDecodeError:
                yield "not valid UTF-8"
            except Exception as error:  # dates beyond the year 9999, unknown time zones, …: arrow has many kinds
                yield f"a value that cannot be read: {said_by(error)}"
