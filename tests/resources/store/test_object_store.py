"""Artifacts on a real S3 server: the guarantees that they have on a disk, and those of the cache."""

import json
import signal
import time
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import fsspec
import pytest

from finetuning.errors import FinetuningError, TransientError
from resources.artifacts import ArtifactIOManager, Artifacts
from resources.store import multipart
from resources.store.artifact import MANIFEST, manifest_of, read_artifact
from resources.store.disk import DiskStore
from resources.store.locks import LEASES
from resources.store.plan import checkpoints_of
from resources.store.retention import unreferenced
from tests.resources.s3 import (
    BUCKET,
    SECRET,
    SMALL,
    Machine,
    client,
    must_not_write,
    obtain_until,
    obtain_when,
    s3_server,
    start,
    write_files,
    write_own,
)

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
    monkeypatch.setattr(multipart, "PART_BYTES", SMALL)


def let_go():
    """This process no longer uses anything."""
    while LEASES:
        LEASES.popitem()[1].close()


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
    assert written(taken) == written(made)
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
    disk = replace(here.plan(), store=DiskStore(tmp_path / "disk")).obtain(write_files)
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


def test_a_run_killed_after_any_change_leaves_no_half_artifact_and_the_next_one_goes_on(
    server, address, tmp_path, small_parts
):
    def machine(moment, name):
        return Machine(f"{address}/{moment}", tmp_path / name / str(moment))

    counts, moment = Counter(), 1
    while killed_at(moment, killed := machine(moment, "killed")):
        folder = killed.plan().home / killed.plan().fingerprint
        if f"thing/tiny/{folder.name}/artifact.json" in objects(killed):
            counts["stored"] += 1
            machine(moment, "other").plan().obtain(must_not_write).verify()
        else:
            with pytest.raises(FinetuningError, match="no complete artifact"):
                current(machine(moment, "other"))
            made = read_artifact(folder) is not None
            counts["made"] += made
            killed.plan().obtain(must_not_write if made else write_files)
            current(machine(moment, "other")).verify()
        moment += 1
    assert moment > 10 and counts["made"] > 7 and counts["stored"] > 1


def killed_at(moment, machine):
    """Whether a run there was killed; it came to its end otherwise."""
    process = start(obtain_until, machine, moment)
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


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


def test_an_upload_that_another_machine_ended_first_has_arrived(here, there, small_parts, monkeypatch):
    from aiobotocore.client import AioBaseClient

    parts, uploads, ask = [], [], AioBaseClient._make_api_call

    async def watched(self, operation, arguments):
        if operation == "CompleteMultipartUpload" and not uploads:
            uploads.append(arguments)
            raise PermissionError("no more")
        if operation == "ListParts" and uploads:
            await ask(self, "CompleteMultipartUpload", uploads[0])
        if operation == "UploadPart":
            parts.append(arguments["PartNumber"])
        return await ask(self, operation, arguments)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", watched)
    with pytest.raises(FinetuningError, match="no more"):
        here.plan().obtain(write_files)
    here.plan().obtain(must_not_write)
    assert sorted(parts) == [1, 2, 3, 4]
    current(there).verify()


def test_a_download_that_was_cut_off_is_no_artifact_and_the_next_one_goes_on(here, there, monkeypatch):
    from aiobotocore.client import AioBaseClient

    made = here.plan().obtain(write_files)
    fetched, ask = [], AioBaseClient._make_api_call

    async def watched(self, operation, arguments):
        if operation == "GetObject" and not arguments["Key"].endswith(".json"):
            fetched.append(arguments["Key"].rpartition("/")[2])
            if fetched == ["data.txt", "empty"]:
                raise PermissionError("no more")
        return await ask(self, operation, arguments)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", watched)
    home = there.plan().home
    with pytest.raises(FinetuningError, match="no more"):
        current(there)
    assert not (home / made.fingerprint).exists() and there.store.here.complete() == []
    (home / ".0123456789abcdef.download").mkdir()
    current(there).verify()
    assert fetched == ["data.txt", "empty", "empty", "weights.bin"]
    assert list(home.glob(".*.download")) == []


def test_two_machines_that_make_the_same_at_once_end_with_one_whole_artifact(address, tmp_path, there):
    ready, go = [tmp_path / "one.ready", tmp_path / "two.ready"], tmp_path / "go"
    rivals = [start(obtain_when, Machine(address, path.with_suffix("")), path, go) for path in ready]
    while not all(path.exists() for path in ready):
        assert all(rival.is_alive() for rival in rivals)
        time.sleep(0.01)
    go.touch()
    for rival in rivals:
        rival.join(60)
    assert [rival.exitcode for rival in rivals] == [0, 0]
    ends = {path.read_text() for path in ready}
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
    assert written(second) == written(here.plan().obtain(must_not_write))


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
    what = {"changed": "data.txt has other contents", "missing": "data.txt is missing", "manifest": "cannot be read"}
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


