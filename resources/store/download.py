"""Brings a stored artifact to this machine, file by file; what arrived before a download was cut off is kept.

>>> download(objects, "lora_adapter/phi-2/0a1b…", artifact)  # which then lies at artifact.path
"""

import shutil
from pathlib import Path

from finetuning.digests import sha256
from finetuning.durable import sync, write_json
from finetuning.errors import InfrastructureError
from resources.store.artifact import MANIFEST, Artifact, content_of, fingerprint_of, manifest_of
from resources.store.objects import Objects


class DamagedArtifact(InfrastructureError):
    """An artifact whose objects are not what its manifest says. `objects` are the names of those that are wrong."""

    def __init__(self, address: str, what: str, *objects: str) -> None:
        asset, partition = address.split("/")[-3:-1]
        super().__init__(
            f"{address}: {what}. Materialize {asset} for {partition} again, which makes what is not whole anew: "
            f"dagster asset materialize --select {asset} --partition {partition} -m pipelines.definitions"
        )
        self.objects = objects


def download(objects: Objects, name: str, artifact: Artifact) -> None:
    """Fill the artifact's folder with its files, of which those that an earlier attempt fetched are not fetched again.

    Args:
        name: of the artifact's folder, below the address of the objects.

    Raises:
        DamagedArtifact: a file is missing, or is not what was written.
    """
    folder = artifact.path
    draft, home = draft_of(folder), folder.parent
    for other in set(home.glob(".*.download")) - {draft}:  # of processes that died
        shutil.rmtree(other)
    if folder.exists() and not draft.exists():  # other content than what is stored now, or not all of it
        folder.rename(draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.mkdir(parents=True, exist_ok=True)
    for file in {MANIFEST, *content_of(draft)} - artifact.files.keys():
        (draft / file).unlink(missing_ok=True)
    for file, digest in artifact.files.items():
        _download_file(objects, name, f"{fingerprint_of(artifact.files)}/{file}", draft / file, digest)
    sync(*draft.rglob("*"))
    write_json(draft / MANIFEST, manifest_of(artifact))
    sync(draft)
    draft.rename(folder)
    sync(home)


def _download_file(objects: Objects, name: str, file: str, path: Path, digest: str) -> None:
    """Fetch the object `name/file` to `path`, unless the file is there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    there = True
    for _ in range(2):  # a second time, should it have been the way here that changed it
        if path.is_file() and sha256(path) == digest:
            return
        there = objects.fetch(f"{name}/{file}", path)
    if not there or sha256(path) != digest:
        what = "has other contents than were written" if there else "is missing"
        raise DamagedArtifact(f"{objects.address}/{name}", f"{file} {what}", f"{name}/{file}")


def draft_of(folder: Path) -> Path:
    """Return the folder where an artifact lies until all of it has come."""
    return folder.with_name(f".{folder.name}.download")
