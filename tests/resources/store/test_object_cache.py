"""The cache keeps to its limit, and nothing leaves it or the storage that somebody uses or wants again."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from finetuning.errors import FinetuningError
from resources.store.plan import checkpoints_of
from resources.store.retention import unreferenced
from tests.resources.s3 import must_not_write, write_files
from tests.resources.store.machines import current, delete, objects, put
from tests.resources.store.plans import let_go

LATER = datetime.now(UTC) + timedelta(days=30)


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
