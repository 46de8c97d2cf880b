"""Which artifacts nobody refers to any more, and what nobody goes on with, and their removal, beside runs that go on.

>>> there = inventory(Path("artifacts"))
>>> found = unreferenced(*there, is_published=lambda artifact: False, older_than=timedelta(days=7))
>>> gone = [artifact for artifact in found if remove(artifact)]
"""

import fcntl
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from stat import S_ISREG

from resources.artifacts import MANIFEST, Artifact, idle_home, named_in, read_artifact

# Kept with what they are about: the model whose answers they are gives its fingerprint to the folder above.
ANSWERS = {
    "base_answers": "quantized_base_model",
    "base_benchmarks": "quantized_base_model",
    "published_answers": "lora_adapter",
}
PUBLISHED = {"published_repo", "published_merged_repo"}

Key = tuple[str, str]


def inventory(root: Path) -> tuple[list[Artifact], list[Key]]:
    """All complete artifacts below `root`, and what the `current.json` of each home names."""
    return list(complete(root)), in_force(root)


def unreferenced(
    found: Iterable[Artifact],
    named: Iterable[Key],
    is_published: Callable[[Artifact], bool],
    older_than: timedelta,
    now: datetime | None = None,
) -> list[Artifact]:
    """The artifacts that may go of those that were `found`, the oldest first.

    Those stay that are `named` as in force, but for answers, which are kept for what they are about; those that were
    published and still are, all that these were made from, and those that are younger.
    """
    there = {(artifact.asset, artifact.fingerprint): artifact for artifact in found}
    published = [key for key, artifact in there.items() if key[0] in PUBLISHED and is_published(artifact)]
    kept = lineage(there, [*(key for key in named if key[0] not in ANSWERS), *published])
    before = (now or datetime.now(UTC)) - older_than
    loose = [
        artifact
        for key, artifact in there.items()
        if key not in kept and not answers_of_kept(artifact, kept) and datetime.fromisoformat(artifact.created) < before
    ]
    return sorted(loose, key=lambda artifact: artifact.created)


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


def fingerprint_in(name: str) -> str:
    """That of the artifact which is made in a folder of that name."""
    return name.split(".")[1]


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


def lineage(there: dict[Key, Artifact], roots: Iterable[Key]) -> set[Key]:
    """The roots, and whatever they were made from, as far as it is there."""
    kept, waiting = set(), list(roots)
    while waiting:
        key = waiting.pop()
        if key in there and key not in kept:
            kept.add(key)
            waiting += there[key].inputs.items()
    return kept


def answers_of_kept(artifact: Artifact, kept: set[Key]) -> bool:
    """Whether these are answers of a model that stays."""
    return (ANSWERS.get(artifact.asset, ""), artifact.partition) in kept


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
