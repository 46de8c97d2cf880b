"""Reads the raw rows of a data set on the Hub, all of them or as many as are asked for."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, IterableDataset
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DatasetBuildError, DatasetNotFoundError, DatasetsError
from huggingface_hub.errors import HfHubHTTPError

from finetuning.dataset.drawing import chosen_rows, too_few
from finetuning.dataset.raw_rows import Item, row_item
from finetuning.errors import FinetuningError
from finetuning.hub_errors import explain
from finetuning.recipe.dataset import SourceSpec

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# What `datasets` raises about a data set that it did reach: its configurations, splits and files.
LIBRARY_ERRORS = (DatasetsError, EmptyDatasetError, ValueError, RuntimeError)
# A streamed row is drawn from so many that were fetched; more are nearer to an even draw, and take memory.
BUFFER_ROWS = 2_000
BATCH_ROWS = 500


def read_hub(source: SourceSpec, *, revision: str, drawn: int, api: "HfApi", where: str) -> Iterator[Item]:
    """The rows of a data set, or `source.rows` of them that the seed `drawn` decides, with their numbers in it.

    The number of a streamed row is that in the stream: where in the data set it was, nobody says.

    Raises:
        FinetuningError: the data set cannot be read, or has fewer rows than that.
    """
    datasets.disable_progress_bars()
    name = " ".join(filter(None, [source.hub, source.config, source.split]))
    rows = _streamed if source.streaming else _stored
    try:
        for number, row in rows(source, revision, drawn, api, where):
            yield row_item(name, number, row)
        return
    except FinetuningError:
        raise
    except Exception as raised:
        # The library's words about a data set that may not be read name the public Hub, whatever hub it was.
        error = (_refusal(source, api) if isinstance(raised, DatasetNotFoundError) else None) or raised
        if isinstance(error, LIBRARY_ERRORS) and not isinstance(error, (HfHubHTTPError, UnicodeError)):
            known = FinetuningError(f"{where}.{_key_of(error)}: {source.hub} at {revision}: {_cause(error)}")
        else:
            known = explain(error, str(source.hub), api.endpoint, has_token=bool(api.token), revision=revision)
            known = type(known)(f"{where}: {known}")
    # Raised out here, so that the client's own error, which may hold the token, is no part of the traceback.
    raise known


def _stored(
    source: SourceSpec, revision: str, drawn: int, api: "HfApi", where: str
) -> Iterator[tuple[int, Mapping[str, object]]]:
    """The rows out of files on the disk that the library fetched and keeps, a batch in memory at a time."""
    rows = cast(Dataset, _load(source, revision, api))
    chosen = chosen_rows(len(rows), source, drawn, where) if source.rows else np.arange(len(rows))
    if source.rows:
        rows = rows.select(chosen)
    # Columns whose rows differ in shape are kept as JSON text, which only the library knows how to decode.
    mixed = Features({name: feature for name, feature in rows.features.items() if "Json(" in repr(feature)})
    numbers = iter(chosen + 1)
    for table in rows.with_format("arrow").iter(BATCH_ROWS):
        for row in cast(pa.Table, table).to_pylist():
            if mixed:
                row |= mixed.decode_example({name: row[name] for name in mixed})
            yield int(next(numbers)), row


def _streamed(
    source: SourceSpec, revision: str, drawn: int, api: "HfApi", where: str
) -> Iterator[tuple[int, Mapping[str, object]]]:
    """As many rows as are asked for, of shuffled files through a buffer; little more than both is fetched."""
    rows = cast(IterableDataset, _load(source, revision, api, streaming=True))
    wanted, number = int(source.rows or 0), 0
    for number, row in enumerate(rows.shuffle(drawn, buffer_size=BUFFER_ROWS).take(wanted), 1):
        yield number, cast(Mapping[str, object], row)
    if number < wanted and not source.at_most:
        raise too_few(number, source, where)


def _load(source: SourceSpec, revision: str, api: "HfApi", **options: Any) -> Any:
    return datasets.load_dataset(
        str(source.hub), source.config, split=source.split, revision=revision, token=api.token or False, **options
    )


def _refusal(source: SourceSpec, api: "HfApi") -> Exception | None:
    """What the hub itself says to somebody who may not read the data set."""
    try:
        api.auth_check(str(source.hub), repo_type="dataset")
    except Exception as error:
        return error
    return None


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
