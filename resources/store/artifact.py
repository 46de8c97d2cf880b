"""One complete output of an asset: a folder, and the `artifact.json` that tells how it came to be."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg

from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.record import Record

if TYPE_CHECKING:
    pass


Log = Callable[[str], None]

LOG = logging.getLogger(__name__).info

MANIFEST = "artifact.json"

CURRENT = "current.json"

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


@dataclass(frozen=True)
class Artifact:
    """One complete output of one asset for one partition, as its `artifact.json` tells it."""

    asset: str
    partition: str
    fingerprint: str
    path: Path
    inputs: dict[str, str]
    sections: dict[str, Any]
    resolved: dict[str, Any]
    summary: dict[str, Any]
    files: dict[str, str]
    versions: dict[str, str]
    bytes: int
    seconds: float
    created: str
    smoke: bool = False
    """Whether a smoke run made it, so that it proves nothing."""
    reused: bool = field(default=False, compare=False)
    address: str = field(default="", compare=False)
    """Where it is stored, if that is not `path`."""

    def metadata(self) -> dict[str, Any]:
        """What every materialization shows: `fingerprint`, `reused`, `seconds` (spent this time), `path`."""
        return {
            "fingerprint": self.fingerprint,
            "reused": self.reused,
            "seconds": round(self.seconds, 2),
            "path": dg.MetadataValue.path(self.address or str(self.path)),
            **({"smoke": True} if self.smoke else {}),
        }

    def read(self, kind: type[Summary]) -> Summary:
        """Return the summary as the record that the step before wrote.

        Raises:
            FinetuningError: another release wrote it, or it was changed.
        """
        return kind.of(self.summary, str(self.path / MANIFEST))

    def require_inputs(self, *inputs: "Artifact") -> None:
        """Nothing, when this artifact was made from these very ones.

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
        """Nothing, when every file is what was written.

        Raises:
            FinetuningError: a file is missing, was added, or has other contents than its recorded sha256.
        """
        found = {name: sha256(self.path / name) for name in content_of(self.path)}
        changed = sorted(name for name in found.keys() | self.files.keys() if found.get(name) != self.files.get(name))
        if changed:
            raise InfrastructureError(
                f"{self.path}: changed after it was written: {', '.join(changed)}. What was evaluated is no longer "
                f"what lies there; delete the folder and materialize {self.asset} for {self.partition} again."
            )


def fingerprint_of(content: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that are the same for equal content, on every machine.

    Source: sha256 of the JSON with sorted keys and no spaces.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """The file's sha256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_of(folder: Path) -> list[str]:
    """Names of all files below `folder` but its manifest, relative to it, sorted."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != MANIFEST)


def read_artifact(folder: Path) -> Artifact | None:
    """The artifact in `folder`, or None where there is none, or one with a file missing or cut short."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        artifact = Artifact(**{**manifest, "path": folder})
        size = sum((folder / name).stat().st_size for name in artifact.files)
    except (OSError, ValueError, TypeError):
        return None
    return artifact if size == artifact.bytes else None


def manifest_of(artifact: Artifact) -> dict[str, Any]:
    """What `artifact.json` says: all but where it lies and how it was come by."""
    return {key: value for key, value in asdict(artifact).items() if key not in ("path", "reused", "address")}


def named_in(home: Path) -> str | None:
    """The fingerprint of the artifact in force in `home`, if there is one."""
    try:
        return json.loads((home / CURRENT).read_text())["fingerprint"]
    except (OSError, ValueError, KeyError):
        return None


def installed_versions() -> dict[str, str]:
    """Version by package name, for those of `PACKAGES` that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