def test_a_download_that_the_disk_has_no_room_for_is_not_begun(here, there):
    artifact = here.plan().obtain(write_files)
    manifest = manifest_of(artifact) | {"bytes": 10**18}
    put(here, f"thing/tiny/{artifact.fingerprint}/artifact.json", json.dumps(manifest).encode())
    with pytest.raises(FinetuningError, match=r"the disk is full: .*FINETUNING_ARTIFACTS_CACHE"):
        current(there)
    assert "downloading" not in str(there.said)


def test_storage_that_is_no_s3_is_used_in_the_same_way(tmp_path):
    address = f"memory://{uuid.uuid4().hex}"
    made = Machine(address, tmp_path / "here").plan().obtain(write_files)
    there = Machine(address, tmp_path / "there")
    taken = there.plan().obtain(must_not_write)
    assert taken.reused and written(taken) == written(made)
    assert there.store.objects.create("current.json", b"1") and not there.store.objects.create("current.json", b"2")


def test_what_was_changed_on_the_disk_before_it_was_sent_is_not_stored(here):
    artifact = here.plan().obtain(write_files)
    for name in objects(here):
        delete(here, name)
    (artifact.path / "data.txt").write_text("HELLO")
    with pytest.raises(FinetuningError, match=r"changed after it was written: data\.txt"):
        here.plan().obtain(must_not_write)


def test_an_artifact_whose_effect_is_gone_is_replaced_for_all_machines(here, there):
    there.plan().obtain(write_own)
    again = here.plan().obtain(write_files, still_valid=lambda artifact: False)
    assert not again.reused and again.summary == {"rows": 1}
    taken = there.plan().obtain(must_not_write)
    assert written(taken) == written(again)
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
            TransientError, match=f"{here.address} cannot be reached or fails .*Nothing that was made is lost"
        ):
            here.plan().obtain(write)
        with pytest.raises(TransientError):
            here.store.fetch(here.plan().home / here.plan().fingerprint)
    finally:
        server.start()
    assert here.plan().obtain(must_not_write).reused
    current(there).verify()


def test_an_input_that_can_not_be_fetched_for_a_moment_is_worth_another_try(server, here, monkeypatch):
    context = dg.build_input_context(asset_key=dg.AssetKey("thing"), partition_key="tiny")
    loader = ArtifactIOManager(artifacts=Artifacts(root=here.address, cache=str(here.cache)))
    with pytest.raises(dg.Failure, match="no complete artifact") as none:
        loader.load_input(context)
    assert not none.value.allow_retries
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server.stop()
    with pytest.raises(dg.Failure, match="cannot be reached") as out:
        loader.load_input(context)
    server.start()
    assert out.value.allow_retries
    made = here.plan().obtain(write_files)
    assert loader.load_input(context).path == made.path


def test_without_the_right_to_write_nothing_is_made(here, there):
    here.plan().obtain(write_files)
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"}
    s3 = client()
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    try:
        with pytest.raises(FinetuningError, match=f"{here.address}: refused .*have to allow to list, read, write"):
            there.plan(sections={"new": 1}).obtain(must_not_write)
        assert there.plan().obtain(must_not_write).reused, "what is there can be used without that right"
    finally:
        s3.delete_bucket_policy(Bucket=BUCKET)


def test_without_the_bucket_nothing_is_made(server, tmp_path):
    nowhere = Machine("s3://finetuning-nowhere/artifacts", tmp_path)
    with pytest.raises(FinetuningError, match="s3://finetuning-nowhere/artifacts: there is no such bucket"):
        nowhere.plan().obtain(must_not_write)


