"""Reads the raw rows that a recipe's sources name, and keeps them as they are, a Parquet file for each source."""

import gzip
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pandas
from datasets import Dataset, Features, Value
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DatasetBuildError, DatasetsError
from huggingface_hub.errors import HfHubHTTPError

from finetuning import linear_equations
from finetuning.errors import FinetuningError
from finetuning.formats import OPTIONAL_COLUMNS
from finetuning.hub_errors import explain
from finetuning.recipe import FORMAT_COLUMNS, DatasetSpec, SourceSpec
from finetuning.recipe_errors import nearest
from finetuning.source_revisions import matching_files, sources

if TYPE_CHECKING:
    from huggingface_hub import HfApi

BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
# What `datasets` raises about a data set that it did reach: its configurations, splits and files.
LIBRARY_ERRORS = (DatasetsError, EmptyDatasetError, ValueError, RuntimeError)
PREVIEW_ROWS, PREVIEW_CHARACTERS = 5, 200


def write_raw(
    dataset: DatasetSpec, revisions: Mapping[str, str], folder: Path, *, api: "HfApi", file: str
) -> dict[str, Any]:
    """`rows` (of all sources), `sources` (a record for each) and `preview` (the first rows) of what is now in `folder`.

    Writes `train-00.parquet`, … for `dataset.sources`, and `eval-00.parquet`, … for `dataset.eval.sources`.

    Args:
        revisions: of every source, as `source_revisions.resolve_all` gives them.
        file: the recipe's, for messages.

    Raises:
        FinetuningError: a source can not be read, has too few rows, or lacks a column that its format needs.
    """
    datasets.disable_progress_bars()
    folder.mkdir(parents=True, exist_ok=True)
    records, preview = [], []
    for stem, (source, path) in sources(dataset).items():
        where = f"{file}: {path}"
        rows = read(source, revision=revisions[stem], seed=dataset.seed, stream=stem, api=api, where=where)
        check_columns(rows.column_names, source, where)
        rows.to_parquet(str(folder / f"{stem}.parquet"))
        records.append(
            {
                "source": describe(source),
                "revision": revisions[stem],
                "rows": len(rows),
                "split": stem.partition("-")[0],
            }
        )
        if not preview:
            first = rows.select(range(min(PREVIEW_ROWS, len(rows)))).to_list()
            preview = [{column: _short(value) for column, value in row.items()} for row in first]
    return {"rows": sum(record["rows"] for record in records), "sources": records, "preview": preview}


def read(source: SourceSpec, *, revision: str, seed: int, stream: str, api: "HfApi", where: str) -> Dataset:
    """The raw rows of one source, in an order that the seed decides where only some of them are taken.

    Args:
        revision: the commit to read, for a Hub data set.
        stream: what the rows are for, such as `train-00`: streams of one seed differ.
        where: the source's place, such as `recipes/phi-2.yaml: dataset.sources[0]`.

    Raises:
        FinetuningError: the source can not be read, or has fewer than `source.rows` rows.
    """
    drawn = int.from_bytes(hashlib.sha256(f"{seed} {stream}".encode()).digest()[:8])
    if source.generator:
        return Dataset.from_list(list(linear_equations.generate(source.rows or 0, drawn)))
    rows = _read_hub(source, revision, api, where) if source.hub else _read_files(source, where)
    if source.rows is None:
        return rows
    if source.rows > len(rows):
        raise FinetuningError(
            f"{where}.rows: {source.rows} rows are asked for, and {describe(source)} has {len(rows)}. Ask for at most "
            "that many, or leave `rows` out to take them all."
        )
    return rows.shuffle(seed=drawn).select(range(source.rows))


def describe(source: SourceSpec) -> str:
    """The source in a few words: `openai/gsm8k (main, train)`, `data/*.jsonl`, or `linear-equations`."""
    if source.hub:
        return f"{source.hub} ({', '.join(filter(None, [source.config, source.split]))})"
    return ", ".join(source.files) if source.files else str(source.generator)


def check_columns(present: list[str], source: SourceSpec, where: str) -> None:
    """Nothing, when the columns that the source's format needs are all among those `present`.

    Raises:
        FinetuningError: some are not; a line for each.
    """
    optional = OPTIONAL_COLUMNS.get(source.format, ())
    named = {
        name: str(source.columns.get(name, name))
        for name in FORMAT_COLUMNS[source.format]
        if name in source.columns or name not in optional
    }
    missing = {name: column for name, column in named.items() if column not in present}
    if missing:
        raise FinetuningError(
            "\n".join(
                f"{where}.columns.{name}: the data set {describe(source)} has no column {column!r}; it has "
                f"{', '.join(present) or 'none'}{nearest(column, present)}"
                for name, column in missing.items()
            )
        )


