"""Artifacts on a real S3 server: the guarantees that they have on a disk, and those of the cache."""

import json
import os
import subprocess
import sys
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import fsspec
import pytest

from finetuning.errors import FinetuningError, PassingError
from resources import multipart
from resources.artifacts import (
    LEASES,
    MANIFEST,
    ArtifactIOManager,
    Artifacts,
    checkpoints_of,
    manifest_of,
    read_artifact,
)
from resources.retention import unreferenced
from tests.resources.s3 import BUCKET, SECRET, Machine, must_not_write, s3_server, write_files, write_own

ROOT = Path(__file__).resolve().parents[2]
LATER = datetime.now(UTC) + timedelta(days=30)


@pytest.fixture(scope="module")
def server():
    with s3_server() as server:
        yield server
        fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def address(server):
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def here(address, tmp_path):
    return Machine(address, tmp_path / "here")


@pytest.fixture
def there(address, tmp_path):
    """Another machine."""
    return Machine(address, tmp_path / "there")


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(multipart, "PART_BYTES", 2500)


def let_go():
    """This process no longer uses anything."""
    while LEASES:
        LEASES.popitem()[1].close()


def objects(machine) -> dict[str, bytes]:
    """What the bucket holds below the machine's address."""
    prefix = machine.address.removeprefix(f"s3://{BUCKET}/") + "/"
    s3 = boto3.client("s3")
    names = [found["Key"] for found in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]
    return {name.removeprefix(prefix): s3.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}


def put(machine, name: str, content: bytes) -> None:
    prefix = machine.address.removeprefix(f"s3://{BUCKET}/")
    boto3.client("s3").put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=content)


def delete(machine, name: str) -> None:
    prefix = machine.address.removeprefix(f"s3://{BUCKET}/")
    boto3.client("s3").delete_object(Bucket=BUCKET, Key=f"{prefix}/{name}")


def current(machine):
    """The artifact in force, as a machine that has nothing yet finds it."""
    store = machine.store
    artifacts = Artifacts(root=machine.address, cache=str(machine.cache))
    assert artifacts.home("thing", "tiny") == store.cache / "thing" / "tiny"
    return artifacts.current("thing", "tiny", machine.said.append)


def test_an_artifact_is_stored_under_its_names_and_another_machine_takes_it(here, there):
    made = here.plan().obtain(write_files)
    names = sorted(objects(here))
    home = f"thing/tiny/{made.fingerprint}"
    content = next(name for name in names if name.endswith("data.txt")).removesuffix("/data.txt")
    assert content.startswith(home) and names == sorted(
        [
            ".writable",
            "thing/tiny/current.json",
            f"{home}/artifact.json",
            *(f"{content}/{name}" for name in ("data.txt", "more/empty", "weights.bin")),
        ]
    )
    taken = there.plan().obtain(must_not_write)
    assert (made.reused, taken.reused) == (False, True)
    assert taken.path.is_relative_to(there.cache) and (taken.path / "data.txt").read_text() == "hello"
    assert taken.address == made.address == f"{here.address}/{home}"
    assert manifest_of(taken) == manifest_of(made)
    taken.verify()


def test_what_is_reused_is_neither_sent_nor_fetched_again(here, there):
    here.plan().obtain(write_files)
    there.plan().obtain(must_not_write)
    before = objects(here)
    for machine in (here, there):
        machine.said.clear()
        assert machine.plan().obtain(must_not_write).reused
        assert not [line for line in machine.said if line.startswith(("uploading", "downloading"))]
    assert objects(here) == before


def test_what_is_recorded_and_shown_is_as_on_a_disk(here, tmp_path):
    disk = replace(here.plan(), home=tmp_path / "disk" / "thing" / "tiny", remote=None).obtain(write_files)
    stored = here.plan().obtain(write_files)
    differing = {"created", "seconds"}
    assert {k: v for k, v in manifest_of(disk).items() if k not in differing} == {
        k: v for k, v in manifest_of(stored).items() if k not in differing
    }
    assert stored.metadata().keys() == disk.metadata().keys()
    assert stored.metadata()["path"].value == stored.address
    told = json.dumps(str([here.said, stored.metadata()])) + (stored.path / MANIFEST).read_text()
    assert SECRET not in told and SECRET.encode() not in b"".join(objects(here).values())


def test_the_artifact_in_force_is_that_of_the_last_run_on_any_machine(here, there):
    old = here.plan().obtain(write_files)
    new = there.plan(sections={"lora": 1}).obtain(write_files)
    assert current(here).fingerprint == new.fingerprint
    here.plan().obtain(must_not_write)
    assert current(there).fingerprint == old.fingerprint


