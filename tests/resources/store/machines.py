"""What the bucket holds below a machine's address, and what a machine finds there."""

import json

from resources.artifacts import Artifacts
from resources.store.artifact import MANIFEST
from tests.resources.s3 import BUCKET, client


def objects(machine) -> dict[str, bytes]:
    """What the bucket holds below the machine's address."""
    prefix = machine.address.removeprefix(f"s3://{BUCKET}/") + "/"
    s3 = client()
    names = [found["Key"] for found in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]
    return {name.removeprefix(prefix): s3.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}


def put(machine, name: str, content: bytes) -> None:
    prefix = machine.address.removeprefix(f"s3://{BUCKET}/")
    client().put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=content)


def delete(machine, name: str) -> None:
    prefix = machine.address.removeprefix(f"s3://{BUCKET}/")
    client().delete_object(Bucket=BUCKET, Key=f"{prefix}/{name}")


def current(machine):
    """The artifact in force, as a machine that has nothing yet finds it."""
    store = machine.store
    artifacts = Artifacts(root=machine.address, cache=str(machine.cache))
    assert artifacts.home("thing", "tiny") == store.cache / "thing" / "tiny"
    return artifacts.current("thing", "tiny", machine.said.append)


def written(artifact):
    """Its manifest as it lies there."""
    return json.loads((artifact.path / MANIFEST).read_text())
