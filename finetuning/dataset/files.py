"""Finds the files that a source names, here or at any address that fsspec reads, and opens them.

"data/*.jsonl" -> data/a.jsonl, data/b.jsonl.gz
"s3://bucket/chats/*.parquet" -> s3://bucket/chats/2025.parquet
"""

import bz2
import gzip
import io
import lzma
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from finetuning import git_lfs
from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.public_names import without_secrets
from finetuning.recipe.local_files import PATTERN_ADVICE, local_paths

KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}

COMPRESSIONS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}

FIRST_BYTES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}

BUFFER_BYTES = 1 << 20
LOOKED_AT = 1_000  # files of a folder


@dataclass(frozen=True)
class SourceFile:
    """One file: `name` is what messages and places show, `path` what its file system knows it by."""

    name: str
    path: str
    system: Any = None  # an fsspec file system; None for a file of this machine

    @property
    def kind(self) -> str | None:
        """`jsonl`, `json`, `csv`, `tsv` or `parquet`, by its name; None where that says nothing."""
        return KINDS.get(self._plain.suffix)

    @property
    def compression(self) -> str | None:
        """What its name says that it is compressed by."""
        return COMPRESSIONS.get(self._last.suffix)

    @property
    def _plain(self) -> PurePosixPath:
        return self._last.with_suffix("") if self.compression else self._last

    @property
    def _last(self) -> PurePosixPath:
        return PurePosixPath(PurePosixPath(self.name.partition("::")[0]).name.lower())


def matching_files(patterns: tuple[str, ...], where: str) -> list[SourceFile]:
    """The files that `patterns` match, pattern by pattern, each one once; paths are relative to the working directory.

    Raises:
        FinetuningError: a pattern matches no file, or its address cannot be reached.
    """
    matched: dict[tuple[str, str], SourceFile] = {}
    for pattern in patterns:
        found = _remote(pattern, where) if "://" in pattern or "::" in pattern else _local(pattern, where)
        for file in found:
            matched.setdefault((file.path, str(file.system)), file)
    return list(matched.values())


def _local(pattern: str, where: str) -> list[SourceFile]:
    matched = local_paths(pattern, where)
    files = [found for found in matched if found.is_file()]
    if not files:
        kind = "a folder" if matched[0].is_dir() else "a link that leads to no file"
        advice = _within(matched[0]) if matched[0].is_dir() else "a file"
        raise FinetuningError(f"{where}.files: {pattern!r}: {matched[0]} is {kind}. Name {advice} instead.")
    strange = next((str(found) for found in files if not _is_text(str(found))), None)
    if strange:
        shown = strange.encode(errors="replace").decode()
        raise FinetuningError(f"{where}.files: the name of {shown} is not UTF-8. Rename it.")
    return [SourceFile(str(found), str(found)) for found in files]


def _within(folder: Path) -> str:
    """What to name in place of a folder, by what lies in it: rows before anything else."""
    files = [path for path in islice(folder.rglob("*"), LOOKED_AT) if path.is_file() and path.suffix]
    if not files:
        return f"{folder}/*.jsonl"
    found = Counter(
        "".join(path.suffixes[-2:] if path.suffix in COMPRESSIONS else path.suffixes[-1:]) for path in files
    )
    ending = max(sorted(found), key=lambda ending: (f".{ending.split('.')[1]}" in KINDS, found[ending]))
    if ending == ".arrow":
        return "what `Dataset.to_parquet` writes, for this is what `save_to_disk` wrote,"
    return f"{folder}/{'' if any(folder.glob(f'*{ending}')) else '**/'}*{ending}"


