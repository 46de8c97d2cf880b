"""Reads the documents that a recipe names, and keeps each as Markdown under a name of its own.

documents.parquet   name, text: one row a document
unreadable.parquet  name, reason: those that no text could be read from
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from finetuning.checks.counted import Counted, Example
from finetuning.checks.judgement import EXAMPLES
from finetuning.dataset import product_manuals, revisions
from finetuning.dataset.files import decompressed, matching_files
from finetuning.dataset.raw_dataset import read as read_rows
from finetuning.dataset.raw_rows import RawRow
from finetuning.errors import FinetuningError
from finetuning.knowledge.extraction import MOST_BYTES, UnreadableText, kind_of, text_of
from finetuning.knowledge.summaries import Collection, DocumentsSummary, UnreadableDocument
from finetuning.public_names import without_secrets
from finetuning.recipe.knowledge import DocumentsSpec
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.source import SourceSpec
from finetuning.secrets import find_secret

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DOCUMENTS, UNREADABLE = "documents.parquet", "unreadable.parquet"
SCHEMA = pa.schema([("name", pa.string()), ("text", pa.string())])
FAULTS = pa.schema([("name", pa.string()), ("reason", pa.string())])
SHOWN = 10
GROUP_ROWS, GROUP_CHARACTERS = 1_000, 16 << 20


class Document(NamedTuple):
    """A document: the name that rows and citations call it by, and its text in Markdown."""

    name: str
    text: str


Found = Document | UnreadableDocument


def collections(recipe: Recipe) -> dict[str, DocumentsSpec]:
    """The collections of a recipe with `knowledge`, by their places in it."""
    documents = recipe.knowledge.documents if recipe.knowledge else ()
    return {f"knowledge.documents[{number}]": spec for number, spec in enumerate(documents)}


def resolve_all(recipe: Recipe, api: "HfApi") -> dict[str, str]:
    """Return the revision of every collection, by its place in the recipe.

    Raises:
        FinetuningError: one of them is not there, or may not be read.
    """
    return {place: _resolve(spec, api, f"{recipe.file}: {place}") for place, spec in collections(recipe).items()}


def _resolve(spec: DocumentsSpec, api: "HfApi", where: str) -> str:
    if spec.generator:
        return f"{spec.generator}@{product_manuals.VERSION}"
    # A document is called by its path, in rows and in citations.
    return revisions.resolve(as_source(spec), api=api, where=where, by_path=True)


def as_source(spec: DocumentsSpec) -> SourceSpec:
    """The same data set or files as a source of rows."""
    if spec.files:
        return SourceSpec(files=spec.files)
    return SourceSpec(hub=spec.hub, config=spec.config, split=spec.split, revision=spec.revision)


def write_documents(recipe: Recipe, known: Mapping[str, str], folder: Path, api: "HfApi") -> DocumentsSummary:
    """Write every document of every collection into `folder`; return what they are.

    Args:
        known: the revision of each collection, as `resolve_all` gives them.

    Raises:
        FinetuningError: a collection cannot be read, two documents have one name, or no text was found at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Collection] = []
    names, faults, characters = set[str](), list[UnreadableDocument](), 0
    with pq.ParquetWriter(folder / DOCUMENTS, SCHEMA) as writer:
        waiting: list[Document] = []
        for place, spec in collections(recipe).items():
            where, documents, before = f"{recipe.file}: {place}", 0, len(faults)
            for one in read(spec, known[place], api, where):
                if isinstance(one, UnreadableDocument):
                    faults.append(one)
                    continue
                if one.name in names:
                    raise FinetuningError(f"{where}: two documents are named {one.name!r}. Name each once.")
                names.add(one.name)
                waiting.append(one)
                documents, characters = documents + 1, characters + len(one.text)
                if len(waiting) == GROUP_ROWS or sum(map(len, (d.text for d in waiting[-50:]))) > GROUP_CHARACTERS:
                    _write(writer, waiting)
            found.append(Collection(describe(spec), known[place], documents, len(faults) - before))
        _write(writer, waiting)
    rows = {"name": [fault.name for fault in faults], "reason": [fault.reason for fault in faults]}
    pq.write_table(pa.table(rows, schema=FAULTS), folder / UNREADABLE)
    if not names:
        told = "; ".join(f"{fault.name}: {fault.reason}" for fault in faults[:5])
        raise FinetuningError(f"{recipe.file}: knowledge.documents: no text in any of them. {told}.")
    return DocumentsSummary(
        documents=len(names),
        characters=characters,
        unreadable=len(faults),
        unreadable_examples=faults[:SHOWN],
        checks={"unreadable_documents": _counted(faults, len(names) + len(faults))},
        collections=found,
    )


