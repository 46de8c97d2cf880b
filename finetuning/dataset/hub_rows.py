"""Reads the raw rows of a data set on the Hub, all of them or as many as are asked for."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, cast

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import (
    BuilderConfig,
    Dataset,
    DatasetBuilder,
    DownloadConfig,
    DownloadManager,
    Features,
    IterableDataset,
    load_dataset_builder,
)
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DatasetBuildError, DatasetNotFoundError, DatasetsError
from datasets.packaged_modules.csv.csv import Csv, CsvConfig
from datasets.packaged_modules.json.json import Json
from datasets.packaged_modules.parquet.parquet import Parquet
from datasets.table import table_cast
from huggingface_hub.errors import HfHubHTTPError

from finetuning.dataset.bounded_memory import MOST, bounded_memory
from finetuning.dataset.drawing import chosen_rows, too_few
from finetuning.dataset.file_rows import BATCH_ROWS, read_file, rows_of
from finetuning.dataset.files import SourceFile
from finetuning.dataset.raw_rows import Item, RawRow, Unreadable, row_item
from finetuning.errors import FinetuningError
from finetuning.hub_errors import explain
from finetuning.recipe.source import SourceSpec

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# What `datasets` raises about a data set that it did reach: its configurations, splits and files.
LIBRARY_ERRORS = (DatasetsError, EmptyDatasetError, pa.ArrowException, ValueError, RuntimeError)
# A streamed row is drawn from so many that were fetched; more are nearer to an even draw, and take memory.
BUFFER_ROWS = 2_000
# Files that are read here, row by row, wherever the library is not told how.
TEXT_KINDS = {"jsonl", "json", "csv", "tsv"}
# A row as it was, one that is JSON already, or why there is none.
Row = Mapping[str, object] | str | Item
T = TypeVar("T")


def read_hub(source: SourceSpec, *, revision: str, drawn: int, api: "HfApi", where: str) -> Iterator[Item]:
    """The rows of a data set, or `source.rows` of them that the seed `drawn` decides, with their numbers in it.

    The number of a streamed row is that in the stream: where in the data set it was, nobody says.

    Raises:
        FinetuningError: the data set cannot be read, or has fewer rows than that.
    """
    datasets.disable_progress_bars()
    name = " ".join(filter(None, [source.hub, source.config, source.split]))
    rows = _streamed if source.streaming else _stored
    read = 0
    try:
        for number, row in rows(source, revision, drawn, api, where):
            if isinstance(row, (RawRow, Unreadable)):
                yield row._replace(file=name, line=number)
            else:
                yield row_item(name, number, row)
            read += 1
        return
    except FinetuningError:
        raise
    except Exception as raised:
        # The library's words about a data set that may not be read name the public Hub, whatever hub it was.
        error = (_refusal(source, api) if isinstance(raised, DatasetNotFoundError) else None) or raised
        if _is_of_memory(error):
            known = FinetuningError(
                f"{where}.hub: {source.hub} at {revision} cannot be read: a few of its rows, after {read} that were, "
                f"take more than {MOST >> 30} GiB of memory. Leave out what makes them so large."
            )
        elif _is_of_data(error):
            known = FinetuningError(f"{where}.{_key_of(error)}: {source.hub} at {revision}: {_cause(error)}")
        else:
            known = explain(error, str(source.hub), api.endpoint, has_token=bool(api.token), revision=revision)
            known = type(known)(f"{where}: {known}")
    # Raised out here, so that the client's own error, which may hold the token, is no part of the traceback.
    raise known


def _stored(source: SourceSpec, revision: str, drawn: int, api: "HfApi", where: str) -> Iterator[tuple[int, Row]]:
    """The rows out of files on the disk that the library fetched and keeps, a batch in memory at a time."""
    with bounded_memory():
        builder = _builder(source, revision, api)
    way = _of_tables if isinstance(builder, Parquet) else _of_texts if _is_of_texts(builder) else None
    if way and not set(source.split) & set("[+"):
        files: Mapping[str, list[str]] = builder.config.data_files or {}
        if source.split not in files:
            raise ValueError(f'Unknown split "{source.split}". Should be one of {sorted(files)}.')
        download = DownloadManager(download_config=DownloadConfig(token=builder.token)).download
        paths = dict(zip(files[source.split], download(list(files[source.split])), strict=True))
        yield from way(builder, paths, source, drawn, where)
        return
    with bounded_memory():
        builder.download_and_prepare()
        rows = cast(Dataset, builder.as_dataset(split=source.split))
    chosen = chosen_rows(len(rows), source, drawn, where) if source.rows else np.arange(len(rows))
    if source.rows:
        rows = rows.select(chosen)
    numbers, mixed = iter((chosen + 1).tolist()), _mixed(rows.features)
    for found in _bounded(_decoded(batch, mixed) for batch in rows.with_format("arrow").iter(BATCH_ROWS)):
        yield from zip(islice(numbers, len(found)), found, strict=True)


def _is_of_texts(builder: DatasetBuilder) -> bool:
    """Whether its files are JSON or CSV, and the data set's card says nothing of how they are to be read."""
    files = [SourceFile(address, "") for split in (builder.config.data_files or {}).values() for address in split]
    kinds = {file.kind for file in files}
    if not isinstance(builder, (Json, Csv)) or builder.info.features or not kinds <= TEXT_KINDS:
        return False
    usual: Any = CsvConfig(sep="\t") if kinds == {"tsv"} else type(builder.config)()
    said = {field.name for field in fields(usual)} - {field.name for field in fields(BuilderConfig)}
    return all(getattr(builder.config, name) == getattr(usual, name) for name in said)


