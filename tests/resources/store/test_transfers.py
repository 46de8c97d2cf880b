"""What was killed, cut off or damaged on its way to the storage or back is no artifact, and the next run goes on."""

import json
import signal
from collections import Counter

import pytest

from finetuning.errors import FinetuningError
from resources.store import multipart
from resources.store.artifact import manifest_of, read_artifact
from tests.resources.s3 import SMALL, Machine, must_not_write, obtain_until, start, write_files
from tests.resources.store.machines import current, delete, objects, put


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(multipart, "PART_BYTES", SMALL)


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


def test_what_was_changed_on_the_disk_before_it_was_sent_is_not_stored(here):
    artifact = here.plan().obtain(write_files)
    for name in objects(here):
        delete(here, name)
    (artifact.path / "data.txt").write_text("HELLO")
    with pytest.raises(FinetuningError, match=r"changed after it was written: data\.txt"):
        here.plan().obtain(must_not_write)
