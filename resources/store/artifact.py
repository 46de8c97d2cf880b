"""One complete output of an asset: a folder, and the `artifact.json` that tells how it came to be."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from math import isfinite
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import dagster as dg
from pydantic import JsonValue

from finetuning.digests import sha256
from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.record import Record

Log = Callable[[str], None]

LOG = logging.getLogger(__name__).info

MANIFEST = "artifact.json"

PACKAGES = (
    "accelerate",
    "bitsandbytes",
    "dagster",
    "datasets",
    "flash-attn",
    "huggingface_hub",
    "peft",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
)


class Beside(NamedTuple):
    """An artifact that an asset makes beside its own, in the folder of what it is about."""

    about: str
    """The asset whose fingerprint names that folder."""
    made_with: str


BESIDE = {
    "base_answers": Beside("quantized_base_model", "evaluation_report"),
    "base_benchmarks": Beside("quantized_base_model", "evaluation_report"),
    "published_answers": Beside("lora_adapter", "evaluation_report"),
    "variant_state": Beside("chat_dataset", "variants"),
}

LONGEST_NAME = 255  # bytes, on all common file systems

Summary = TypeVar("Summary", bound=Record)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What an artifact is, and what it is made of."""

    asset: str
    partition: str
    inputs: dict[str, str]
    """Fingerprints of the artifacts that it is made from, by their asset."""
    sections: dict[str, Any]
    """What the asset reads of the recipe."""
    resolved: dict[str, Any]
    """What that stands for today: commits, the content of files."""
    smoke: bool = False
    """Whether a smoke run makes it, so that it proves nothing."""
    contents: dict[str, str] = field(default_factory=dict)
    """The content of each input, by asset. It is no part of the fingerprint."""

    def as_json(self) -> dict[str, JsonValue]:
        """Return it as the JSON that a fingerprint is made of."""
        content = {name: getattr(self, name) for name in ("asset", "partition", "inputs", "sections", "resolved")}
        return content | ({"smoke": True} if self.smoke else {})


@dataclass(frozen=True, kw_only=True)
class Artifact(Origin):
    """One complete output of one asset for one partition, as its `artifact.json` tells it."""

    fingerprint: str
    path: Path
    """Its folder on this machine."""
    summary: dict[str, Any]
    files: dict[str, str]
    """The sha256 of each file, by its name relative to `path`."""
    versions: dict[str, str]
    bytes: int
    seconds: float
    created: str
    reused: bool = field(default=False, compare=False)
    address: str = field(default="", compare=False)
    """Where it is stored, if that is not `path`."""

    @property
    def is_shared(self) -> bool:
        """Whether all partitions share it that have the same: its home is named by its fingerprint."""
        return self.partition == self.fingerprint

    @property
    def content(self) -> str:
        """What its files hold, as sixteen hexadecimal digits: another training of one fingerprint has another one."""
        return fingerprint_of(self.files)

    def metadata(self) -> dict[str, dg.MetadataValue | str | bool | float]:
        """What every materialization shows: `fingerprint`, `reused`, `seconds` (spent this time), `path`."""
        return {
            "fingerprint": self.fingerprint,
            "reused": self.reused,
            "seconds": round(self.seconds, 2),
            "path": dg.MetadataValue.path(self.address or str(self.path)),
            **({"smoke": True} if self.smoke else {}),
        }

    def place(self) -> str:
        """Return where it is stored, and its folder on this machine where that is another place."""
        return f"{self.address} (here: {self.path})" if self.address else str(self.path)

    def read(self, kind: type[Summary]) -> Summary:
        """Return the summary as the record that the step before wrote.

        Raises:
            FinetuningError: another release wrote it, or it was changed.
        """
        return kind.of(self.summary, str(self.path / MANIFEST))

    def require_inputs(self, *inputs: "Artifact") -> None:
        """Check that this artifact was made from these very ones.

        Raises:
            FinetuningError: it was made from others; what it says is not about these.
        """
        for artifact in inputs:
            made_from = self.inputs.get(artifact.asset)
            if made_from != artifact.fingerprint:
                raise FinetuningError(
                    f"{self.partition}: the {self.asset} in force ({self.fingerprint}) was made from {artifact.asset} "
                    f"{made_from}, and the one in force now is {artifact.fingerprint}. Materialize {self.asset} for "
                    f"{self.partition} first, and what lies between."
                )
            if self.contents.get(artifact.asset, artifact.content) != artifact.content:
                raise FinetuningError(
                    f"{self.partition}: the {artifact.asset} in force ({artifact.fingerprint}) was made once more "
                    f"since {self.asset} {self.fingerprint} was made from it, and its files are others. Materialize "
                    f"{self.asset} for {self.partition} first, and what lies between."
                )

    def verify(self) -> None:
        """Check that every file is what was written.

        Raises:
            FinetuningError: a file is missing, was added, or has other contents than its recorded sha256.
        """
        found = {name: sha256(self.path / name) for name in content_of(self.path)}
        changed = sorted(name for name in found.keys() | self.files.keys() if found.get(name) != self.files.get(name))
        if changed:
            beside = BESIDE.get(self.asset)
            whose = "a recipe that uses it" if self.is_shared or beside else self.partition
            raise InfrastructureError(
                f"{self.path}: changed after it was written: {', '.join(changed)}. What was evaluated is no longer "
                f"what lies there; delete the folder and materialize "
                f"{beside.made_with if beside else self.asset} for {whose} again."
            )