def test_without_credentials_the_message_says_where_they_are_looked_for(here, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3 = fsspec.get_filesystem_class("s3")
    s3.clear_instance_cache()
    with pytest.raises(FinetuningError, match=r"refused \(NoCredentialsError.*AWS_ACCESS_KEY_ID .*AWS_PROFILE"):
        here.plan().obtain(must_not_write)
    s3.clear_instance_cache()


@pytest.mark.parametrize(
    ("root", "gigabytes", "said"),
    [
        ("gs://bucket/name", "50", r"gs://bucket/name needs a package .*gcsfs"),
        ("foo://bucket/name", "50", "Protocol not known: foo"),
        ("file:///data", "50", "write the folder as it is"),
        ("s3://", "50", "write an address such as s3://bucket/name"),
        ("sftp://me:password@host/name", "50", "write an address such as .* without a password"),
        ("s3://bucket/name", "much", "FINETUNING_ARTIFACTS_CACHE_GB: 'much' is not a number of gigabytes; write 50"),
    ],
)
def test_settings_that_are_none_are_named(root, gigabytes, said, tmp_path):
    with pytest.raises(FinetuningError, match=said) as error:
        Artifacts(root=root, cache=str(tmp_path), cache_gb=gigabytes).current("thing", "tiny")
    assert "me:password" not in str(error.value)


def versions(machine) -> set[int]:
    return {artifact.sections["v"] for artifact in machine.store.here.complete() if artifact.sections}


@pytest.mark.parametrize("order", [(2, 0, 3, 1), (1, 3, 0, 2)])
def test_the_cache_keeps_to_its_limit_and_what_was_used_longest_ago_goes(here, order):
    for version in range(4):
        here.plan(sections={"v": version}).obtain(write_files)
    for version in order:
        here.plan(sections={"v": version}).obtain(must_not_write)
    let_go()
    small = replace(here, gigabytes="0.000031")  # three artifacts
    small.plan("other", sections={"v": 4}).obtain(write_files)
    assert versions(small) == {*order[2:], 4}
    small.plan(sections={"v": order[0]}).obtain(must_not_write).verify()
    assert versions(small) == {order[0], order[3], 4}


def test_what_is_in_use_stays_in_a_cache_that_is_over_its_limit(here):
    small = replace(here, gigabytes="0.000011")
    for version in range(2):
        small.plan(sections={"v": version}).obtain(write_files)
    assert versions(small) == {0, 1}
    assert "over its limit: what it holds is in use, or not stored yet" in small.said[-1]
    let_go()
    small.store.trim()
    assert versions(small) == {1}


def test_what_is_not_stored_and_what_a_training_left_stays_in_the_cache(here):
    artifact = here.plan(sections={"v": 0}).obtain(write_files)
    checkpoints = checkpoints_of(artifact.path.parent / ".0123456789abcdef.partial" / "artifact")
    checkpoints.mkdir(parents=True)
    let_go()
    delete(here, next(name for name in objects(here) if name.endswith("data.txt")))
    replace(here, gigabytes="0").store.trim()
    assert versions(here) == {0}
    here.plan(sections={"v": 0}).obtain(must_not_write)
    checkpoints.mkdir(parents=True, exist_ok=True)
    let_go()
    replace(here, gigabytes="0").store.trim()
    assert versions(here) == set() and checkpoints.exists()


def loose(machine) -> dict:
    """What may be removed, by version."""
    found = unreferenced(machine.store, lambda artifact: False, timedelta(days=7), LATER)
    return {artifact.sections["v"]: artifact for artifact in found}


def test_what_nobody_refers_to_is_removed_from_the_storage_and_the_cache(here, there):
    for version in range(3):
        here.plan(sections={"v": version}).obtain(write_files)
    there.plan(sections={"v": 2}).obtain(must_not_write)
    found = loose(there)
    assert found.keys() == {0, 1}, "what this machine does not have in its cache is seen too"
    assert not here.store.remove(loose(here)[0]), "this process made it, and may still read it"
    assert there.store.remove(found[0])
    assert [name for name in objects(here) if f"/{found[0].fingerprint}/" in name] == []
    assert loose(here).keys() == {0, 1}, "what lies in a cache alone is seen too"
    let_go()
    assert all(here.store.remove(artifact) for artifact in loose(here).values())
    assert versions(here) == {2} and current(there).sections == {"v": 2}
    let_go()


def test_a_manifest_that_can_not_be_read_stands_in_nobodys_way(here):
    for version in range(2):
        here.plan(sections={"v": version}).obtain(write_files)
    let_go()
    folder = here.plan(sections={"v": 0}).home / here.plan(sections={"v": 0}).fingerprint
    put(here, f"thing/tiny/{folder.name}/artifact.json", b"{")
    replace(here, gigabytes="0").store.trim()
    assert versions(here) == {0}, "it is not known to be stored"
    assert loose(here).keys() == {0}


def test_what_came_into_force_again_meanwhile_is_not_removed(here, there):
    old = here.plan(sections={"v": 0}).obtain(write_files)
    here.plan(sections={"v": 1}).obtain(write_files)
    let_go()
    found = loose(here)[0]
    there.plan(sections={"v": 0}).obtain(must_not_write)
    assert not here.store.remove(found)
    assert current(here).fingerprint == old.fingerprint


def test_a_removal_that_was_killed_leaves_nothing_that_counts_as_whole(here, there):
    artifact = here.plan(sections={"v": 0}).obtain(write_files)
    delete(here, f"thing/tiny/{artifact.fingerprint}/artifact.json")
    with pytest.raises(FinetuningError, match="no complete artifact"):
        current(there)


def test_checkpoints_in_the_store_go_with_the_artifact_or_once_nobody_has_gone_on_with_them(here):
    left = {}
    for fingerprint in (here.plan().fingerprint, "0123456789abcdef"):
        left[fingerprint] = f"thing/tiny/.{fingerprint}.partial/checkpoints/{fingerprint}/step-4/weights"
        here.store.objects.write(left[fingerprint], b"1234")
    here.plan().obtain(write_files)
    assert [here.store.objects.read(name) for name in left.values()] == [None, b"1234"]
    assert here.store.unfinished(timedelta(0)) == []
    (found,) = here.store.unfinished(timedelta(days=7), LATER)
    assert (found.asset, found.partition, found.fingerprint, found.bytes) == ("thing", "tiny", "0123456789abcdef", 4)
    assert here.store.remove_unfinished(found)
    assert here.store.unfinished(timedelta(days=7), LATER) == []
