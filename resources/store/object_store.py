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
from pathlib import Path, PurePosixPath
from typing import Any

from finetuning.durable import sync, write_json
from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.settings import Settings
from resources.store.artifact import (
    CURRENT,
    MANIFEST,
    Artifact,
    content_of,
    fingerprint_of,
    manifest_of,
    read_artifact,
    sha256,
)
from resources.store.disk import bury, complete, remove
from resources.store.locks import idle_home, locked
from resources.store.objects import Objects
from resources.store.store import Key, Unfinished, fingerprint_in

GB = 1e9
MB = 1e6


class DamagedArtifact(InfrastructureError):
    """An artifact whose objects are not what its manifest says."""

    def __init__(self, text: str, *objects: str) -> None:
        super().__init__(text)
        self.objects = objects


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

    def address_of(self, path: Path) -> str:
        """Where the artifact, or the artifacts, of a folder of the cache are."""
        return f"{self.objects.address}/{self._name(path)}"

    def _name(self, path: Path) -> str:
        return path.relative_to(self.cache).as_posix()

    def named_in(self, home: Path) -> str | None:
        """The fingerprint of the artifact in force, if there is one."""
        content = self.objects.read(self._name(home / CURRENT))
        with suppress(ValueError, KeyError, TypeError):
            return json.loads(content or "{}")["fingerprint"]
        return None

    def put_in_force(self, artifact: Artifact) -> None:
        """Nothing; the artifact is the one in force, on all machines."""
        home = artifact.path.parent
        if self.named_in(home) != artifact.fingerprint:
            content = json.dumps({"fingerprint": artifact.fingerprint}).encode()
            self.objects.write(self._name(home / CURRENT), content)
            self.remove_unfinished(home / f".{artifact.fingerprint}.partial")

    def manifest(self, folder: Path) -> dict[str, Any] | None:
        """What the artifact's manifest says; None where there is none.

        Raises:
            DamagedArtifact: it cannot be read.
        """
        name = self._name(folder / MANIFEST)
        content = self.objects.read(name)
        if content is None:
            return None
        try:
            manifest = json.loads(content)
            files = Artifact(**{**manifest, "path": folder}).files
            if any(PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts for file in files):
                raise ValueError("it names files outside its folder")
        except (ValueError, TypeError, AttributeError) as error:
            raise damaged(self.address_of(folder), f"artifact.json cannot be read: {error}", folder) from error
        return manifest

    def obtainable(self, folder: Path) -> Artifact | None:
        """The complete artifact that is stored, or lies here since an upload was killed; None without one.

        A damaged one is made again, and taken away when that is there to take its place.
        """
        try:
            return self.fetch(folder) or read_artifact(folder)
        except DamagedArtifact as error:
            self.log(f"stored again: {error}")
            self.damaged[folder] = error.objects
            shutil.rmtree(draft_of(folder), ignore_errors=True)
            return read_artifact(folder)

    def fetch(self, folder: Path) -> Artifact | None:
        """The artifact that is stored, downloaded unless the cache has it; None where none is.

        Raises:
            DamagedArtifact: a file is missing, or is not what was written.
        """
        manifest = self.manifest(folder)
        if manifest is None:
            return None
        artifact = cached(folder, manifest)
        if artifact is None:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(folder.parent / ".download.lock", self.log):
                artifact = cached(folder, manifest) or self._download(folder, manifest)
        with suppress(FileNotFoundError):  # taken away this moment, which whoever holds it next will see
            os.utime(folder / MANIFEST)  # what was used last goes last
        return replace(artifact, address=self.address_of(folder))

    def _download(self, folder: Path, manifest: dict[str, Any]) -> Artifact:
        draft, home = draft_of(folder), folder.parent
        for other in set(home.glob(".*.download")) - {draft}:  # of processes that died
            shutil.rmtree(other)
        if folder.exists() and not draft.exists():  # other content than what is stored now, or not all of it
            folder.rename(draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.mkdir(parents=True, exist_ok=True)
        for name in {MANIFEST, *content_of(draft)} - manifest["files"].keys():
            (draft / name).unlink(missing_ok=True)
        self._require_room(manifest["bytes"])
        self.log(f"downloading {self.address_of(folder)} ({manifest['bytes'] / MB:.1f} MB)")
        for name, digest in manifest["files"].items():
            self._download_file(folder, f"{fingerprint_of(manifest['files'])}/{name}", draft / name, digest)
        sync(*draft.rglob("*"))
        write_json(draft / MANIFEST, manifest)
        sync(draft)
        draft.rename(folder)
        sync(home)
        return Artifact(**manifest, path=folder)

    def _download_file(self, folder: Path, name: str, path: Path, digest: str) -> None:
        """Nothing; `path` holds the artifact's file. What an earlier attempt fetched is not fetched again."""
        path.parent.mkdir(parents=True, exist_ok=True)
        there = True
        for _ in range(2):  # a second time, should it have been the way here that changed it
            if path.is_file() and sha256(path) == digest:
                return
            there = self.objects.fetch(f"{self._name(folder)}/{name}", path)
        if not there or sha256(path) != digest:
            what = "has other contents than were written" if there else "is missing"
            raise damaged(self.address_of(folder), f"{name} {what}", folder, f"{self._name(folder)}/{name}")

    def _require_room(self, needed: int) -> None:
        self.trim(needed)
        free = shutil.disk_usage(self.cache).free
        if free < needed:
            raise InfrastructureError(
                f"{self.cache}: the disk is full: a download needs {needed / MB:.0f} MB, and {free / MB:.0f} MB are "
                "free. Make room, or set FINETUNING_ARTIFACTS_CACHE to a folder on another disk."
            )

    def store(self, artifact: Artifact) -> Artifact:
        """The artifact that is stored under this fingerprint from now on.

        It is this one, or that of another machine which was first. Files that have arrived are not sent again.

        Raises:
            FinetuningError: it cannot be stored, now or at all; it lies in the cache, and the next call goes on.
        """
        folder, content = artifact.path, f"{self._name(artifact.path)}/{fingerprint_of(artifact.files)}"
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
        manifest, stored = (folder / MANIFEST).read_bytes(), self.manifest(folder)
        created = stored is None and self.objects.create(self._name(folder / MANIFEST), manifest)
        if created or stored == json.loads(manifest):
            return replace(artifact, address=self.address_of(folder))
        return self.fetch(folder) or artifact

    def withdraw(self, folder: Path) -> None:
        """Nothing; no artifact counts as stored under this fingerprint, until another one is."""
        self.objects.remove(self._name(folder / MANIFEST))

    def has(self, artifact: Artifact) -> bool:
        """Whether this very artifact is stored, with all of its files."""
        try:
            if self.manifest(artifact.path) != manifest_of(artifact):
                return False
        except DamagedArtifact:
            return False
        there = self.objects.sizes(f"{self._name(artifact.path)}/{fingerprint_of(artifact.files)}")
        return artifact.files.keys() <= there.keys() and artifact.bytes == sum(there[name] for name in artifact.files)

    def trim(self, needed: int = 0) -> None:
        """Nothing; the cache has room for `needed` bytes within its limit, as far as nobody uses what is there.

        What was used longest ago goes first. What is not stored stays.
        """
        there = sorted(complete(self.cache), key=last_use)
        excess = sum(artifact.bytes for artifact in there) + needed - self.limit
        for artifact in there:
            if excess <= 0:
                return
            if self.has(artifact) and remove(artifact):
                excess -= artifact.bytes
                self.log(f"removed from the cache: {self._name(artifact.path)} ({artifact.bytes / MB:.1f} MB)")
        if excess > 0:
            self.log(f"{self.cache} is {excess / MB:.1f} MB over its limit: what it holds is in use, or not stored yet")

    def inventory(self) -> tuple[list[Artifact], list[Key]]:
        """All complete artifacts that are stored, or lie here alone; and what the `current.json` of each home names."""
        sizes = self.objects.sizes()
        stored = list(self._stored(sizes))
        keys = {(artifact.asset, artifact.fingerprint) for artifact in stored}
        here = [artifact for artifact in complete(self.cache) if (artifact.asset, artifact.fingerprint) not in keys]
        homes = [
            self.cache / name for name in sizes if len(PurePosixPath(name).parts) == 3 and name.endswith(f"/{CURRENT}")
        ]
        named = ((path.parent.parent.name, self.named_in(path.parent)) for path in homes)
        return stored + here, [(asset, fingerprint) for asset, fingerprint in named if fingerprint]

    def _stored(self, sizes: dict[str, int]) -> Iterator[Artifact]:
        """The artifacts whose manifest and files are among these objects."""
        for path in (PurePosixPath(name) for name in sizes):
            if path.name != MANIFEST or len(path.parts) != 4:
                continue
            folder = self.cache / path.parent
            with suppress(DamagedArtifact):
                manifest = self.manifest(folder)
                if manifest is None:  # removed this moment
                    continue
                artifact = Artifact(**manifest, path=folder, address=self.address_of(folder))
                content = path.parent / fingerprint_of(artifact.files)
                if sum(sizes.get(f"{content}/{file}", 0) for file in artifact.files) == artifact.bytes:
                    yield artifact

    def remove(self, artifact: Artifact) -> bool:
        """Whether the artifact is gone now, stored and here: not while a process of this machine uses it.

        Its manifest goes first: a process that dies here leaves nothing that counts as whole.
        """
        folder, home = artifact.path, artifact.path.parent
        home.mkdir(parents=True, exist_ok=True)
        with idle_home(home) as mine:
            if not mine or self.named_in(home) == artifact.fingerprint or (folder.exists() and not bury(folder)):
                return False
            self.withdraw(folder)
            name = self._name(folder)
            self.objects.remove(*(f"{name}/{file}" for file in self.objects.sizes(name)))
        return True

    def unfinished(self, older_than: timedelta, now: datetime | None = None) -> list[Unfinished]:
        """What trainings on clusters left that nobody has gone on with for so long, and a day at least.

        Whoever goes on with it may be on another machine, which no lock tells of.
        """
        before = (now or datetime.now(UTC)) - max(older_than, timedelta(days=1))
        objects: dict[Path, dict[str, int]] = {}
        for name, size in self.objects.sizes().items():
            parts = PurePosixPath(name).parts
            if len(parts) > 3 and parts[2].startswith(".") and parts[2].endswith(".partial"):
                objects.setdefault(self.cache.joinpath(*parts[:3]), {})[name] = size
        found = [self._left(folder, sizes) for folder, sizes in objects.items()]
        return [left for left in found if datetime.fromisoformat(left.created) < before]

    def _left(self, folder: Path, sizes: dict[str, int]) -> Unfinished:
        written = max(filter(None, map(self.objects.modified, sizes)), default=datetime.now(UTC))
        asset, partition, name = folder.parts[-3:]
        created = written.astimezone(UTC).isoformat(timespec="seconds")
        return Unfinished(asset, partition, fingerprint_in(name), created, sum(sizes.values()), folder)

    def remove_unfinished(self, folder: Path) -> None:
        """Nothing; no checkpoints are stored any more of the artifact that was made in that folder."""
        name = self._name(folder)
        self.objects.remove(*(f"{name}/{file}" for file in self.objects.sizes(name)))


def damaged(address: str, what: str, folder: Path, *objects: str) -> DamagedArtifact:
    """The error that tells it."""
    asset, partition = folder.parts[-3:-1]
    return DamagedArtifact(
        f"{address}: {what}. Materialize {asset} for {partition} again, which makes what is not whole anew: "
        f"dagster asset materialize --select {asset} --partition {partition} -m pipelines.definitions",
        *objects,
    )


def cached(folder: Path, manifest: dict[str, Any]) -> Artifact | None:
    """The artifact in the folder, if it is the one that the manifest tells of."""
    artifact = read_artifact(folder)
    return artifact if artifact and manifest_of(artifact) == manifest else None


def draft_of(folder: Path) -> Path:
    """Where an artifact lies until all of it has come."""
    return folder.with_name(f".{folder.name}.download")


def last_use(artifact: Artifact) -> float:
    """Seconds; 0 for what is gone meanwhile."""
    with suppress(FileNotFoundError):
        return (artifact.path / MANIFEST).stat().st_mtime
    return 0.0


def object_store(address: str, cache: str, cache_gb: str, log: Callable[[str], None]) -> ObjectStore:
    """The store at an address.

    Raises:
        FinetuningError: the address or the limit of the cache is none.
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
