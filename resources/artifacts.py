"""Where every asset's output lives: a folder named by its fingerprint, written whole or not at all."""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from fcntl import LOCK_SH, flock
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import dagster as dg
from filelock import FileLock, Timeout

from finetuning.errors import KIND, FinetuningError, InfrastructureError, PassingError

if TYPE_CHECKING:
    from resources.store.object_store import ObjectStore

Log = Callable[[str], None]
LOG = logging.getLogger(__name__).info
MANIFEST = "artifact.json"
# In the folder where an artifact is made: the artifact, what a failure leaves for the next attempt, what it is made of.
DRAFT, CHECKPOINTS, RECORD = "artifact", "checkpoints", "plan.json"
CURRENT = "current.json"
# Manifests, by inode, of the artifacts that this process uses; the system drops the locks on them when it ends.
LEASES: dict[int, IO] = {}
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


def write_json(path: Path, content: Any) -> None:
    """Nothing; `path` holds `content` on the disk, or what it held before, whenever the process dies."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w") as file:
        json.dump(content, file, indent=2, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


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


def sync(*paths: Path) -> None:
    """Nothing; the files, or the names in the folders, are on the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Artifacts(dg.ConfigurableResource):
    """The store: `<root>/<asset>/<partition>/<fingerprint>/`, and `current.json` that names the one in force.

    Where `root` is an address, such as s3://bucket/name, the artifacts are there, and those that are used lie below
    `cache` too, in as many gigabytes as `cache_gb` says.
    """

    root: str = "artifacts"
    cache: str = ".cache/artifacts"
    cache_gb: str = "50"
    smoke: bool = False
    """Whether these are the artifacts of smoke runs, which have a root of their own."""

    def remote(self, log: Log = LOG) -> "ObjectStore | None":
        """The artifacts on object storage; None where they are on this machine's disk.

        Raises:
            FinetuningError: the address, or the limit of the cache, is none.
        """
        if "://" not in self.root:
            return None
        from resources.store.object_store import object_store

        return object_store(self.root, self.cache, self.cache_gb, log)

    def everywhere(self) -> dict[str, Any]:
        """The settings with which another machine finds the same artifacts; its cache is its own."""
        root = self.root if "://" in self.root else str(Path(self.root).absolute())
        return {"root": root, "cache_gb": self.cache_gb, "smoke": self.smoke}

    def home(self, asset: str, partition: str) -> Path:
        """The folder of one asset's artifacts for one partition, on this machine."""
        remote = self.remote()
        return (remote.cache if remote else Path(self.root).absolute()) / asset / partition

    def current(self, asset: str, partition: str, log: Log = LOG) -> Artifact:
        """The artifact in force.

        Raises:
            FinetuningError: none is there yet, what `current.json` names is not complete, or a smoke run made it and
                this is none, or the other way round.
        """
        home, remote = self.home(asset, partition), self.remote(log)
        fingerprint = remote.named_in(home) if remote else named_in(home)
        read = remote.fetch if remote else read_artifact
        artifact = read(home / fingerprint) if fingerprint else None
        if artifact is None:
            raise FinetuningError(
                f"{remote.address_of(home) if remote else home}: no complete artifact of {asset} for {partition}. "
                f"Materialize it first: "
                f"dagster asset materialize --select {asset} --partition {partition} -m pipelines.definitions"
            )
        if artifact.smoke != self.smoke:
            made, asked = ("a smoke run", "none") if artifact.smoke else ("a real run", "a smoke run")
            raise FinetuningError(
                f"{artifact.path}: made by {made}, and this is {asked} (FINETUNING_SMOKE). The two have folders of "
                f"their own: see FINETUNING_ARTIFACTS, or materialize {asset} for {partition} again."
            )
        return artifact

    def held(self, asset: str, partition: str, log: Log = LOG) -> Artifact:
        """The artifact in force, which nobody removes before this process ends.

        Raises:
            FinetuningError: none is there.
        """
        while True:
            artifact = self.current(asset, partition, log)
            # It may have been removed before it was held. One that is stored elsewhere too may go out of force there.
            if hold(artifact.path) and (artifact.address or named_in(artifact.path.parent) == artifact.fingerprint):
                return artifact

    def plan(
        self,
        context: dg.AssetExecutionContext,
        *,
        sections: Mapping[str, Any],
        resolved: Mapping[str, Any],
        inputs: Sequence[Artifact] = (),
        beside: tuple[str, str] | None = None,
    ) -> "Plan":
        """The artifact-to-be of the asset and partition that `context` materializes, with its fingerprint.

        It is that of the asset, its code version, the recipe `sections` that it reads, what they `resolved` to, and the
        fingerprints of its `inputs`.

        Args:
            beside: of an artifact that the asset makes beside its own, for other recipes to use too: its name, and
                what stands in the place of the partition.
        """
        asset, partition = beside or (context.asset_key.path[-1], context.partition_key)
        record = {
            "asset": asset,
            "inputs": {artifact.asset: artifact.fingerprint for artifact in inputs},
            "sections": dict(sections),
            "resolved": dict(resolved),
            **({"smoke": True} if self.smoke else {}),
        }
        code_version = context.assets_def.code_versions_by_key[context.asset_key]
        return Plan(
            home=self.home(asset, partition),
            fingerprint=fingerprint_of({**record, "code_version": code_version}),
            record={**record, "partition": partition},
            log=context.log.info,
            remote=self.remote(context.log.info),
        )


