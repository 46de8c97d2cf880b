"""What every store promises, of a folder and of object storage alike."""

import os
import shutil
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from finetuning.errors import FinetuningError
from resources.artifacts import Artifacts
from resources.store.artifact import Origin, fingerprint_of, read_artifact
from resources.store.plan import DRAFT, Plan, checkpoints_of
from resources.store.retention import unreferenced
from resources.store.store import Store
from tests.resources.store.plans import let_go, plan, write

LATER = datetime.now(UTC) + timedelta(days=30)


@pytest.fixture(params=["disk", "objects"])
def artifacts(request, tmp_path):
    root = str(tmp_path / "artifacts") if request.param == "disk" else f"memory://{uuid.uuid4().hex}"
    return Artifacts(root=root, cache=str(tmp_path / "cache"))


@pytest.fixture
def store(artifacts) -> Store:
    return artifacts.store()


def must_not_write(folder: Path) -> dict:
    raise AssertionError("a complete artifact was written again")


def folder_of(plan: Plan) -> Path:
    return plan.home / plan.fingerprint


def test_an_artifact_that_was_made_is_fetched_whole_from_its_folder(store):
    assert store.fetch(folder_of(plan(store))) is None and store.obtainable(folder_of(plan(store))) is None
    made = plan(store).obtain(write)
    found = store.fetch(folder_of(plan(store)))
    assert found and (found.path, found.files, found.summary) == (folder_of(plan(store)), made.files, {"rows": 1})
    found.verify()
    assert plan(store).obtain(must_not_write).reused


def test_the_last_one_that_was_obtained_is_in_force(store, artifacts):
    home = plan(store).home
    assert store.in_force(home) is None
    first, second = (plan(store, version).obtain(write) for version in (1, 2))
    assert store.in_force(home) == second.fingerprint
    plan(store, 1).obtain(must_not_write)
    assert store.in_force(home) == first.fingerprint == artifacts.held("thing", "tiny").fingerprint
    store.put_in_force(second, second.path.parent)
    assert store.in_force(home) == second.fingerprint


@pytest.mark.parametrize("part", ["", ".", "..", "../lora_adapter", "a/b", "/tmp", "a\\b", "a\0b"])
def test_a_name_that_leads_elsewhere_is_no_home(store, part):
    with pytest.raises(FinetuningError, match="is not the name of a file or folder"):
        store.home("lora_adapter", part)
    with pytest.raises(FinetuningError, match="is not the name of a file or folder"):
        store.home(part, "tiny")


def test_what_is_said_of_an_input_holds_for_its_files_and_not_for_others_of_its_fingerprint(store):
    def trained(text: str):
        def write_text(folder: Path) -> dict:
            (folder / "weights.txt").write_text(text)
            return {}

        return plan(store, asset="adapter").obtain(write_text, still_valid=lambda artifact: text == "here")

    def about(adapter) -> Plan:
        inputs, contents = {"adapter": adapter.fingerprint}, {"adapter": adapter.content}
        origin = Origin(asset="thing", partition="tiny", inputs=inputs, sections={}, resolved={}, contents=contents)
        return Plan(store, origin, fingerprint_of(origin.as_json()), log=lambda text: None)

    here = trained("here")
    examined = about(here).obtain(write)
    examined.require_inputs(here)
    assert about(here).obtain(must_not_write).reused
    there = trained("there")
    assert there.fingerprint == here.fingerprint and there.content != here.content
    with pytest.raises(FinetuningError, match=r"adapter in force \(\w{16}\) was made once more since thing"):
        examined.require_inputs(there)
    again = about(there).obtain(write)
    assert again.fingerprint == examined.fingerprint and not again.reused
    again.require_inputs(there)


def test_checkpoints_are_gone_on_from_with_the_very_files_that_they_are_of(store):
    def making(content: str) -> Plan:
        origin = Origin(
            asset="thing", partition="tiny", inputs={"rows": "a"}, sections={}, resolved={}, contents={"rows": content}
        )
        return Plan(store, origin, fingerprint_of(origin.as_json()), log=said.append)

    def fail(folder: Path) -> dict:
        checkpoints_of(folder).mkdir(exist_ok=True)
        (checkpoints_of(folder) / "step-3").touch()
        raise RuntimeError

    def learned(folder: Path) -> list[str]:
        there: list[str] = []

        def look(folder: Path) -> dict:
            there.extend(path.name for path in checkpoints_of(folder).glob("*"))
            return fail(folder)

        with pytest.raises(RuntimeError):
            making(str(folder)).obtain(look)
        return there

    said: list[str] = []
    assert learned(Path("here")) == [] and learned(Path("here")) == ["step-3"]
    assert learned(Path("there")) == [], "they have learned other rows"
    assert '  contents.rows: "here", now "there"' in said


def test_what_was_changed_since_it_was_written_is_not_reused(store):
    made = plan(store, asset="base_answers").obtain(write)
    # As long as it was, and as old.
    path = made.path / "data.txt"
    before = path.stat()
    path.write_text("HELLO")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    told = r"changed after it was written: data\.txt.* materialize evaluation_report"
    with pytest.raises(FinetuningError, match=told):
        plan(store, asset="base_answers").obtain(must_not_write)
    shutil.rmtree(made.path)
    assert (plan(store, asset="base_answers").obtain(write).path / "data.txt").read_text() == "hello"


