"""Artifacts: written whole or not at all, reused by fingerprint, rebuilt exactly where something changed."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from finetuning.errors import FinetuningError
from resources.artifacts import ArtifactIOManager, Artifacts
from resources.store.artifact import MANIFEST, Origin, fingerprint_of, read_artifact
from resources.store.disk import DiskStore
from resources.store.plan import DRAFT, Plan, checkpoints_of


def plan(home, **changes) -> Plan:
    record = {"asset": "thing", "partition": "tiny", "inputs": {}, "sections": {}, "resolved": {}, **changes}
    return Plan(DiskStore(home), Origin(**record), fingerprint_of(record), log=lambda text: None)


def write_one_file(folder):
    (folder / "data.txt").write_text("hello")
    return {"rows": 1}


def must_not_write(folder):
    raise AssertionError("a complete artifact was written again")


def test_a_second_run_returns_the_first_ones_artifact(tmp_path):
    first = plan(tmp_path).obtain(write_one_file)
    second = plan(tmp_path).obtain(must_not_write)
    assert (first.reused, second.reused) == (False, True)
    assert second == first.__class__(**{**first.__dict__, "seconds": second.seconds})
    assert second.summary == {"rows": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"sections": {"lora": {"r": 8}}},
        {"resolved": {"commit": "abc"}},
        {"inputs": {"raw_dataset": "0" * 16}},
        {"asset": "other"},
        {"smoke": True},
    ],
)
def test_whatever_goes_in_changes_the_fingerprint(tmp_path, change):
    assert plan(tmp_path, **change).fingerprint != plan(tmp_path).fingerprint


def test_the_fingerprint_does_not_depend_on_the_order_of_keys():
    assert fingerprint_of({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint_of({"b": {"d": 3, "c": 2}, "a": 1})


def test_a_failed_write_leaves_nothing(tmp_path):
    def fail(folder):
        write_one_file(folder)
        raise FinetuningError("no")

    with pytest.raises(FinetuningError):
        plan(tmp_path).obtain(fail)
    assert [path.name for path in (tmp_path / "thing" / "tiny").iterdir()] == [".lock"]
    with pytest.raises(FinetuningError, match="no complete artifact of thing for tiny"):
        Artifacts(root=str(tmp_path)).current("thing", "tiny")


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.resources.test_artifacts import plan, write_one_file

def die(self, target):
    os.kill(os.getpid(), signal.SIGKILL)

Path.rename = die
plan(Path(sys.argv[1])).obtain(write_one_file)
"""


def test_a_process_killed_between_writing_and_renaming_leaves_no_artifact(tmp_path):
    child = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=Path.cwd(), check=False)
    assert child.returncode == -signal.SIGKILL
    home = tmp_path / "thing" / "tiny"
    partial = home / f".{plan(tmp_path).fingerprint}.partial"
    assert (partial / DRAFT / MANIFEST).exists(), "the child died before everything was written"
    assert not (home / plan(tmp_path).fingerprint).exists()
    with pytest.raises(FinetuningError):
        Artifacts(root=str(tmp_path)).current("thing", "tiny")
    artifact = plan(tmp_path).obtain(write_one_file)
    assert not artifact.reused and not partial.exists()
    assert Artifacts(root=str(tmp_path)).current("thing", "tiny").fingerprint == artifact.fingerprint


def test_checkpoints_outlive_a_failure_and_not_the_artifact(tmp_path):
    def fail(folder):
        checkpoints_of(folder).mkdir()
        (checkpoints_of(folder) / "step-3").touch()
        (folder / "half").touch()
        raise RuntimeError

    def go_on(folder):
        assert [path.name for path in checkpoints_of(folder).iterdir()] == ["step-3"] and not list(folder.iterdir())
        return write_one_file(folder)

    with pytest.raises(RuntimeError):
        plan(tmp_path).obtain(fail)
    artifact = plan(tmp_path).obtain(go_on)
    assert sorted(path.name for path in artifact.path.parent.iterdir()) == sorted(
        [".lock", "current.json", artifact.fingerprint]
    )