@dataclass(frozen=True)
class Plan:
    """An artifact that is there already or is about to be written."""

    home: Path
    fingerprint: str
    record: dict[str, Any]
    log: Callable[[str], None]
    remote: "ObjectStore | None" = None

    def obtain(
        self,
        write: Callable[[Path], dict[str, Any]],
        still_valid: Callable[[Artifact], bool] = lambda artifact: True,
    ) -> Artifact:
        """The complete artifact of this fingerprint, or the one that `write` makes, in force from now on.

        `write` fills an empty folder and returns the summary (JSON) that the manifest keeps; when it raises, nothing of
        the folder remains, and `checkpoints_of` it remains for the next attempt at this very fingerprint. `still_valid`
        can turn down a complete artifact whose effect outside the store has gone.
        """
        started = time.monotonic()
        self.home.mkdir(parents=True, exist_ok=True)
        folder = self.home / self.fingerprint
        with locked(self.home / ".lock", self.log):
            artifact = self.remote.obtainable(folder) if self.remote else read_artifact(folder)
            reused = artifact is not None and still_valid(artifact)
            record = {**self.record, "fingerprint": self.fingerprint}
            for line in clear(self.home, record, finished=reused):
                self.log(line)
            if artifact is None or not reused:
                artifact = self._made(record, write, instead=artifact is not None)
            artifact = self._put_in_force(artifact)
            hold(artifact.path)
        self.log(
            f"{artifact.asset} {self.fingerprint}: {'reused' if reused else 'written'}, "
            + (f"{artifact.address} (here: {artifact.path})" if artifact.address else str(artifact.path))
        )
        if self.remote:
            self.remote.trim()
        return replace(artifact, reused=reused, seconds=time.monotonic() - started)

    def _made(self, record: dict[str, Any], write: Callable[[Path], dict[str, Any]], instead: bool = False) -> Artifact:
        """The artifact that `write` made, here; what it was made instead of no longer counts as stored."""
        if self.remote:
            self.remote.objects.require_writable()  # a training is not to end with nowhere to go
        artifact = build(self.home, record, write)
        if self.remote and instead:
            self.remote.withdraw(artifact.path)
        return artifact

    def _put_in_force(self, artifact: Artifact) -> Artifact:
        """The artifact in force: that one, or another machine's that was made at the same time and stored first."""
        if self.remote:
            artifact = self.remote.store(artifact)
            self.remote.put_in_force(artifact)
        else:
            write_json(self.home / CURRENT, {"fingerprint": self.fingerprint})
        return artifact


