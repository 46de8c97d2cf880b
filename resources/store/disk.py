"""Artifacts in a folder: of this machine, or one that several machines share."""

import fcntl
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from stat import S_ISREG

from finetuning.durable import write_json
from resources.store.artifact import MANIFEST, Artifact, plain, read_artifact
from resources.store.locks import idle_home
from resources.store.store import CURRENT, Inventory, Unfinished, fingerprint_in, named_in


@dataclass(frozen=True)
class DiskStore:
    """The artifacts below a folder. They are made in their place, so that storing one is no further step."""

    root: Path

    @property
    def address(self) -> str:
        """The folder."""
        return str(self.root)

    def home(self, asset: str, partition: str) -> Path:
        """Return the folder of one asset's artifacts for one partition."""
        return self.root / plain(asset) / plain(partition)

    def address_of(self, path: Path) -> str:
        """Return the path itself."""
        return str(path)

    def in_force(self, home: Path) -> str | None:
        """Return the fingerprint of the artifact in force in a home; None where there is none."""
        with suppress(OSError):
            return named_in((home / CURRENT).read_bytes())
        return None

    def put_in_force(self, artifact: Artifact, home: Path) -> None:
        """Make the artifact the one in force of a home; one that is shared is linked to from there."""
        home.mkdir(parents=True, exist_ok=True)
        write_json(home / CURRENT, {"fingerprint": artifact.fingerprint})
        if home != artifact.path.parent:
            link = home / artifact.fingerprint
            for other in home.iterdir():
                if other.is_symlink() and other != link:
                    other.unlink(missing_ok=True)
            with suppress(FileExistsError):
                link.symlink_to(Path("..", *artifact.path.parts[-2:]))

    def fetch(self, folder: Path) -> Artifact | None:
        """Return the complete artifact in the folder; None where there is none."""
        return read_artifact(folder)

    def obtainable(self, folder: Path) -> Artifact | None:
        """Return the complete artifact in the folder; None where there is none."""
        return read_artifact(folder)

    def require_writable(self) -> None:
        """Return at once: who asks has the lock of a home, which is a file that was just written there."""

    def store(self, artifact: Artifact, instead: bool = False) -> Artifact:
        """Return the artifact, whose folder took the place of an earlier one when it was renamed."""
        return artifact

    def inventory(self) -> Inventory:
        """Return all complete artifacts, and what the `current.json` of each home names."""
        homes = (path.parent for path in sorted(self.root.glob(f"*/*/{CURRENT}")))
        named = ((home.parent.name, self.in_force(home)) for home in homes)
        return Inventory(self.complete(), [(asset, fingerprint) for asset, fingerprint in named if fingerprint])

    def complete(self) -> list[Artifact]:
        """Return every complete artifact of every asset and partition."""
        folders = (path.parent for path in sorted(self.root.glob(f"*/*/*/{MANIFEST}")))
        found = (read_artifact(folder) for folder in folders if not folder.is_symlink())
        return [artifact for artifact in found if artifact]

    def remove(self, artifact: Artifact) -> bool:
        """Remove the artifact, unless it is in force, or a process uses it or makes one beside it.

        Return whether it is gone. A process that dies here leaves nothing that could be taken for an artifact.
        """
        home = artifact.path.parent
        with idle_home(home) as mine:
            # It may have come into force a moment ago.
            if not mine or self._is_in_force(artifact) or not bury(artifact.path):
                return False
        for link in home.parent.glob(f"*/{artifact.fingerprint}"):
            if link.is_symlink():
                link.unlink(missing_ok=True)
        return True

    def _is_in_force(self, artifact: Artifact) -> bool:
        """Whether it is in force in its home, or in any that shares it."""
        home = artifact.path.parent
        homes = home.parent.iterdir() if artifact.is_shared else [home]
        return artifact.fingerprint in map(self.in_force, homes)

    def unfinished(self, older_than: timedelta, now: datetime | None = None) -> list[Unfinished]:
        """Return what attempts left that nobody has gone on with for so long."""
        before = (now or datetime.now(UTC)) - older_than
        found = [left_in(folder) for folder in sorted(self.root.glob("*/*/.*.partial"))]
        return [left for left in found if datetime.fromisoformat(left.created) < before]

    def remove_unfinished(self, left: Unfinished) -> bool:
        """Remove what an attempt left, unless an artifact is made beside it now; return whether it is gone."""
        with idle_home(left.path.parent) as mine:
            if mine:
                shutil.rmtree(left.path, ignore_errors=True)
            return mine

    def trim(self) -> None:
        """Return at once: what is here is nowhere else."""


def left_in(folder: Path) -> Unfinished:
    """Return what lies in the folder of an attempt."""
    stats = [path.stat() for path in (folder, *folder.rglob("*"))]
    last = datetime.fromtimestamp(max(stat.st_mtime for stat in stats), UTC).isoformat(timespec="seconds")
    asset, partition, name = folder.parts[-3:]
    size = sum(stat.st_size for stat in stats if S_ISREG(stat.st_mode))
    return Unfinished(asset, partition, fingerprint_in(name), last, size, folder)


def bury(folder: Path) -> bool:
    """Remove an artifact's folder unless a process uses it; return whether it is gone.

    The caller holds the lock of its home.
    """
    grave = folder.with_name(f".{folder.name}.removed.partial")  # the next run clears it away if this one dies
    try:
        with (folder / MANIFEST).open("rb") as manifest:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder.rename(grave)
    except OSError:  # used, or gone already
        return False
    shutil.rmtree(grave, ignore_errors=True)  # who makes an artifact here next clears it away as well
    return True
