"""An artifact that is about to be: found by its fingerprint, or written whole."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue

from finetuning.digests import sha256
from finetuning.durable import sync, write_json
from finetuning.record import Record
from resources.store.artifact import (
    MANIFEST,
    Artifact,
    Log,
    Origin,
    content_of,
    installed_versions,
    manifest_of,
)
from resources.store.locks import hold, locked
from resources.store.store import Store

# In the folder where an artifact is made: the artifact, what a failure leaves for the next attempt, what it is made of.
DRAFT, CHECKPOINTS, RECORD = "artifact", "checkpoints", "plan.json"


Write = Callable[[Path], Record | Mapping[str, JsonValue]]


@dataclass(frozen=True)
class Plan:
    """An artifact that is there already or is about to be written."""

    store: Store
    origin: Origin
    fingerprint: str
    log: Log
    partition: str | None = None
    """Where partitions share the artifact: in whose home it is to be in force."""

    @property
    def home(self) -> Path:
        """The folder, on this machine, of the artifact's asset and partition."""
        return self.store.home(self.origin.asset, self.origin.partition)

    def obtain(
        self,
        write: Write,
        still_valid: Callable[[Artifact], bool] = lambda artifact: True,
    ) -> Artifact:
        """Return the complete artifact of this fingerprint, or the one that `write` makes, in force from now on.

        `write` fills an empty folder and returns the summary that the manifest keeps; when it raises, nothing of
        the folder remains, and `checkpoints_of` it remains for the next attempt at this very fingerprint. `still_valid`
        can turn down a complete artifact whose effect outside the store has gone. One that was made from other files,
        of inputs with the same fingerprints, is made anew.

        Raises:
            FinetuningError: the artifact that is there is not what was written.
        """
        started = time.monotonic()
        self.home.mkdir(parents=True, exist_ok=True)
        with locked(self.home / ".lock", self.log):
            there = self.store.obtainable(self.home / self.fingerprint)
            reused = there if there and is_of(there.contents, self.origin.contents) else None
            if reused:
                reused.verify()  # before anything is read of it
                reused = reused if still_valid(reused) else None
            for line in clear(self.home, self._record(), finished=reused is not None):
                self.log(line)
            artifact = self.store.store(reused or self._made(write), instead=there is not None and not reused)
            self.store.put_in_force(
                artifact, self.store.home(self.origin.asset, self.partition or self.origin.partition)
            )
            hold(artifact.path)
        done = "reused" if reused else "written"
        self.log(f"{artifact.asset} {self.fingerprint}: {done}, {artifact.place()}")
        self.store.trim()
        return replace(artifact, reused=reused is not None, seconds=time.monotonic() - started)

    def _record(self) -> dict[str, JsonValue]:
        """What an attempt leaves word of, for the next one to compare with."""
        return self.origin.as_json() | {"contents": {**self.origin.contents}, "fingerprint": self.fingerprint}

    def _made(self, write: Write) -> Artifact:
        """Return the artifact that `write` made, renamed into its place once all of it is on the disk."""
        self.store.require_writable()
        workshop, final = self.home / f".{self.fingerprint}.partial", self.home / self.fingerprint
        partial = workshop / DRAFT
        partial.mkdir(parents=True)
        write_json(workshop / RECORD, self._record())
        started = time.monotonic()
        try:
            made = write(partial)
            files = {name: sha256(partial / name) for name in content_of(partial)}
            artifact = Artifact(
                **asdict(self.origin),
                fingerprint=self.fingerprint,
                path=final,
                summary=made.as_json() if isinstance(made, Record) else dict(made),
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
        sync(self.home)
        shutil.rmtree(workshop)
        return artifact


def checkpoints_of(draft: Path) -> Path:
    """Return the folder beside that of an artifact in the making that outlives a failure, for the next attempt."""
    return draft.with_name(CHECKPOINTS)


def clear(home: Path, record: Mapping[str, JsonValue], finished: bool) -> list[str]:
    """Remove what earlier attempts left in `home`, but for checkpoints; return what there is to say about it.

    The caller holds the lock of `home`, so that whatever lies there belongs to a process that died. Only checkpoints of
    the artifact that is made next remain; none if it is `finished`.
    """
    said = []
    for workshop in home.glob(".*.partial"):
        checkpoints = checkpoints_of(workshop / DRAFT)
        before = read_record(workshop)
        is_next = workshop.name == f".{record['fingerprint']}.partial" and is_of(
            contents_in(before), contents_in(record)
        )
        if is_next and checkpoints.exists() and not finished:
            shutil.rmtree(workshop / DRAFT, ignore_errors=True)
            continue
        if checkpoints.exists() and not finished:
            said.append(f"starting afresh: the checkpoints in {home} are of another {record['asset']}")
            said += [f"  {line}" for line in differences(before, record)]
        shutil.rmtree(workshop)
    return said


def read_record(workshop: Path) -> dict[str, JsonValue]:
    """Return what an attempt was going to make; an empty record where it died before it could say."""
    try:
        record = json.loads((workshop / RECORD).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def contents_in(record: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Return the content of each input that a record tells of."""
    found = record.get("contents")
    return found if isinstance(found, Mapping) else {}


def is_of(before: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> bool:
    """Return whether what was made from the contents `before` is made from those of `now`, as far as it tells."""
    return all(before.get(asset, content) == content for asset, content in now.items())


def differences(before: Mapping[str, JsonValue], after: Mapping[str, JsonValue], path: str = "") -> list[str]:
    """Return a line for each value that is not the same in both: `sections.lora.r: 8, now 16`."""
    lines = []
    for key in sorted(before.keys() | after.keys()):
        old, new, place = before.get(key), after.get(key), f"{path}.{key}".lstrip(".")
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, place)
        elif old != new and key != "fingerprint":
            lines.append(f"{place}: {json.dumps(old)}, now {json.dumps(new)}")
    return lines
