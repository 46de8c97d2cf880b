"""What every store of artifacts can do, wherever it keeps them.

<root>/lora_adapter/phi-2/                       the home of an asset's artifacts for one partition
<root>/lora_adapter/phi-2/current.json           names the artifact in force
<root>/lora_adapter/phi-2/0a1b…/artifact.json    an artifact, in a folder named by its fingerprint

What partitions share, a base model above all, has a home of its own, named by its fingerprint as well, and is in force
in the homes of the partitions:

<root>/quantized_base_model/phi-2/current.json         names 2c3d…
<root>/quantized_base_model/2c3d…/2c3d…/artifact.json  the artifact that all partitions share

Paths are those of this machine: where a store is elsewhere they are in its cache, and stand for what is stored.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol

from finetuning.errors import FinetuningError
from resources.store.artifact import Artifact, plain

Key = tuple[str, str]
CURRENT = "current.json"


@dataclass(frozen=True)
class Unfinished:
    """What an attempt at an artifact left for the next one, checkpoints above all; nobody has written to it since."""

    asset: str
    partition: str
    fingerprint: str
    created: str
    """When it was last written to."""
    bytes: int
    path: Path
    address: str = ""
    """Where it is stored, if that is not `path`."""


class Inventory(NamedTuple):
    """What a store holds."""

    artifacts: list[Artifact]
    """All complete ones."""
    in_force: list[Key]
    """Asset and fingerprint that the `current.json` of each home names."""


class Store(Protocol):
    """Keeps artifacts, each whole or not at all, and the name of the one in force for each asset and partition."""

    @property
    def address(self) -> str:
        """What other machines find the store by: a folder, or an address on object storage."""
        ...

    def home(self, asset: str, partition: str) -> Path:
        """Return the folder of one asset's artifacts for one partition, on this machine."""
        ...

    def address_of(self, path: Path) -> str:
        """Return what other machines find a folder by: its path, or its address on object storage."""
        ...

    def in_force(self, home: Path) -> str | None:
        """Return the fingerprint of the artifact in force in a home; None where there is none."""
        ...

    def put_in_force(self, artifact: Artifact, home: Path) -> None:
        """Make a stored artifact the one in force of a home: its own, or that of a partition that shares it."""
        ...

    def fetch(self, folder: Path) -> Artifact | None:
        """Return the complete artifact of a folder, which then lies there on this machine; None where there is none.

        Raises:
            FinetuningError: it cannot be read now, or is damaged.
        """
        ...

    def obtainable(self, folder: Path) -> Artifact | None:
        """Return the complete artifact of a folder, stored or yet to be; None where it has to be made.

        The caller holds the lock of its home.
        """
        ...

    def require_writable(self) -> None:
        """Check, before anything is made, that it can be stored.

        Raises:
            FinetuningError: it cannot; the text says why.
        """
        ...

    def store(self, artifact: Artifact, instead: bool = False) -> Artifact:
        """Keep an artifact that lies in its folder; return the one that is stored under its fingerprint from now on.

        Args:
            instead: whether it takes the place of the one that is stored. Otherwise that of a machine that was first
                stays, and is returned.

        Raises:
            FinetuningError: it cannot be stored; it lies in its folder, and the next call goes on.
        """
        ...

    def inventory(self) -> Inventory:
        """Return all complete artifacts, and which of them are in force."""
        ...

    def remove(self, artifact: Artifact) -> bool:
        """Remove an artifact unless it is in force, or a process of this machine uses it; return whether it is gone."""
        ...

    def unfinished(self, older_than: timedelta, now: datetime | None = None) -> list[Unfinished]:
        """Return what attempts left that nobody has gone on with for so long."""
        ...

    def remove_unfinished(self, left: Unfinished) -> bool:
        """Remove what an attempt left, unless an artifact is made beside it now; return whether it is gone."""
        ...

    def trim(self) -> None:
        """Remove from this machine what is stored elsewhere too, as far as the store's limit asks for it."""
        ...


def fingerprint_in(name: str) -> str:
    """Return the fingerprint of the artifact that is made in a folder of that name."""
    return name.split(".")[1]


def named_in(current: str | bytes | None) -> str | None:
    """Return the fingerprint that the content of a `current.json` names; None where it names none."""
    with suppress(ValueError, KeyError, TypeError, RecursionError, FinetuningError):
        return plain(json.loads(current or "")["fingerprint"])
    return None
