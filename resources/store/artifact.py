"""One complete output of an asset: a folder, and the `artifact.json` that tells how it came to be."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
from pydantic import JsonValue

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

    def verify(self) -> None:
        """Check that every file is what was written.

        Raises:
            FinetuningError: a file is missing, was added, or has other contents than its recorded sha256.
        """
        found = {name: sha256(self.path / name) for name in content_of(self.path)}
        changed = sorted(name for name in found.keys() | self.files.keys() if found.get(name) != self.files.get(name))
        if changed:
            whose = "a recipe that uses it" if self.is_shared else self.partition
            raise InfrastructureError(
                f"{self.path}: changed after it was written: {', '.join(changed)}. What was evaluated is no longer "
                f"what lies there; delete the folder and materialize {self.asset} for {whose} again."
            )


def fingerprint_of(content: Mapping[str, Any]) -> str:
    """Return sixteen hexadecimal digits, which are the same for equal content on every machine.

    Source: sha256 of the JSON with sorted keys and no spaces.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """Return the file's sha256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_of(folder: Path) -> list[str]:
    """Return the names of all files below `folder` but its manifest, relative to it, sorted."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != MANIFEST)


def artifact_of(manifest: str | bytes, folder: Path) -> Artifact:
    """Return the artifact that a manifest describes.

    Args:
        folder: where the artifact lies, or will lie, on this machine.

    Raises:
        ValueError, TypeError: it is not a manifest.
    """
    return Artifact(**{**json.loads(manifest), "path": folder})


def read_artifact(folder: Path) -> Artifact | None:
    """Return the artifact in `folder`; None where there is none, or one with a file missing or cut short."""
    try:
        artifact = artifact_of((folder / MANIFEST).read_text(), folder)
        size = sum((folder / name).stat().st_size for name in artifact.files)
    except (OSError, ValueError, TypeError):
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