def test_without_an_artifact_the_message_names_the_address(here):
    with pytest.raises(FinetuningError, match=f"{here.address}/thing/tiny: no complete artifact of thing for tiny"):
        current(here)


# A fork for each moment at which a run may be killed: before or after the server did what the n-th request asks for.
KILLED = """
import os, signal, sys
from pathlib import Path
import aiobotocore.client
from resources import multipart
from tests.resources.s3 import Machine, write_files
multipart.PART_BYTES = 2500
address, root = sys.argv[1], Path(sys.argv[2])
ask = aiobotocore.client.AioBaseClient._make_api_call

def run(moment):
    asked = 0
    async def counted(self, operation, arguments):
        nonlocal asked
        asked += 1
        if asked == moment // 2 + 1 and moment % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = await ask(self, operation, arguments)
        if asked == moment // 2 + 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer
    aiobotocore.client.AioBaseClient._make_api_call = counted
    Machine(f"{address}/{moment}", root / str(moment)).plan().obtain(write_files)

moment = 0
while True:
    if not os.fork():
        run(moment)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.wait()[1])
    assert status in (0, -signal.SIGKILL), status
    if status == 0:
        break
    moment += 1
print(moment)
"""


def test_a_run_killed_at_any_request_leaves_no_half_artifact_and_the_next_one_goes_on(
    server, address, tmp_path, small_parts
):
    command = [sys.executable, "-c", KILLED, address, str(tmp_path / "killed")]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    moments = int(child.stdout)
    assert moments > 30, "fewer requests than an upload with parts takes"
    built, whole = 0, 0
    for moment in range(moments):
        killed = Machine(f"{address}/{moment}", tmp_path / "killed" / str(moment))
        other = Machine(killed.address, tmp_path / "other" / str(moment))
        fingerprint = killed.plan().fingerprint
        if f"thing/tiny/{fingerprint}/artifact.json" in objects(killed):
            whole += 1
            other.plan().obtain(must_not_write).verify()
        else:
            with pytest.raises(FinetuningError, match="no complete artifact"):
                current(other)
            was_made = read_artifact(killed.store.cache / "thing" / "tiny" / fingerprint) is not None
            built += was_made
            killed.plan().obtain(must_not_write if was_made else write_files)
            current(other).verify()
    assert built > 10 and whole > 2


def test_the_parts_of_a_large_file_that_have_arrived_are_not_sent_again(here, small_parts, monkeypatch):
    from aiobotocore.client import AioBaseClient

    sent, ask = [], AioBaseClient._make_api_call

    async def watched(self, operation, arguments):
        if operation == "UploadPart":
            if len(sent) >= 3:
                raise PermissionError("no more")
            sent.append(arguments["PartNumber"])
        return await ask(self, operation, arguments)

    monkeypatch.setattr(multipart, "AT_ONCE", 1)
    monkeypatch.setattr(AioBaseClient, "_make_api_call", watched)
    with pytest.raises(FinetuningError, match="no more"):
        here.plan().obtain(write_files)
    assert sent == [1, 2, 3]
    sent[:] = []
    artifact = here.plan().obtain(must_not_write)
    assert sent == [4]
    assert any(content == (artifact.path / "weights.bin").read_bytes() for content in objects(here).values())


RIVAL = """
import sys, time
from pathlib import Path
from tests.resources.s3 import Machine, write_own
machine = Machine(sys.argv[1], Path(sys.argv[2]))
machine.store.objects.read("warm")
Path(sys.argv[2] + ".ready").touch()
while not Path(sys.argv[3]).exists():
    time.sleep(0.01)
artifact = machine.plan().obtain(write_own)
artifact.verify()
print(artifact.summary["process"])
"""


def test_two_machines_that_make_the_same_at_once_end_with_one_whole_artifact(address, tmp_path, there):
    names, go = ("one", "two"), tmp_path / "go"
    commands = [[sys.executable, "-c", RIVAL, address, str(tmp_path / name), str(go)] for name in names]
    rivals = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for command in commands]
    while not all((tmp_path / f"{name}.ready").exists() for name in names):
        assert all(rival.poll() is None for rival in rivals)
    go.touch()
    ends = {rival.communicate(timeout=60)[0].strip() for rival in rivals}
    assert [rival.returncode for rival in rivals] == [0, 0]
    assert len(ends) == 1, "the machines went on with different artifacts"
    taken = there.plan().obtain(must_not_write)
    taken.verify()
    assert str(taken.summary["process"]) in ends


