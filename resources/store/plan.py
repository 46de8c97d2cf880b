"""An artifact that is about to be: found by its fingerprint, or written whole."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resources.store.object_store import ObjectStore
from finetuning.durable import sync, write_json
from finetuning.record import Record
from resources.store.artifact import (
    CURRENT,
    MANIFEST,
    Artifact,
    content_of,
    installed_versions,
    manifest_of,
    read_artifact,
    sha256,
)
from resources.store.locks import hold, locked

# In the folder where an artifact is made: the artifact, what a failure leaves for the next attempt, what it is made of.
DRAFT, CHECKPOINTS, RECORD = "artifact", "checkpoints", "plan.json"


Write = Callable[[Path], Record | dict[str, Any]]


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
        write: Write,
        still_valid: Callable[[Artifact], bool] = lambda artifact: True,
    ) -> Artifact:
        """The complete artifact of this fingerprint, or the one that `write` makes, in force from now on.

        `write` fills an empty folder and returns the summary that the manifest keeps; when it raises, nothing of
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

    def _made(self, record: dict[str, Any], write: Write, instead: bool = False) -> Artifact:
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


def build(home: Path, record: dict[str, Any], write: Write) -> Artifact:
    """The artifact that `write` made, renamed into its place once all of it is on the disk."""
    workshop, final = home / f".{record['fingerprint']}.partial", home / record["fingerprint"]
    partial = workshop / DRAFT
    partial.mkdir(parents=True)
    write_json(workshop / RECORD, record)
    started = time.monotonic()
    try:
        made = write(partial)
        summary = made.as_json() if isinstance(made, Record) else made
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