def _is_text(name: str) -> bool:
    """Whether a file's name is Unicode; the system allows any bytes, which Python keeps as halves of surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _remote(pattern: str, where: str) -> list[SourceFile]:
    shown = without_secrets(pattern)
    try:
        system, path = fsspec.core.url_to_fs(pattern)
        if isinstance(system, LocalFileSystem):
            return _local(path, where)
        system.invalidate_cache()
        # In an address of the web, `?` begins the query.
        if not any(sign in path for sign in ("*[" if path.startswith("http") else "*?[")):
            kind = system.info(path)["type"]
            found = {shown: path} if kind == "file" else {}
        else:
            listed = system.glob(path, detail=True)
            found = {
                without_secrets(system.unstrip_protocol(path)): path
                for path, info in sorted(listed.items())
                if info["type"] == "file"
            }
    except FinetuningError:
        raise
    except Exception as error:
        raise _unreachable(shown, error, f"{where}.files") from error
    if not found:
        raise FinetuningError(
            f"{where}.files: no file matches {shown!r}. Check the address; a folder's files are `{shown}/*.jsonl`."
        )
    return [SourceFile(name, path, system) for name, path in found.items()]


def _unreachable(name: str, error: Exception, where: str) -> FinetuningError:
    # An error of a web server has the whole address in it.
    said = re.sub(r"https?://[^\s'\"]+", lambda found: without_secrets(found[0]), said_by(error))
    advice = "Check the address, the network and the credentials, and run it again."
    if isinstance(error, ValueError) and "pattern" in said:
        advice = PATTERN_ADVICE
    if isinstance(error, ImportError):
        said = str(error)  # fsspec's own words, which name the package
        advice = "Install what is missing with `.venv/bin/pip install`, and run it again."
    if isinstance(error, ValueError) and "Protocol not known" in said:
        advice = "Write one that fsspec knows, such as s3://, gs://, az:// or https://."
    # Of a wrong address the recipe is to blame; of the rest, the network, or whoever keeps the credentials.
    of_recipe = isinstance(error, (FileNotFoundError, ImportError, ValueError))
    mistake = FinetuningError if of_recipe else InfrastructureError
    return mistake(f"{where}: {name} cannot be reached: {said}. {advice}")


def said_by(error: BaseException) -> str:
    """What the innermost cause of an error says, on one line without a full stop; its kind, where it says nothing."""
    while error.__cause__:
        error = error.__cause__
    said = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return " ".join(said.split())[:300].rstrip(". ") or type(error).__name__


def file_info(file: SourceFile, where: str) -> Mapping[str, object]:
    """Return what a remote file's file system knows of it; an empty mapping for a file of this machine.

    Raises:
        FinetuningError: it does not answer.
    """
    try:
        return dict(file.system.info(file.path)) if file.system else {}
    except Exception as error:
        raise _unreachable(file.name, error, where) from error


@contextmanager
def opened(file: SourceFile, where: str) -> Iterator[BinaryIO]:
    """The file's bytes as they lie there. Every error of reading them names the file.

    Raises:
        FinetuningError: the file cannot be opened; reading raises it too.
    """
    try:
        # One request for the whole file, which is read once from its beginning to its end.
        options = {"block_size": 0} if file.path.startswith("http") else {}
        raw = file.system.open(file.path, "rb", **options) if file.system else io.FileIO(file.path)
    except Exception as error:
        raise _unreadable(file, error, where) from error
    with raw:
        yield _buffered(raw.read, lambda error: _unreadable(file, error, where))


@contextmanager
def decompressed(file: SourceFile, where: str) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed by what they begin with; the name only has to agree that they are compressed.

    Raises:
        FinetuningError: the file cannot be opened, or is no data of the kind that its name says.
    """
    with opened(file, where) as stream:
        start = cast(io.BufferedReader, stream).peek(len(git_lfs.BEGINS))
        if start.startswith(git_lfs.BEGINS):
            raise FinetuningError(f"{where}: {file.name} {git_lfs.IS_A_POINTER}.")
        first = start[:8]
        found = next((name for start, name in FIRST_BYTES.items() if first.startswith(start)), None)
        if found == "zip":
            raise FinetuningError(
                f"{where}: {file.name} is a zip archive. Unpack it, or write `zip://*::{file.name}`, with the "
                "pattern of the files in it before the two colons."
            )
        # A web server may have decompressed it on the way.
        if file.compression and not found and first and file.system is None:
            raise FinetuningError(
                f"{where}: {file.name} cannot be read: its name says {file.compression}, and it begins with "
                f"{first!r}, which is no {file.compression} data. Rename it, or fetch it again."
            )
        if found is None:
            yield stream
            return
        with DECOMPRESSORS[found](stream) as plain:
            yield _buffered(plain.read, lambda error: _damaged(file, found, error, where))


def _zstd(stream: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd"))


DECOMPRESSORS: dict[str, Callable[[BinaryIO], Any]] = {
    "gzip": lambda stream: gzip.GzipFile(fileobj=stream),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "zstd": _zstd,
}


class _Raw(io.RawIOBase):
    """What `read` gives, with its errors made a user's."""

    def __init__(self, read: Callable[[int], bytes], mistake: Callable[[Exception], FinetuningError]) -> None:
        self._read, self._mistake = read, mistake

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        filled = 0
        while filled < len(buffer):
            try:
                piece = self._read(len(buffer) - filled)
            except FinetuningError:
                raise
            except Exception as error:
                raise self._mistake(error) from error
            if not piece:
                break
            buffer[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled


def _buffered(read: Callable[[int], bytes], mistake: Callable[[Exception], FinetuningError]) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Raw(read, mistake), BUFFER_BYTES))


def _unreadable(file: SourceFile, error: Exception, where: str) -> FinetuningError:
    if file.system is not None:
        return _unreachable(file.name, error, where)
    return FinetuningError(f"{where}: {file.name} cannot be read: {said_by(error)}.")


def _damaged(file: SourceFile, compression: str, error: Exception, where: str) -> FinetuningError:
    return FinetuningError(
        f"{where}: {file.name} cannot be read: its {compression} data is damaged or cut short "
        f"({said_by(error)}). Fetch or make it again."
    )