def test_an_artifact_that_is_stored_instead_of_another_takes_its_place(store):
    plan(store).obtain(write)
    again = plan(store).obtain(lambda folder: write(folder) | {"again": True}, still_valid=lambda artifact: False)
    assert not again.reused and again.summary == {"rows": 1, "again": True}
    found = store.fetch(again.path)
    assert found and found.summary == again.summary


def test_places_are_those_that_other_machines_find(store, artifacts):
    home = artifacts.home("thing", "tiny")
    assert home == store.home("thing", "tiny") and home.parts[-2:] == ("thing", "tiny")
    assert store.address_of(home) == f"{store.address}/thing/tiny"
    elsewhere = Artifacts(**artifacts.everywhere(), cache=f"{artifacts.cache}-2")
    assert elsewhere.store().address == store.address
    with pytest.raises(FinetuningError, match=f"{store.address}/thing/tiny: no complete artifact of thing for tiny"):
        elsewhere.current("thing", "tiny")
    made = plan(store).obtain(write)
    assert elsewhere.current("thing", "tiny").files == made.files


def test_what_can_be_written_to_is_writable(store):
    store.require_writable()


def test_the_inventory_has_all_that_is_complete_and_what_is_in_force(store):
    assert store.inventory() == ([], [])
    made = [plan(store, version).obtain(write) for version in (1, 2)] + [plan(store, asset="other").obtain(write)]
    found = store.inventory()
    assert {artifact.fingerprint for artifact in found.artifacts} == {artifact.fingerprint for artifact in made}
    assert sorted(found.in_force) == [("other", made[2].fingerprint), ("thing", made[1].fingerprint)]
    assert [a.fingerprint for a in unreferenced(store, lambda artifact: False, timedelta(0), LATER)] == [
        made[0].fingerprint
    ]


def test_only_what_is_neither_used_nor_in_force_is_removed(store):
    old, new = (plan(store, version).obtain(write) for version in (1, 2))
    assert not store.remove(old), "this process made it, and may still read it"
    let_go()
    assert not store.remove(new), "it is in force"
    assert store.remove(old)
    assert store.fetch(old.path) is None and read_artifact(old.path) is None
    assert [artifact.fingerprint for artifact in store.inventory().artifacts] == [new.fingerprint]
    assert not plan(store, 1).obtain(write).reused


def test_what_an_attempt_left_is_found_once_it_is_old_and_removed(store):
    def fail(folder):
        checkpoints_of(folder).mkdir()
        (checkpoints_of(folder) / "weights").write_bytes(b"1234")
        raise KeyboardInterrupt

    made = plan(store)
    with pytest.raises(KeyboardInterrupt):
        made.obtain(fail)
    assert store.unfinished(timedelta(days=7)) == []
    (left,) = store.unfinished(timedelta(days=7), LATER)
    assert (left.asset, left.partition, left.fingerprint) == ("thing", "tiny", made.fingerprint)
    assert left.bytes >= 4 and left.path == made.home / f".{made.fingerprint}.partial"
    assert checkpoints_of(left.path / DRAFT).exists()
    assert store.remove_unfinished(left) and not left.path.exists()
    assert store.unfinished(timedelta(days=7), LATER) == []


def test_trimming_takes_no_artifact_away(store):
    made = plan(store).obtain(write)
    let_go()
    store.trim()
    found = store.fetch(made.path)
    assert found and found.files == made.files


def shared(store: Store, partition: str, version: int = 1) -> Plan:
    """The plan of an artifact that all partitions share which want the same."""
    own = plan(store, version)
    return replace(own, origin=replace(own.origin, partition=own.fingerprint), partition=partition)


def test_partitions_that_want_the_same_share_one_artifact(store, artifacts):
    first = shared(store, "tiny").obtain(write)
    second = shared(store, "other").obtain(must_not_write)
    assert second.reused and second.is_shared and second.path == first.path
    assert len(store.inventory().artifacts) == 1
    for partition in ("tiny", "other"):
        found = artifacts.held("thing", partition)
        assert found.fingerprint == first.fingerprint
        assert (found.path / "data.txt").read_text() == "hello"
        found.verify()


def test_what_is_shared_stays_until_no_partition_has_it_in_force(store, artifacts):
    first = shared(store, "tiny").obtain(write)
    shared(store, "other").obtain(must_not_write)
    shared(store, "tiny", version=2).obtain(write)
    let_go()
    assert unreferenced(store, lambda artifact: False, timedelta(0), LATER) == []
    assert not store.remove(first)
    assert artifacts.current("thing", "other").fingerprint == first.fingerprint
    shared(store, "other", version=2).obtain(must_not_write)
    let_go()
    (found,) = unreferenced(store, lambda artifact: False, timedelta(0), LATER)
    assert found.fingerprint == first.fingerprint and store.remove(found)
    assert [artifact.fingerprint for artifact in store.inventory().artifacts] != [first.fingerprint]
    assert store.fetch(first.path) is None


def test_on_a_disk_what_is_shared_is_found_in_the_folder_of_each_partition(tmp_path):
    artifacts = Artifacts(root=str(tmp_path))
    made = shared(artifacts.store(), "tiny").obtain(write)
    assert (tmp_path / "thing" / "tiny" / made.fingerprint / "data.txt").read_text() == "hello"
    other = shared(artifacts.store(), "tiny", version=2).obtain(write)
    names = {path.name for path in (tmp_path / "thing" / "tiny").iterdir()}
    assert names == {"current.json", other.fingerprint}
