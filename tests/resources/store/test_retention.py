"""What may be removed, and that nothing is removed which somebody uses."""

import json
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from filelock import FileLock

from resources.store.artifact import Origin, fingerprint_of
from resources.store.disk import DiskStore
from resources.store.plan import Plan
from resources.store.retention import unreferenced
from tests.waiting import PATIENCE

LATER = datetime.now(UTC) + timedelta(days=30)


class Store:
    """Artifacts of a main line that was made several times over."""

    def __init__(self, root):
        self.root = root
        self.disk = DiskStore(root)

    def make(self, asset, version, inputs=(), partition="tiny", summary=None):
        made_from = {artifact.asset: artifact.fingerprint for artifact in inputs}
        record = {"asset": asset, "partition": partition, "inputs": made_from, "sections": {"v": version}}
        record |= {"resolved": {}}
        plan = Plan(self.disk, Origin(**record), fingerprint_of(record), log=lambda text: None)

        def write(folder):
            (folder / "data.txt").write_text(str(version))
            return summary or {}

        return plan.obtain(write)

    def line(self, version, base_version=0):
        """The artifacts of one run, by asset."""
        raw = self.make("raw_dataset", version)
        base = self.make("quantized_base_model", base_version)
        adapter = self.make("lora_adapter", version, [raw, base])
        self.make("base_answers", version, [base], partition=base.fingerprint)
        repo = self.make("published_repo", version, [adapter], summary={"repo_id": "lab/tiny", "tag": f"v{version}"})
        return {artifact.asset: artifact for artifact in (raw, base, adapter, repo)}

    def loose(self, *published, older_than=timedelta(days=7), now=LATER):
        found = unreferenced(self.disk, lambda artifact: artifact.summary["tag"] in published, older_than, now)
        return {(artifact.asset, artifact.sections["v"]) for artifact in found}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_what_is_in_force_and_what_it_was_made_from_stays(store):
    store.line(1), store.line(2)
    assert store.loose() == {("raw_dataset", 1), ("lora_adapter", 1), ("published_repo", 1)}


def test_what_is_published_still_stays_with_all_that_it_was_made_from(store):
    store.line(1), store.line(2), store.line(3)
    assert store.loose("v1") == {("raw_dataset", 2), ("lora_adapter", 2), ("published_repo", 2)}


def test_what_an_older_step_in_force_was_made_from_stays(store):
    store.line(1)
    store.make("raw_dataset", 2)  # read anew, and not trained on yet
    assert store.loose() == set()


def test_answers_go_with_the_model_that_gave_them(store):
    store.line(1, base_version=1), store.line(2, base_version=2)
    assert ("base_answers", 1) in store.loose() and ("base_answers", 2) not in store.loose()


def test_young_artifacts_stay(store):
    store.line(1), store.line(2)
    assert store.loose(now=datetime.now(UTC)) == set()
    assert store.loose(now=datetime.now(UTC) + timedelta(minutes=1), older_than=timedelta(0)) != set()


def test_what_is_removed_is_gone_and_can_be_made_again(store):
    old = store.make("raw_dataset", 1)
    store.make("raw_dataset", 2)
    assert in_another_process(store, old.path)["removed"] is False  # this process made it, and may still read it
    gone = in_another_process(store, made("raw_dataset", 3, store).path)
    assert gone == {"removed": True, "there": False, "partial": []}
    assert store.make("raw_dataset", 3).path.exists()


def made(asset, version, store):
    """An artifact that a process made which has ended, and that is no longer in force."""
    code = (
        "import sys; from pathlib import Path; from tests.resources.store.test_retention import Store; "
        f"print(Store(Path(sys.argv[1])).make({asset!r}, {version}).path)"
    )
    path = subprocess.run([sys.executable, "-c", code, str(store.root)], capture_output=True, text=True, check=True)
    store.make(asset, 2)
    (found,) = [
        a
        for a in unreferenced(store.disk, lambda artifact: False, timedelta(0), LATER)
        if str(a.path) == path.stdout.strip()
    ]
    return found