def test_checkpoints_of_other_settings_are_not_gone_on_from_and_the_log_says_what_differs(tmp_path):
    def fail(folder):
        checkpoints_of(folder).mkdir()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        plan(tmp_path, sections={"lora": {"r": 8, "lora_alpha": 32}}).obtain(fail)
    said = []
    other = replace(plan(tmp_path, sections={"lora": {"r": 16, "lora_alpha": 32}}), log=said.append)
    other.obtain(lambda folder: {} if checkpoints_of(folder).exists() else write_one_file(folder))
    assert "starting afresh: the checkpoints" in said[0] and said[1] == "  sections.lora.r: 8, now 16"
    assert not list((tmp_path / "thing").rglob("*.partial"))


def test_a_file_that_was_cut_short_makes_the_artifact_incomplete(tmp_path):
    artifact = plan(tmp_path).obtain(write_one_file)
    (artifact.path / "data.txt").write_text("hel")
    assert read_artifact(artifact.path) is None
    assert not plan(tmp_path).obtain(write_one_file).reused


def test_the_artifact_in_force_follows_the_recipe_back_and_forth(tmp_path):
    store = Artifacts(root=str(tmp_path))
    old = plan(tmp_path).obtain(write_one_file)
    new = plan(tmp_path, sections={"lora": 1}).obtain(write_one_file)
    assert store.current("thing", "tiny").fingerprint == new.fingerprint
    plan(tmp_path).obtain(must_not_write)
    assert store.current("thing", "tiny").fingerprint == old.fingerprint


def test_an_artifact_whose_effect_is_gone_is_written_again(tmp_path):
    plan(tmp_path).obtain(write_one_file)
    again = plan(tmp_path).obtain(write_one_file, still_valid=lambda artifact: False)
    assert not again.reused


def test_a_file_that_was_edited_or_added_is_named(tmp_path):
    artifact = plan(tmp_path).obtain(write_one_file)
    artifact.verify()
    (artifact.path / "data.txt").write_text("HELLO")
    (artifact.path / "more.txt").write_text("x")
    with pytest.raises(FinetuningError, match=r"changed after it was written: data\.txt, more\.txt"):
        artifact.verify()


def test_the_manifest_tells_what_the_artifact_was_made_from(tmp_path):
    artifact = plan(tmp_path, sections={"lora": {"r": 8}}, inputs={"raw_dataset": "0" * 16}).obtain(write_one_file)
    manifest = json.loads((artifact.path / MANIFEST).read_text())
    assert manifest["sections"] == {"lora": {"r": 8}}
    assert manifest["inputs"] == {"raw_dataset": "0" * 16}
    assert manifest["bytes"] == 5 and list(manifest["files"]) == ["data.txt"]
    assert "torch" in manifest["versions"]


def test_what_a_smoke_run_made_is_none_of_a_real_runs_and_the_other_way_round(tmp_path):
    for made in (False, True):
        artifact = plan(tmp_path / str(made), **({"smoke": True} if made else {})).obtain(write_one_file)
        root = str(tmp_path / str(made))
        assert Artifacts(root=root, smoke=made).current("thing", "tiny").fingerprint == artifact.fingerprint
        with pytest.raises(FinetuningError, match="made by a smoke run" if made else "and this is a smoke run"):
            Artifacts(root=root, smoke=not made).held("thing", "tiny")


def test_an_input_that_is_not_there_is_named_without_the_password_of_its_address(tmp_path):
    context = dg.build_input_context(asset_key=dg.AssetKey("thing"), partition_key="tiny")
    root = "nowhere://bob:hunter2secretpw@host/artifacts"
    with pytest.raises(dg.Failure) as raised:
        ArtifactIOManager(artifacts=Artifacts(root=root, cache=str(tmp_path))).load_input(context)
    assert raised.value.description.startswith("FINETUNING_ARTIFACTS") and "hunter2" not in raised.value.description