def test_who_is_second_goes_on_with_what_the_first_one_stored(here, there):
    def write_late(folder):
        here.plan().obtain(write_own)
        return write_own(folder) | {"late": True}

    second = there.plan().obtain(write_late)
    assert "late" not in second.summary
    second.verify()
    assert manifest_of(second) == manifest_of(here.plan().obtain(must_not_write))


@pytest.mark.parametrize("damage", ["changed", "missing", "manifest"])
def test_a_damaged_artifact_is_never_taken_for_whole_and_is_made_again(here, there, damage):
    here.plan().obtain(write_files)
    name = next(
        name for name in objects(here) if name.endswith("artifact.json" if damage == "manifest" else "data.txt")
    )
    if damage == "missing":
        delete(here, name)
    else:
        put(here, name, b"HELLO")
    what = {"changed": "data.txt has other contents", "missing": "data.txt is missing", "manifest": "can not be read"}
    with pytest.raises(FinetuningError, match=rf"{what[damage]}.*Materialize thing for tiny again"):
        current(there)
    assert not there.plan().obtain(write_files).reused
    current(Machine(there.address, there.cache.with_name("third"))).verify()


def test_a_file_that_got_lost_is_sent_again_from_a_machine_that_has_it(here, there):
    here.plan().obtain(write_files)
    delete(here, next(name for name in objects(here) if name.endswith("data.txt")))
    here.plan().obtain(must_not_write)
    current(there).verify()


def test_a_manifest_that_names_files_outside_its_folder_is_refused(here, there):
    artifact = here.plan().obtain(write_files)
    manifest = manifest_of(artifact) | {"files": {"../../../../outside": "0" * 64}}
    put(here, f"thing/tiny/{artifact.fingerprint}/artifact.json", json.dumps(manifest).encode())
    with pytest.raises(FinetuningError, match="outside its folder"):
        current(there)


def test_what_was_changed_on_the_disk_before_it_was_sent_is_not_stored(here):
    artifact = here.plan().obtain(write_files)
    for name in objects(here):
        delete(here, name)
    (artifact.path / "data.txt").write_text("HELLO")
    with pytest.raises(FinetuningError, match=r"data\.txt: changed after it was written"):
        here.plan().obtain(must_not_write)


def test_an_artifact_whose_effect_is_gone_is_replaced_for_all_machines(here, there):
    there.plan().obtain(write_own)
    again = here.plan().obtain(write_own, still_valid=lambda artifact: False)
    assert not again.reused
    taken = there.plan().obtain(must_not_write)
    assert manifest_of(taken) == manifest_of(again)
    taken.verify()


def test_a_server_that_is_out_for_a_moment_is_waited_for(server, here):
    def write(folder):
        server.stop()
        return write_files(folder)

    class Back(list):
        def append(self, line):
            super().append(line)
            if "trying again" in line and len(self) > 2:
                server.start()

    waiting = replace(here, said=Back(), pauses=(0.01, 0.01, 0.01, 0.01))
    waiting.plan().obtain(write)
    tries = [line for line in waiting.said if "; trying again in 0.01 s" in line]
    assert tries and "EndpointConnectionError" in tries[0]


def test_what_was_made_while_the_server_went_out_is_kept_and_stored_by_the_next_run(server, here, there):
    def write(folder):
        checkpoints_of(folder).mkdir()
        server.stop()
        return write_files(folder)

    try:
        with pytest.raises(
            PassingError, match=f"{here.address} can not be reached or fails .*Nothing that was made is lost"
        ):
            here.plan().obtain(write)
        with pytest.raises(PassingError):
            current(here)
    finally:
        server.start()
    assert here.plan().obtain(must_not_write).reused
    current(there).verify()


def test_an_input_that_can_not_be_fetched_for_a_moment_is_worth_another_try(server, here, monkeypatch):
    import dagster as dg

    monkeypatch.setattr("resources.objects.PAUSES", ())
    monkeypatch.setattr("resources.objects.Objects.__dataclass_fields__", {})
    context = dg.build_input_context(asset_key=dg.AssetKey("thing"), partition_key="tiny")
    loader = ArtifactIOManager(artifacts=Artifacts(root=here.address, cache=str(here.cache)))
    with pytest.raises(dg.Failure) as none:
        loader.load_input(context)
    assert not none.value.allow_retries