def in_another_process(store, path):
    """What removing the artifact at `path` came to."""
    code = (
        "import json, sys; from pathlib import Path; from resources.store.artifact import read_artifact; "
        "from resources.store.disk import DiskStore; path = Path(sys.argv[1]); "
        "done = DiskStore(path.parents[2]).remove(read_artifact(path)); "
        "left = [p.name for p in path.parent.glob('.*.partial')]; "
        "print(json.dumps({'removed': done, 'there': path.exists(), 'partial': left}))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_what_came_into_force_again_meanwhile_stays(store):
    old = made("raw_dataset", 1, store)
    store.make("raw_dataset", 1)
    assert not store.disk.remove(old) and old.path.exists()


def test_nothing_is_removed_beside_an_artifact_in_the_making(store):
    old, started, end = made("raw_dataset", 1, store), threading.Event(), threading.Event()

    def write(folder):
        (folder / "data.txt").write_text("3")
        started.set()
        end.wait(PATIENCE)
        return {}

    record = {"asset": "raw_dataset", "partition": "tiny", "inputs": {}, "sections": {"v": 3}, "resolved": {}}
    plan = Plan(store.disk, Origin(**record), fingerprint_of(record), log=lambda text: None)
    making = threading.Thread(target=plan.obtain, args=(write,))
    making.start()
    assert started.wait(PATIENCE)
    assert in_another_process(store, old.path)["removed"] is False
    end.set()
    making.join()
    assert in_another_process(store, old.path)["removed"] is True


PARTS = {
    "user": """
held = []
while not stop.exists():
    held.append(Artifacts(root=str(root)).held("raw_dataset", "tiny"))
    time.sleep(0.5)
    for artifact in held:  # as long as the process lives, what it was handed is there
        assert (artifact.path / "data.txt").read_text() == str(artifact.sections["v"])
print(len({artifact.fingerprint for artifact in held}))
""",
    "remover": """
gone, disk = 0, DiskStore(root)
while not stop.exists():
    now = datetime.now(UTC) + timedelta(days=1)
    gone += sum(disk.remove(found) for found in unreferenced(disk, lambda artifact: False, timedelta(0), now))
print(gone)
""",
    "maker": """
for version in range(1, int(sys.argv[2]) + 1):
    if os.fork() == 0:  # a process each, as runs are: it holds what it made until it ends
        Store(root).make("raw_dataset", version)
        os._exit(0)
    os.wait()
    time.sleep(0.03)
stop.touch()
print(version)
""",
}
START = """
import os, sys, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from resources.artifacts import Artifacts
from resources.store.disk import DiskStore
from resources.store.retention import unreferenced
from tests.resources.store.test_retention import Store
root = Path(sys.argv[1])
stop = root / "stop"
"""


@pytest.mark.parametrize(
    ("versions", "least"), [(59, 5), pytest.param(400, 146, marks=pytest.mark.long("hundreds of processes"))]
)
def test_a_run_never_loses_what_it_was_handed_while_others_make_and_remove(store, versions, least):
    store.make("raw_dataset", 0)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START + PARTS[part], str(store.root), str(versions)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in ("user", "user", "remover", "maker")
    ]
    *held, removed, made = (int(process.communicate(timeout=PATIENCE)[0] or 0) for process in processes)
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert min(held) > 1 and removed > least and made == versions


def test_what_a_training_left_goes_once_nobody_has_gone_on_with_it(store):
    artifact = store.make("lora_adapter", 1)
    left = artifact.path.with_name(".0123456789abcdef.partial")
    (left / "checkpoints" / "step-4").mkdir(parents=True)
    (left / "checkpoints" / "step-4" / "weights").write_bytes(b"1234")
    assert store.disk.unfinished(timedelta(days=7)) == []
    (found,) = store.disk.unfinished(timedelta(days=7), LATER)
    assert (found.asset, found.partition, found.fingerprint) == ("lora_adapter", "tiny", "0123456789abcdef")
    assert found.bytes == 4
    with FileLock(artifact.path.parent / ".lock"):
        assert not store.disk.remove_unfinished(found) and left.exists()
    assert store.disk.remove_unfinished(found) and not left.exists() and artifact.path.exists()
