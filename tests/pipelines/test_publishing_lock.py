"""The lock on publishing holds whoever starts it: a person, a sensor, a backfill; and for the merged model too."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from huggingface_hub import HfApi

from resources.hub_server.local import local_hub
from tests.pipelines.command import ROOT, World
from tests.pipelines.main_line import FAILS, PASSES, changed, commits
from tests.pipelines.publishing import PARTITION
from tests.tiny_models import ZEPHYR, save_tiny_model
from tests.waiting import PATIENCE

LOCATION = "tests.pipelines.publishing"
REPOS = ("local/locked-adapter", "local/locked-adapter-merged")
ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    rows = {
        "generator": "linear-equations",
        "format": "question-answer",
        "columns": {"question": "Problem", "answer": "Solution"},
        "rows": 24,
    }
    return {
        "summary": "A tiny model that learns nothing much",
        "base_model": {"repo": str(save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("base"), ZEPHYR))},
        "dataset": {"sources": [rows], "eval": {"fraction": 0.25}},
        "lora": {"r": 4},
        "training": {"max_steps": 2, "per_device_train_batch_size": 2},
        "evaluation": {
            "metrics": ["exact-match"],
            "rows": 6,
            "max_new_tokens": 4,
            "gate": PASSES,
        },
        "merge": {"dtype": "float32", "gguf": "q8_0", "min_agreement": 0.0, "max_kl": 1.0},
        "hub": {"repo": "locked-adapter", "license": "apache-2.0"},
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory, recipe):
    """A world in which adapter and merged model passed and were published."""
    world = World(tmp_path_factory.mktemp("world"))
    world.write_recipe(PARTITION, recipe)
    run = world.materialize_warm(PARTITION)
    assert run.returncode == 0, run.stdout[-4000:]
    return world


@pytest.fixture
def store(world, tmp_path):
    """A copy of the artifacts, to do harm to."""
    return shutil.copytree(world.root / "artifacts", tmp_path / "artifacts")


def in_force(store, asset):
    """The folder of an asset's artifact."""
    home = store / asset / PARTITION
    return home / json.loads((home / "current.json").read_text())["fingerprint"]


def refused(world, store, asset):
    """What the run that selects no more than `asset` says; it fails, and the hub is as it was."""
    before = [commits(world, repo) for repo in REPOS]
    run = world.materialize_warm(PARTITION, select=asset, FINETUNING_ARTIFACTS=str(store))
    assert run.returncode == 1, run.stdout[-3000:]
    assert [commits(world, repo) for repo in REPOS] == before
    return run.stdout


@pytest.mark.long("a merge, and its publication")
def test_the_published_merged_repo_has_the_gguf_file_that_was_compared(world):
    found = world.artifacts(PARTITION)
    summary = found["merged_model"]["summary"]
    gguf = summary["gguf"]
    assert gguf["file"] == f"{PARTITION}.q8_0.gguf" and gguf["positions"] == summary["positions"]
    with local_hub(world.root / "hub", grace=1.0) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        folder = api.snapshot_download(REPOS[1], revision=found["published_merged_repo"]["fingerprint"])
    merged = world.folder("merged_model", PARTITION)
    card = Path(folder, "README.md").read_text()
    assert f'gguf_file="{gguf["file"]}"' in card and f"llama-server -m {gguf['file']} --jinja" in card
    assert Path(folder, gguf["file"]).read_bytes() == (merged / gguf["file"]).read_bytes()


def test_a_merged_model_is_not_published_under_the_report_of_another_adapter(world, store):
    path = in_force(store, "evaluation_report") / "report.json"
    report = json.loads(path.read_text())
    # As long as it was: a file of another length is taken for one that was cut short.
    path.write_text(path.read_text().replace(report["adapter"], report["adapter"][::-1]))
    said = refused(world, store, "published_merged_repo")
    assert f"is about adapter {report['adapter'][::-1]}" in said


def test_a_merged_model_that_was_edited_after_it_was_compared_is_not_published(world, store):
    names = [f"{PARTITION}.q8_0.gguf", "model.safetensors"]
    for name in names:
        path = in_force(store, "merged_model") / name
        path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert f"changed after it was written: {', '.join(names)}" in refused(world, store, "published_merged_repo")


@pytest.fixture(scope="module")
def failed(world, recipe):
    """The same world after another exam of the same adapter, which it failed; what that run said is in `failed.log`."""
    world.write_recipe(PARTITION, changed(recipe, "evaluation", gate=FAILS, rows=5))
    run = world.materialize_warm(PARTITION, select="evaluation_report")
    (world.root / "failed.log").write_text(run.stdout)
    assert run.returncode == 1, run.stdout[-3000:]
    return world


def test_a_failed_gate_leaves_adapter_and_report_and_says_what_is_missing(failed):
    said = (failed.root / "failed.log").read_text()
    assert "gain in exact-match is 0.000, which misses by 1.000 the 1.000" in said
    report = json.loads((failed.folder("evaluation_report", PARTITION) / "report.json").read_text())
    assert report["verdict"]["passed"] is False
    assert report["adapter"] == failed.artifacts(PARTITION)["lora_adapter"]["fingerprint"]


def runs_of_the_daemon(world, number):
    """The runs that the daemon started, once `number` of them have ended: instance and runs."""
    command = ["dagster._daemon", "run", "-m", LOCATION]
    with (world.root / "daemon.log").open("w") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, env=world.environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            with dg.DagsterInstance.from_config(str(world.root / "dagster")) as instance:
                wanted = dg.RunsFilter(tags={"dagster/partition": PARTITION}, statuses=list(ENDED))
                end, before = time.monotonic() + PATIENCE, {run.run_id for run in instance.get_runs(wanted)}
                while len(runs := [run for run in instance.get_runs(wanted) if run.run_id not in before]) < number:
                    assert time.monotonic() < end and daemon.poll() is None, (world.root / "daemon.log").read_text()
                    time.sleep(0.5)
                return {run.run_id: (run, instance.all_logs(run.run_id)) for run in runs}
        finally:
            daemon.terminate()
            daemon.wait(PATIENCE)


@pytest.mark.long("a daemon that starts three runs")
def test_a_sensor_and_a_backfill_publish_nothing_without_a_passed_verdict(failed):
    before = [commits(failed, repo) for repo in REPOS]
    command = ["dagster", "job", "backfill", "-m", LOCATION, "-j", "publish", "--partitions", PARTITION, "--noprompt"]
    asked = failed.python("-m", *command)
    assert asked.returncode == 0, asked.stdout[-3000:]
    runs = runs_of_the_daemon(failed, 3)
    said = {}
    for run, entries in runs.values():
        assert run.status == dg.DagsterRunStatus.FAILURE
        origin = "backfill" if "dagster/backfill" in run.tags else run.tags["dagster/sensor_name"]
        events = [entry.get_dagster_event() for entry in entries if entry.is_dagster_event]
        said[origin, run.job_name] = " ".join(str(event.step_failure_data) for event in events if event.is_step_failure)
    assert said.keys() == {("backfill", "publish"), ("eager", "publish"), ("eager", "publish_merged")}
    for origin in ("backfill", "eager"):
        assert "locked: not published: adapter" in said[origin, "publish"]
        assert "misses by 1.000" in said[origin, "publish"]
    assert "the published_repo in force" in said["eager", "publish_merged"]
    assert [commits(failed, repo) for repo in REPOS] == before
