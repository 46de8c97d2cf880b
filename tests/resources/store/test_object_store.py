"""Artifacts on a real S3 server have the guarantees that they have on a disk, for all machines."""

import json
import time
import uuid
from dataclasses import replace

import pytest

from finetuning.errors import FinetuningError
from resources.store.artifact import MANIFEST, manifest_of
from resources.store.disk import DiskStore
from tests.resources.s3 import SECRET, Machine, must_not_write, obtain_when, start, write_files, write_own
from tests.resources.store.machines import current, objects, written


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


def test_storage_that_is_no_s3_is_used_in_the_same_way(tmp_path):
    address = f"memory://{uuid.uuid4().hex}"
    made = Machine(address, tmp_path / "here").plan().obtain(write_files)
    there = Machine(address, tmp_path / "there")
    taken = there.plan().obtain(must_not_write)
    assert taken.reused and written(taken) == written(made)
    assert there.store.objects.create("current.json", b"1") and not there.store.objects.create("current.json", b"2")


def test_an_artifact_whose_effect_is_gone_is_replaced_for_all_machines(here, there):
    there.plan().obtain(write_own)
    again = here.plan().obtain(write_files, still_valid=lambda artifact: False)
    assert not again.reused and again.summary == {"rows": 1}
    taken = there.plan().obtain(must_not_write)
    assert written(taken) == written(again)
    taken.verify()