@contextmanager
def locked(path: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Nothing; holds the lock of `path`, after saying so if another process has it. A killed process holds none."""
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


def build(home: Path, record: dict[str, Any], write: Callable[[Path], dict[str, Any]]) -> Artifact:
    """The artifact that `write` made, renamed into its place once all of it is on the disk."""
    workshop, final = home / f".{record['fingerprint']}.partial", home / record["fingerprint"]
    partial = workshop / DRAFT
    partial.mkdir(parents=True)
    write_json(workshop / RECORD, record)
    started = time.monotonic()
    try:
        summary = write(partial)
        files = {name: sha256(partial / name) for name in content_of(partial)}
        artifact = Artifact(
            **record,
            path=final,
            summary=summary,
            files=files,
            versions=installed_versions(),
            bytes=sum((partial / name).stat().st_size for name in files),
            seconds=round(time.monotonic() - started, 3),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        sync(*partial.rglob("*"))
        write_json(partial / MANIFEST, manifest_of(artifact))
        sync(partial)
    except BaseException:
        shutil.rmtree(partial if checkpoints_of(partial).exists() else workshop, ignore_errors=True)
        raise
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    sync(home)
    shutil.rmtree(workshop)
    return artifact


def hold(folder: Path) -> bool:
    """Whether the artifact in that folder is there; nobody removes it before this process ends then."""
    try:
        manifest = (folder / MANIFEST).open("rb")
    except FileNotFoundError:
        return False
    flock(manifest, LOCK_SH)
    LEASES.setdefault(os.fstat(manifest.fileno()).st_ino, manifest)
    return (folder / MANIFEST).exists()


@contextmanager
def idle_home(home: Path) -> Iterator[bool]:
    """Whether nobody makes an artifact in `home`; nobody does before the block ends then."""
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


def checkpoints_of(draft: Path) -> Path:
    """The folder beside that of an artifact in the making which outlives a failure, for the next attempt to go on."""
    return draft.with_name(CHECKPOINTS)


def clear(home: Path, record: Mapping[str, Any], finished: bool) -> list[str]:
    """What there is to say about what earlier attempts left in `home`, which then holds no more than checkpoints.

    The caller holds the lock of `home`, so that whatever lies there belongs to a process that died. Only checkpoints of
    the artifact that is made next remain; none if it is `finished`.
    """
    said = []
    for workshop in home.glob(".*.partial"):
        checkpoints = checkpoints_of(workshop / DRAFT)
        if workshop.name == f".{record['fingerprint']}.partial" and checkpoints.exists() and not finished:
            shutil.rmtree(workshop / DRAFT, ignore_errors=True)
            continue
        if checkpoints.exists() and not finished:
            said.append(f"starting afresh: the checkpoints in {home} are of another {record['asset']}")
            said += [f"  {line}" for line in differences(read_record(workshop), record)]
        shutil.rmtree(workshop)
    return said


def read_record(workshop: Path) -> dict[str, Any]:
    """What an attempt was going to make; nothing where it died before it could say."""
    try:
        return json.loads((workshop / RECORD).read_text())
    except (OSError, ValueError):
        return {}


def differences(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> list[str]:
    """A line for each value that is not the same in both: `sections.lora.r: 8, now 16`."""
    lines = []
    for key in sorted(before.keys() | after.keys()):
        old, new, place = before.get(key), after.get(key), f"{path}.{key}".lstrip(".")
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, place)
        elif old != new and key != "fingerprint":
            lines.append(f"{place}: {json.dumps(old)}, now {json.dumps(new)}")
    return lines


class ArtifactIOManager(dg.ConfigurableIOManager):
    """Hands an asset the artifacts of the assets that it names as parameters; the assets themselves write them."""

    artifacts: Artifacts

    def handle_output(self, context: dg.OutputContext, obj: Artifact) -> None:
        """Nothing: the artifact is in force since `Plan.obtain` returned."""

    def load_input(self, context: dg.InputContext) -> Artifact:
        """The artifact in force of the asset upstream, for the partition that runs.

        Raises:
            dagster.Failure: there is none.
        """
        try:
            return self.artifacts.held(context.asset_key.path[-1], context.partition_key, context.log.info)
        except FinetuningError as error:
            passes = isinstance(error, PassingError)
            raise dg.Failure(str(error), metadata={KIND: error.kind}, allow_retries=passes) from None