def _counted(faults: list[UnreadableDocument], of: int) -> Counted:
    return Counted(len(faults), of, [Example(fault.name, "", fault.reason) for fault in faults[:EXAMPLES]])


def _write(writer: pq.ParquetWriter, waiting: list[Document]) -> None:
    if waiting:
        columns = [pa.array(column, pa.string()) for column in zip(*waiting, strict=True)]
        writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
        waiting.clear()


def describe(spec: DocumentsSpec) -> str:
    """Where a collection comes from, in words without secrets."""
    if spec.files:
        return ", ".join(map(without_secrets, spec.files))
    return " ".join(filter(None, (spec.hub, spec.config, spec.split))) if spec.hub else str(spec.generator)


def read(spec: DocumentsSpec, revision: str, api: "HfApi", where: str) -> Iterator[Found]:
    """Yield the documents of a collection, and those that no text can be read from.

    Raises:
        FinetuningError: it cannot be read at all.
    """
    if spec.generator:
        return (Document(*manual) for manual in product_manuals.manuals())
    return _of_files(spec.files, where) if spec.files else _of_hub(spec, revision, api, where)


def _of_files(patterns: tuple[str, ...], where: str) -> Iterator[Found]:
    for file in matching_files(patterns, where):
        try:
            kind = kind_of(file.name)
            with decompressed(file, f"{where}.files") as stream:
                content = stream.read(MOST_BYTES[kind] + 1) if kind else b""
            yield Document(file.name, text_of(file.name, content))
        except UnreadableText as reason:
            yield UnreadableDocument(file.name, str(reason))
        except FinetuningError as reason:
            if file.system is not None:  # a network that is out is no fault of the document
                raise
            yield UnreadableDocument(file.name, str(reason).removeprefix(f"{where}.files: "))


def _of_hub(spec: DocumentsSpec, revision: str, api: "HfApi", where: str) -> Iterator[Found]:
    items = read_rows(as_source(spec), revision=revision, seed=0, api=api, where=where)
    for item in items:
        if not isinstance(item, RawRow):
            yield UnreadableDocument(f"{item.file}:{item.line}", item.reason)
            continue
        row, place = orjson.loads(item.text), f"{item.file}:{item.line}"
        named = row.get(spec.name) if spec.name else None
        name = str(named) if named not in (None, "") else place
        if spec.text not in row:
            yield UnreadableDocument(name, f"no column {spec.text!r} in the row; it has {', '.join(row)}"[:300])
            continue
        try:
            text = row[spec.text]
            yield Document(name, text_of("row.md", text.encode(errors="replace") if isinstance(text, str) else b""))
        except UnreadableText as reason:
            yield UnreadableDocument(name, str(reason))


def documents_in(folder: Path) -> Iterable[Document]:
    """Yield the documents that `write_documents` wrote, a row group in memory at a time."""
    with pq.ParquetFile(folder / DOCUMENTS) as file:
        for group in range(file.num_row_groups):
            names, texts = (column.to_pylist() for column in file.read_row_group(group).columns)
            yield from map(Document, names, texts)


def with_secrets(folder: Path) -> frozenset[str]:
    """The names of documents that hold text that looks like a secret.

    Parts of these are shown to nobody: of a key that was cut, neither half looks like one.
    """
    return frozenset(document.name for document in documents_in(folder) if find_secret(document.text))
