"""Artifacts on object storage: the same folders as on a disk, with a cache of them on this machine.

s3://bucket/artifacts/lora_adapter/phi-2/current.json                        names the artifact in force
s3://bucket/artifacts/lora_adapter/phi-2/0a1b…/artifact.json                 made last, and never over another one
s3://bucket/artifacts/lora_adapter/phi-2/0a1b…/9c8d…/adapter_model.safetensors

The folder of the files (9c8d…) is named by their content: machines that make an artifact at the same time send theirs
to folders of their own, and the first one's manifest says which of them counts.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path, PurePosixPath

from finetuning.digests import sha256
from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.settings import Settings
from resources.store.artifact import MANIFEST, Artifact, artifact_of, fingerprint_of, read_artifact
from resources.store.disk import DiskStore, bury
from resources.store.download import DamagedArtifact, download, draft_of
from resources.store.locks import idle_home, locked
from resources.store.objects import Objects
from resources.store.store import CURRENT, Inventory, Key, Unfinished, fingerprint_in, named_in

GB = 1e9
MB = 1e6


@dataclass(frozen=True)
class ObjectStore:
    """The artifacts below an address. `cache` has the layout of a store on a disk; its paths stand for what is there.

    `limit` is in bytes, for the complete artifacts of the cache.
    """

    objects: Objects
    cache: Path
    limit: float
    log: Callable[[str], None]
    damaged: dict[Path, tuple[str, ...]] = field(default_factory=dict, compare=False)
    """By its folder, what is wrong with a stored artifact that is about to be replaced: names of objects."""

    @cached_property
    def here(self) -> DiskStore:
        """The cache as a store of its own."""
        return DiskStore(self.cache)

    @property
    def address(self) -> str:
        """The address of all."""
        return self.objects.address

    def home(self, asset: str, partition: str) -> Path:
        """Return the folder of one asset's artifacts for one partition, in the cache."""
        return self.here.home(asset, partition)

    def address_of(self, path: Path) -> str:
        """Return the address of what a folder of the cache stands for."""
        return f"{self.objects.address}/{self._name(path)}"

    def _name(self, path: Path) -> str:
        return path.relative_to(self.cache).as_posix()

    def in_force(self, home: Path) -> str | None:
        """Return the fingerprint of the artifact in force in a home; None where there is none."""
        return named_in(self.objects.read(self._name(home / CURRENT)))

    def put_in_force(self, artifact: Artifact, home: Path) -> None:
        """Make the artifact the one in force of a home, on all machines, and remove its checkpoints there."""
        if self.in_force(home) != artifact.fingerprint:
            content = json.dumps({"fingerprint": artifact.fingerprint}).encode()
            self.objects.write(self._name(home / CURRENT), content)
            self._remove_all(home / f".{artifact.fingerprint}.partial")

    def require_writable(self) -> None:
        """Check that objects can be written: a training is not to end with nowhere to go.

        Raises:
            FinetuningError: they cannot; the text says why.
        """
        self.objects.require_writable()

    def _stored_in(self, folder: Path) -> Artifact | None:
        """Return the artifact as its stored manifest describes it; None where there is none.

        Raises:
            DamagedArtifact: the manifest cannot be read.
        """
        content = self.objects.read(self._name(folder / MANIFEST))
        if content is None:
            return None
        try:
            artifact = artifact_of(content, folder)
        except (ValueError, TypeError, AttributeError) as error:
            raise DamagedArtifact(self.address_of(folder), f"artifact.json cannot be read: {error}") from error
        return replace(artifact, address=self.address_of(folder))

    def obtainable(self, folder: Path) -> Artifact | None:
        """Return the complete artifact that is stored, or lies here since an upload was killed; None without one.

        A damaged one is made again, and removed from the storage when that is there to take its place.
        """
        try:
            return self.fetch(folder) or read_artifact(folder)
        except DamagedArtifact as error:
            self.log(f"stored again: {error}")
            self.damaged[folder] = error.objects
            shutil.rmtree(draft_of(folder), ignore_errors=True)
            return read_artifact(folder)

    def fetch(self, folder: Path) -> Artifact | None:
        """Return the artifact that is stored, downloaded unless the cache has it; None where none is.

        Raises:
            DamagedArtifact: a file is missing, or is not what was written.
        """
        artifact = self._stored_in(folder)
        if artifact is None:
            return None
        if read_artifact(folder) != artifact:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(folder.parent / ".download.lock", self.log):
                if read_artifact(folder) != artifact:
                    self._require_room(artifact.bytes)
                    self.log(f"downloading {artifact.address} ({artifact.bytes / MB:.1f} MB)")
                    download(self.objects, self._name(folder), artifact)
        with suppress(FileNotFoundError):  # taken away this moment, which whoever holds it next will see
            os.utime(folder / MANIFEST)  # what was used last goes last
        return artifact

    def _require_room(self, needed: int) -> None:
        self.trim(needed)
        free = shutil.disk_usage(self.cache).free
        if free < needed:
            raise InfrastructureError(
                f"{self.cache}: the disk is full: a download needs {needed / MB:.0f} MB, and {free / MB:.0f} MB are "
                "free. Make room, or set FINETUNING_ARTIFACTS_CACHE to a folder on another disk."
            )

    def store(self, artifact: Artifact, instead: bool = False) -> Artifact:
        """Send an artifact that lies in the cache; return the one that is stored under its fingerprint from now on.

        It is this one, or that of another machine which was first. Files that have arrived are not sent again.

        Args:
            instead: whether it takes the place of the one that is stored.

        Raises:
            FinetuningError: it cannot be stored, now or at all; it lies in the cache, and the next call goes on.
        """
        folder, content = artifact.path, f"{self._name(artifact.path)}/{fingerprint_of(artifact.files)}"
        if instead:
            self._withdraw(folder)
        if folder in self.damaged:
            self.objects.remove(self._name(folder / MANIFEST), *self.damaged.pop(folder))
        there = self.objects.sizes(content)
        missing = [name for name in artifact.files if there.get(name) != (folder / name).stat().st_size]
        if missing:
            megabytes = sum((folder / name).stat().st_size for name in missing) / MB
            count = f"{len(missing)} of {len(artifact.files)} files"
            self.log(f"uploading {count} to {self.address_of(folder)} ({megabytes:.1f} MB)")
        for name in missing:
            if sha256(folder / name) != artifact.files[name]:
                raise InfrastructureError(
                    f"{folder / name}: changed after it was written. Delete {folder}, and run it again."
                )
            self.objects.send(folder / name, f"{content}/{name}")
        stored = self._stored_in(folder)
        if stored is None and self.objects.create(self._name(folder / MANIFEST), (folder / MANIFEST).read_bytes()):
            stored = artifact
        if stored == artifact:
            return replace(artifact, address=self.address_of(folder))
        return self.fetch(folder) or artifact

    def _withdraw(self, folder: Path) -> None:
        """Remove the manifest, so that no artifact counts as stored under this fingerprint until another one is."""
        self.objects.remove(self._name(folder / MANIFEST))

    def has(self, artifact: Artifact) -> bool:
        """Return whether this very artifact is stored, with all of its files."""
        try:
            if self._stored_in(artifact.path) != artifact:
                return False
        except DamagedArtifact:
            return False
        there = self.objects.sizes(f"{self._name(artifact.path)}/{fingerprint_of(artifact.files)}")
        return artifact.files.keys() <= there.keys() and artifact.bytes == sum(there[name] for name in artifact.files)

    def trim(self, needed: int = 0) -> None:
        """Remove artifacts from the cache until `needed` bytes more fit its limit, those used longest ago first.

        What is in use, or is not stored, stays.
        """
        there = sorted(self.here.complete(), key=last_use)
        excess = sum(artifact.bytes for artifact in there) + needed - self.limit
        for artifact in there:
            if excess <= 0:
                return
            if self.has(artifact) and self.here.remove(artifact):
                excess -= artifact.bytes
                self.log(f"removed from the cache: {self._name(artifact.path)} ({artifact.bytes / MB:.1f} MB)")
        if excess > 0:
            self.log(f"{self.cache} is {excess / MB:.1f} MB over its limit: what it holds is in use, or not stored yet")

    def inventory(self) -> Inventory:
        """Return all complete artifacts that are stored, or lie here alone; and what each `current.json` names."""
        sizes = self.objects.sizes()
        stored = list(self._complete(sizes))
        keys = {(artifact.asset, artifact.fingerprint) for artifact in stored}
        here = [artifact for artifact in self.here.complete() if (artifact.asset, artifact.fingerprint) not in keys]
        return Inventory(stored + here, list(self._named(sizes)))

    def _named(self, sizes: dict[str, int]) -> Iterator[Key]:
        """Yield what each `current.json` among these objects names."""
        for path in map(PurePosixPath, sizes):
            if path.name == CURRENT and len(path.parts) == 3:
                fingerprint = self.in_force(self.cache / path.parent)
                if fingerprint:
                    yield path.parts[0], fingerprint

    def _complete(self, sizes: dict[str, int]) -> Iterator[Artifact]:
        """Yield the artifacts whose manifest and files are among these objects."""
        for path in map(PurePosixPath, sizes):
            if path.name != MANIFEST or len(path.parts) != 4:
                continue
            with suppress(DamagedArtifact):
                artifact = self._stored_in(self.cache / path.parent)
                if artifact is None:  # removed this moment
                    continue
                content = path.parent / fingerprint_of(artifact.files)
                if sum(sizes.get(f"{content}/{file}", 0) for file in artifact.files) == artifact.bytes:
                    yield artifact

    def remove(self, artifact: Artifact) -> bool:
        """Remove an artifact, stored and here, unless it is in force or a process of this machine uses it.

        Return whether it is gone. Its manifest goes first: a process that dies here leaves nothing that counts as
        whole.
        """
        folder, home = artifact.path, artifact.path.parent
        home.mkdir(parents=True, exist_ok=True)
        with idle_home(home) as mine:
            if not mine or self._is_in_force(artifact) or (folder.exists() and not bury(folder)):
                return False
            self._withdraw(folder)
            self._remove_all(folder)
        return True

    def _is_in_force(self, artifact: Artifact) -> bool:
        """Whether it is in force in its home, or in any that shares it."""
        if not artifact.is_shared:
            return self.in_force(artifact.path.parent) == artifact.fingerprint
        return (artifact.asset, artifact.fingerprint) in self._named(self.objects.sizes())

    def unfinished(self, older_than: timedelta, now: datetime | None = None) -> list[Unfinished]:
        """Return what attempts left, here and on the storage, that nobody has gone on with for so long.

        On the storage it is a day at least: whoever goes on with it may be on another machine, of which no lock tells.
        """
        before = (now or datetime.now(UTC)) - max(older_than, timedelta(days=1))
        objects: dict[Path, dict[str, int]] = {}
        for name, size in self.objects.sizes().items():
            parts = PurePosixPath(name).parts
            if len(parts) > 3 and parts[2].startswith(".") and parts[2].endswith(".partial"):
                objects.setdefault(self.cache.joinpath(*parts[:3]), {})[name] = size
        found = [self._left(folder, sizes) for folder, sizes in objects.items()]
        stored = [left for left in found if datetime.fromisoformat(left.created) < before]
        return self.here.unfinished(older_than, now) + stored

    def _left(self, folder: Path, sizes: dict[str, int]) -> Unfinished:
        written = max(filter(None, map(self.objects.modified, sizes)), default=datetime.now(UTC))
        asset, partition, name = folder.parts[-3:]
        created, size = written.astimezone(UTC).isoformat(timespec="seconds"), sum(sizes.values())
        return Unfinished(asset, partition, fingerprint_in(name), created, size, folder, self.address_of(folder))

    def remove_unfinished(self, left: Unfinished) -> bool:
        """Remove what an attempt left; return whether it is gone."""
        if not left.address:
            return self.here.remove_unfinished(left)
        self._remove_all(left.path)
        return True

    def _remove_all(self, folder: Path) -> None:
        """Remove every object below what the folder stands for."""
        name = self._name(folder)
        self.objects.remove(*(f"{name}/{file}" for file in self.objects.sizes(name)))


def last_use(artifact: Artifact) -> float:
    """Return when it was last used (seconds since 1970); 0 if it was removed."""
    with suppress(FileNotFoundError):
        return (artifact.path / MANIFEST).stat().st_mtime
    return 0.0


def object_store(address: str, cache: str, cache_gb: str, log: Callable[[str], None]) -> ObjectStore:
    """Return the store at an address.

    Raises:
        FinetuningError: the address or the limit of the cache is not valid.
    """
    scheme, _, rest = address.rstrip("/").partition("://")
    if scheme in ("file", "local"):
        raise FinetuningError(f"FINETUNING_ARTIFACTS: {address}: write the folder as it is, without {scheme}://.")
    if "@" in rest or "?" in rest or not rest:
        raise FinetuningError(
            "FINETUNING_ARTIFACTS: write an address such as s3://bucket/name, without a password or a query: it is "
            "shown in the UI. Credentials are taken from where the storage's library looks for them."
        )
    limit = Settings.of(artifacts_cache_gb=cache_gb).artifacts_cache_gb * GB
    place = Path(cache).absolute() / scheme / rest
    return ObjectStore(Objects(f"{scheme}://{rest}", log), place, limit, log)