def _of_texts(
    builder: DatasetBuilder, paths: dict[str, str], source: SourceSpec, drawn: int, where: str
) -> Iterator[tuple[int, Row]]:
    """The rows of JSON and CSV files as they are written; `datasets` would give all of them the first one's types."""

    def items() -> Iterator[Item]:
        for address, path in paths.items():
            yield from read_file(SourceFile(address, path), f"{where}.hub")

    chosen, before = None, 0
    if source.rows:
        there = sum(isinstance(item, RawRow) for item in items())
        chosen = set(chosen_rows(there, source, drawn, where).tolist())
    for number, item in enumerate(items(), 1):
        if isinstance(item, Unreadable) or chosen is None or before in chosen:
            yield number, item
        before += isinstance(item, RawRow)


def _of_tables(
    builder: DatasetBuilder, files: dict[str, str], source: SourceSpec, drawn: int, where: str
) -> Iterator[tuple[int, Row]]:
    """The rows of Parquet files, which `datasets` would write out first, and a kilobyte can stand for gigabytes."""
    paths = list(files.values())
    with bounded_memory():
        counts = [pq.read_metadata(path).num_rows for path in paths]
        features = builder.info.features or Features.from_arrow_schema(pq.read_schema(paths[0]))
    chosen = chosen_rows(sum(counts), source, drawn, where) if source.rows else None
    schema, mixed, before = features.arrow_schema, _mixed(features), 0
    for path in paths:
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as table:
            # In this thread, for in another one memory that is not there can end the process.
            for batch in _bounded(table.iter_batches(BATCH_ROWS, use_threads=False)):
                numbers = np.arange(before, before + len(batch))
                before += len(batch)
                if chosen is not None:
                    numbers = chosen[slice(*np.searchsorted(chosen, [numbers[0], before]))]
                    batch = batch.take(pa.array(numbers - (before - len(batch))))
                if len(batch):
                    with bounded_memory():
                        found = _decoded(table_cast(pa.Table.from_batches([batch]), schema), mixed)
                    yield from zip((numbers + 1).tolist(), found, strict=True)


def _decoded(table: pa.Table, mixed: Features) -> list[Mapping[str, object] | str]:
    """The table's rows as they were; of one that Python cannot hold, why not."""
    rows = [row for batch in table.to_batches() for row in rows_of(batch)]
    return [row if isinstance(row, str) else {**row, **_plain(row, mixed)} for row in rows] if mixed else rows


def _plain(row: Mapping[str, object], mixed: Features) -> dict[str, Any]:
    return mixed.decode_example({name: row[name] for name in mixed})


def _mixed(features: Features) -> Features:
    """Columns whose rows differ in shape, which are kept as JSON text that only the library knows how to decode."""
    return Features({name: feature for name, feature in features.items() if "Json(" in repr(feature)})


def _bounded(items: Iterator[T]) -> Iterator[T]:
    """The same items, each of which may take no more memory than one may."""
    while True:
        with bounded_memory():
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


def _streamed(source: SourceSpec, revision: str, drawn: int, api: "HfApi", where: str) -> Iterator[tuple[int, Row]]:
    """As many rows as are asked for, of shuffled files through a buffer; little more than both is fetched."""
    with bounded_memory():
        builder = _builder(source, revision, api)
        if isinstance(builder, Parquet):
            # Or a group of rows is read at once, which may be all of them.
            cast(Any, builder.config).batch_size = BATCH_ROWS
        rows = cast(IterableDataset, builder.as_streaming_dataset(source.split))
    wanted, number = int(source.rows or 0), 0
    chosen = rows.shuffle(drawn, buffer_size=BUFFER_ROWS).take(wanted)
    for number, row in enumerate(_bounded(iter(chosen)), 1):
        yield number, cast(Mapping[str, object], row)
    if number < wanted and not source.at_most:
        raise too_few(number, source, where)


def _builder(source: SourceSpec, revision: str, api: "HfApi") -> DatasetBuilder:
    """What reads the data set: `datasets` finds out which of its files are the rows of what."""
    return load_dataset_builder(str(source.hub), source.config, revision=revision, token=api.token or False)


def _refusal(source: SourceSpec, api: "HfApi") -> Exception | None:
    """What the hub itself says to somebody who may not read the data set."""
    try:
        api.auth_check(str(source.hub), repo_type="dataset")
    except Exception as error:
        return error
    return None


def _is_of_data(error: Exception) -> bool:
    """Whether it is about a data set that was reached."""
    if type(error) is OSError:  # what the system refuses has a number, and a damaged file has none
        return error.errno is None
    return isinstance(error, LIBRARY_ERRORS) and not isinstance(error, (HfHubHTTPError, UnicodeError))


def _is_of_memory(error: BaseException) -> bool:
    """Whether the innermost cause is memory that a bound refused."""
    while error.__cause__:
        error = error.__cause__
    return isinstance(error, MemoryError)


def _key_of(error: Exception) -> str:
    """The key of the source that the library's message is about."""
    words = {"config": "config", "split": "split", "instruction": "split"}
    return next((key for word, key in words.items() if word in str(error).lower()), "hub")


def _cause(error: BaseException) -> str:
    """What the library says, from the innermost error that it raised on purpose, on one line."""
    while isinstance(error, DatasetBuildError) and error.__cause__:
        error = error.__cause__
    if "corresponds to no data" in str(error):
        return "it holds no rows"
    said = str(error).partition("Example of usage")[0] or type(error).__name__
    return " ".join(said.split())[:500]
