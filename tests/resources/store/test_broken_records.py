"""A record, a manifest or a root that tells nothing is as none, or is named, and hinders nothing else."""

import json
import uuid
from pathlib import Path

import pytest

from finetuning.errors import FinetuningError
from resources.artifacts import Artifacts
from resources.store.plan import checkpoints_of
from tests.resources.store.plans import let_go, plan, write


@pytest.mark.parametrize(
    "current", ["[]", "3", "null", '"0a1b"', "{}", '{"fingerprint": 3}', '{"fingerprint": "../other"}', "{", "\xff"]
)
def test_a_current_json_that_names_no_artifact_is_as_none(tmp_path, current):
    artifacts = Artifacts(root=str(tmp_path))
    made = plan(artifacts.store()).obtain(write)
    (made.path.parent / "current.json").write_bytes(current.encode("latin-1"))
    with pytest.raises(FinetuningError, match="no complete artifact of thing for tiny"):
        artifacts.held("thing", "tiny")
    assert artifacts.store().inventory().in_force == []


NESTED = "[" * 100_000
LONG = json.dumps({"fingerprint": "a" * 5000})
NAMES_NONE = ['{"fingerprint": ["a"]}', '{"fingerprint": {"a": 1}}', '{"fingerprint": "a\\n"}', "[]", "3", NESTED]


@pytest.mark.parametrize("current", [*NAMES_NONE, '{"fingerprint": "\\ud800"}', LONG])
def test_what_names_no_artifact_is_as_none_and_hinders_no_other(tmp_path, current):
    artifacts = Artifacts(root=str(tmp_path))
    made = plan(artifacts.store()).obtain(write)
    broken = plan(artifacts.store(), asset="other").obtain(write)
    (broken.path.parent / "current.json").write_text(current)
    with pytest.raises(FinetuningError, match="no complete artifact of other for tiny"):
        artifacts.held("other", "tiny")
    assert artifacts.store().inventory().in_force == [("thing", made.fingerprint)]
    (broken.path / "artifact.json").write_text(current)
    let_go()
    assert [found.asset for found in artifacts.store().inventory().artifacts] == ["thing"]
    assert not plan(artifacts.store(), asset="other").obtain(write).reused


@pytest.mark.parametrize("record", [NESTED, "[]", '{"contents": 3}'])
def test_a_record_of_an_attempt_that_tells_nothing_is_as_none(tmp_path, record):
    def fail(folder: Path) -> dict:
        checkpoints_of(folder).mkdir()
        raise RuntimeError

    store = Artifacts(root=str(tmp_path)).store()
    with pytest.raises(RuntimeError):
        plan(store).obtain(fail)
    workshop = next(tmp_path.glob("*/*/.*.partial"))
    (workshop / "plan.json").write_text(record)
    assert plan(store, version=2).obtain(write).summary == {"rows": 1} and not workshop.exists()


@pytest.mark.parametrize("root", ["file", "file/below", "dangling"])
def test_a_root_that_is_no_folder_is_said_with_the_setting_that_names_it(tmp_path, root):
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    with pytest.raises(FinetuningError, match=f"FINETUNING_ARTIFACTS: .*{root}.*is no folder"):
        Artifacts(root=str(tmp_path / root)).store()
    with pytest.raises(FinetuningError, match=f"FINETUNING_ARTIFACTS_CACHE: .*{root}.*is no folder"):
        Artifacts(root=f"memory://{uuid.uuid4().hex}", cache=str(tmp_path / root)).store()


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprint": "f" * 16},
        {"fingerprint": None},
        {"files": {"../data.txt": "c" * 64}},
        {"files": {"/etc/passwd": "c" * 64}},
        {"files": ["data.txt"]},
        {"files": {"data.txt": 3}},
        {"summary": []},
        {"inputs": None},
        {"unknown": 1},
        {"created": "yesterday"},
        {"created": None},
        {"created": "2026-01-01T00:00:00"},
        {"seconds": "x"},
        {"seconds": float("nan")},
        {"bytes": 5.0},
        {"smoke": "no"},
        {"partition": ["tiny"]},
        {"inputs": {"rows": ["a"]}},
        {"contents": None},
        {"versions": {"torch": {}}},
    ],
)
def test_a_manifest_that_is_not_that_of_its_folder_is_as_none(tmp_path, changes):
    artifacts = Artifacts(root=str(tmp_path))
    made = plan(artifacts.store()).obtain(write)
    manifest = made.path / "artifact.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))
    with pytest.raises(FinetuningError, match="no complete artifact of thing for tiny"):
        artifacts.held("thing", "tiny")
    assert plan(artifacts.store()).obtain(write).reused is False
