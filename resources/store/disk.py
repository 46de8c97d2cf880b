"""Artifacts in a folder of this machine."""

import fcntl
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from stat import S_ISREG

from resources.store.artifact import MANIFEST, Artifact, named_in, read_artifact
from resources.store.locks import idle_home
from resources.store.store import Key, Unfinished, fingerprint_in


def inventory(root: Path) -> tuple[list[Artifact], list[Key]]:
    """All complete artifacts below `root`, and what the `current.json` of each home names."""
    return list(complete(root)), in_force(root)


def unfinished(root: Path, older_than: timedelta, now: datetime | None = None) -> list[Unfinished]:
    """What attempts left below `root` that nobody has gone on with for so long."""
    before = (now or datetime.now(UTC)) - older_than
    found = [left_in(folder) for folder in sorted(root.glob("*/*/.*.partial"))]
    return [left for left in found if datetime.fromisoformat(left.created) < before]


def left_in(folder: Path) -> Unfinished:
    """What lies in the folder of an attempt."""
    stats = [path.stat() for path in (folder, *folder.rglob("*"))]
    last = datetime.fromtimestamp(max(stat.st_mtime for stat in stats), UTC).isoformat(timespec="seconds")
    asset, partition, name = folder.parts[-3:]
    size = sum(stat.st_size for stat in stats if S_ISREG(stat.st_mode))
    return Unfinished(asset, partition, fingerprint_in(name), last, size, folder)


def remove_unfinished(left: Unfinished) -> bool:
    """Whether it is gone now: not while somebody makes an artifact beside it."""
    with idle_home(left.path.parent) as mine:
        if mine:
            shutil.rmtree(left.path, ignore_errors=True)
        return mine


def complete(root: Path) -> Iterable[Artifact]:
    """Every complete artifact of every asset and partition."""
    found = (read_artifact(path.parent) for path in sorted(root.glob(f"*/*/*/{MANIFEST}")))
    return [artifact for artifact in found if artifact]


def in_force(root: Path) -> list[Key]:
    """What each `current.json` names."""
    homes = (path.parent for path in sorted(root.glob("*/*/current.json")))
    found = ((home.parent.name, named_in(home)) for home in homes)
    return [(asset, fingerprint) for asset, fingerprint in found if fingerprint]


def remove(artifact: Artifact) -> bool:
    """Whether the artifact is gone now: it is not touched while a process uses it, or makes one beside it.

    A process that dies here leaves nothing that could be taken for an artifact.
    """
    home = artifact.path.parent
    with idle_home(home) as mine:
        # It may have come into force a moment ago.
        return mine and named_in(home) != artifact.fingerprint and bury(artifact.path)


def bury(folder: Path) -> bool:
    """Whether the artifact's folder is gone now, which no process uses; the caller holds the lock of its home."""
    grave = folder.with_name(f".{folder.name}.removed.partial")  # the next run clears it away if this one dies
    try:
        with (folder / MANIFEST).open("rb") as manifest:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder.rename(grave)
    except OSError:  # used, or gone already
        return False
    shutil.rmtree(grave, ignore_errors=True)  # who makes an artifact here next clears it away as well
    return True