def _read_hub(source: SourceSpec, revision: str, api: "HfApi", where: str) -> Dataset:
    repo_id = str(source.hub)
    try:
        return datasets.load_dataset(
            repo_id, source.config, split=source.split, revision=revision, token=api.token or False
        )
    except Exception as error:
        if isinstance(error, LIBRARY_ERRORS) and not isinstance(error, (HfHubHTTPError, UnicodeError)):
            reason = f"{where}.{_key_of(error)}: {repo_id} at {revision}: {_cause(error)}"
        else:
            reason = f"{where}: {explain(error, repo_id, api.endpoint, has_token=bool(api.token), revision=revision)}"
    # Raised out here, so that the client's own error, which may hold the token, is no part of the traceback.
    raise FinetuningError(reason)


def _key_of(error: Exception) -> str:
    """The key of the source that the library's message is about."""
    words = {"config": "config", "split": "split", "instruction": "split"}
    return next((key for word, key in words.items() if word in str(error).lower()), "hub")


def _read_files(source: SourceSpec, where: str) -> Dataset:
    files = matching_files(source.files or (), where)
    kinds = {path: BUILDERS.get(Path(path.name.lower().removesuffix(".gz")).suffix) for path in files}
    strange = next((path for path, kind in kinds.items() if kind is None), None)
    if strange:
        raise FinetuningError(
            f"{where}.files: {strange} is of no kind that can be read; its name must end in {', '.join(BUILDERS)}, or "
            "in one of these and .gz."
        )
    if len(set(kinds.values())) > 1:
        raise FinetuningError(
            f"{where}.files: {', '.join(map(str, files[:10]))} are of several kinds; make each kind a source by itself."
        )
    empty = next((path for path in files if path.stat().st_size == 0), None)
    if empty:
        raise FinetuningError(f"{where}.files: {empty} is empty. Fill it, or leave it out.")
    return _load_files(str(kinds[files[0]]), files, where)


def _load_files(builder: str, files: list[Path], where: str) -> Dataset:
    try:
        return datasets.load_dataset(
            builder, data_files=[str(path) for path in files], split="train", **_options(builder, files)
        )
    except Exception as error:
        # The library does not say which file it was; alone, each of them tells.
        for path in files if len(files) > 1 else []:
            _load_files(builder, [path], where)
        named = ", ".join(map(str, files[:10]))
        line = _bad_json_line(files[0]) if builder == "json" and len(files) == 1 else None
        raise FinetuningError(f"{where}.files: {named} can not be read: {line or _cause(error)}") from error


def _options(builder: str, files: list[Path]) -> dict[str, Any]:
    if builder != "csv":
        return {}
    # CSV has no types: guessed ones would turn the answer "05" into 5, and the word "NA" into nothing.
    columns = pandas.read_csv(files[0], nrows=0).columns
    return {"features": Features({column: Value("string") for column in columns}), "keep_default_na": False}


def _bad_json_line(path: Path) -> str | None:
    """What is wrong with a JSON file, and in which line (from 1); None where Python's own reader finds no fault."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = content.decode(errors="replace")
    if not text.strip():
        return "it is empty"
    try:
        if text.lstrip().startswith("["):
            json.loads(text)
            return None
    except json.JSONDecodeError as error:
        return f"line {error.lineno}: {error.msg}"
    for number, line in enumerate(text.split("\n"), 1):
        try:
            if line.strip() and not isinstance(json.loads(line), dict):
                return f"line {number}: {line[:40]} is no JSON object"
        except json.JSONDecodeError as error:
            return f"line {number}: {error.msg} at character {error.pos + 1}"
    return None


def _cause(error: BaseException) -> str:
    """What the library says, from the innermost error that it raised on purpose, on one line."""
    while isinstance(error, DatasetBuildError) and error.__cause__:
        error = error.__cause__
    if "corresponds to no data" in str(error):
        return "it holds no rows"
    said = str(error).partition("Example of usage")[0] or type(error).__name__
    return " ".join(said.split())[:500]


def _short(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= PREVIEW_CHARACTERS else text[: PREVIEW_CHARACTERS - 1] + "…"