def fingerprint_of(content: Mapping[str, Any]) -> str:
    """Return sixteen hexadecimal digits, which are the same for equal content on every machine.

    Source: sha256 of the JSON with sorted keys and no spaces.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def content_of(folder: Path) -> list[str]:
    """Return the names of all files below `folder` but its manifest, relative to it, sorted."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != MANIFEST)


def plain(part: object) -> str:
    """Return what is one part of a path, and stays below it.

    Raises:
        FinetuningError: it leads elsewhere, or no file can have that name.
    """
    if not isinstance(part, str) or not part or part in (".", "..") or not set("/\\\0").isdisjoint(part):
        raise FinetuningError(
            f"{repr(part)[:80]} is not the name of a file or folder: it is no text, is empty, or leads to another one"
        )
    if not part.isprintable() or len(part.encode()) > LONGEST_NAME:
        raise FinetuningError(f"{part[:80]!r} is not the name of a file or folder: no text of one line, or too long")
    return part


def artifact_of(manifest: str | bytes, folder: Path) -> Artifact:
    """Return the artifact that a manifest describes.

    Args:
        folder: where the artifact lies, or will lie, on this machine.

    Raises:
        ValueError, TypeError: it is not a manifest, or that of another folder.
    """
    try:
        content = json.loads(manifest)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise TypeError(f"a {type(content).__name__} and not an object")
    artifact = Artifact(**{**content, "path": folder})
    # A folder that is a link is that of an artifact which partitions share.
    if not (isinstance(artifact.fingerprint, str) and artifact.fingerprint == folder.name):
        raise ValueError(f"it is that of {artifact.fingerprint!r}")
    _require_types(artifact)
    outside = [name for name in artifact.files if PurePosixPath(name).is_absolute() or ".." in PurePath(name).parts]
    if outside:
        raise ValueError(f"it names files outside its folder: {', '.join(outside)}")
    return artifact


def _require_types(artifact: Artifact) -> None:
    """Check that each value of a manifest is what its readers take it for.

    Raises:
        ValueError, TypeError: one is not.
    """
    of_text = (artifact.inputs, artifact.contents, artifact.files, artifact.versions)
    if not all(isinstance(value, dict) for value in (*of_text, artifact.sections, artifact.resolved, artifact.summary)):
        raise TypeError("inputs, contents, sections, resolved, summary, files and versions are objects")
    texts = (artifact.asset, artifact.partition, artifact.created, *chain(*(value.values() for value in of_text)))
    if not all(isinstance(value, str) for value in texts):
        raise TypeError("asset, partition, created, and what inputs, contents, files and versions hold are texts")
    if type(artifact.bytes) is not int or type(artifact.seconds) not in (int, float) or artifact.smoke not in (0, 1):
        raise TypeError("bytes and seconds are numbers, and smoke is true or false")
    if not isfinite(artifact.seconds) or datetime.fromisoformat(artifact.created).tzinfo is None:
        raise ValueError("seconds are finite, and created has a time zone")


def read_artifact(folder: Path) -> Artifact | None:
    """Return the artifact in `folder`; None where there is none, or one with a file missing or cut short."""
    try:
        artifact = artifact_of((folder / MANIFEST).read_text(), folder)
        size = sum((folder / name).stat().st_size for name in artifact.files)
    except (OSError, ValueError, TypeError, OverflowError):
        return None
    return artifact if size == artifact.bytes else None


def manifest_of(artifact: Artifact) -> dict[str, JsonValue]:
    """Return the content of `artifact.json`: all but where the artifact lies and whether it was reused."""
    return {key: value for key, value in asdict(artifact).items() if key not in ("path", "reused", "address")}


def installed_versions() -> dict[str, str]:
    """Return the version by package name, for those of `PACKAGES` that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
