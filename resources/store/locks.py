"""One writer for each home of artifacts, and readers whose artifact nobody removes, across processes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_SH, flock
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from resources.store.artifact import MANIFEST

# Manifests, by inode, of the artifacts that this process uses; the system drops the locks on them when it ends.
LEASES: dict[int, IO] = {}


@contextmanager
def locked(path: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of `path` for the block, and log it where that means waiting. A killed process holds none."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log(f"waiting for another process that holds {path}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def hold(folder: Path) -> bool:
    """Keep others from removing the artifact in that folder before this process ends; return whether it is there."""
    try:
        manifest = (folder / MANIFEST).open("rb")
    except FileNotFoundError:
        return False
    flock(manifest, LOCK_SH)
    LEASES.setdefault(os.fstat(manifest.fileno()).st_ino, manifest)
    return (folder / MANIFEST).exists()


@contextmanager
def idle_home(home: Path) -> Iterator[bool]:
    """Yield whether nobody makes an artifact in `home`; if so, nobody does before the block ends."""
    lock = FileLock(home / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
