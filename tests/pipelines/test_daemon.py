"""What happens by itself, with the real daemon: an edited recipe is run, and a run that was killed is run again."""

import re
import time
from contextlib import contextmanager

import dagster as dg
import psutil
import pytest

from tests.pipelines.command import World, shipped_instance
from tests.tiny_models import ZEPHYR, save_tiny_model

LOCATION = "pipelines.definitions"
SOURCE = {
    "generator": "linear-equations",
    "format": "question-answer",
    "columns": {"question": "Problem", "answer": "Solution"},
    "rows": 24,
}


@pytest.fixture
def world(tmp_path):
    """A world with the instance's own settings for what was killed, only sooner, and with the sensor switched on."""
    shipped = shipped_instance(tmp_path)
    monitoring = shipped["run_monitoring"] | {"poll_interval_seconds": 1}
    return World(tmp_path, instance=shipped | {"run_monitoring": monitoring})


def recipe(base_model, **training):
    return {
        "summary": "A tiny model that learns for a while",
        "base_model": {"repo": str(base_model)},
        "dataset": {"sources": [SOURCE], "eval": {"fraction": 0.25}},
        "lora": {"r": 4},
        "training": {"per_device_train_batch_size": 1, "save_steps": 10, **training},
        "evaluation": {
            "metrics": ["exact-match"],
            "rows": 2,
            "max_new_tokens": 4,
            "gate": {"exact-match": {"min_gain": -1.0}},
        },
        "hub": {"repo": "tiny-adapter", "license": "apache-2.0"},
    }


@contextmanager
def daemon_of(world):
    """The daemon at work, and its instance."""
    with (
        world.running("-m", "dagster._daemon", "run", "-m", LOCATION),
        dg.DagsterInstance.from_config(str(world.root / "dagster")) as instance,
    ):
        yield instance


def wait_for(found, world, seconds=150):
    """What `found` returns once it is something."""
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, (world.root / "running.log").read_text()[-4000:]
        time.sleep(0.2)
    return result


def worker_of(instance, run):
    """The process that carries out the run."""
    said = " ".join(entry.message for entry in instance.all_logs(run.run_id))
    found = re.search(r"Started process for run \(pid: (\d+)\)", said)
    assert found, said
    return psutil.Process(int(found[1]))


def checkpoints(world):
    return list((world.root / "artifacts" / "lora_adapter" / "tiny").glob(".*.partial/checkpoints/step-[1-9]*"))


def test_an_edited_recipe_is_run_and_a_killed_run_goes_on(world):
    base_model = save_tiny_model("smollm2-135m", world.root / "tiny-llama", ZEPHYR)
    world.write_recipe("tiny", recipe(base_model, max_steps=400))
    switched = world.python("-m", "dagster", "sensor", "start", "recipe_changed", "-m", LOCATION)
    assert switched.returncode == 0, switched.stdout
    with daemon_of(world) as instance:
        wait_for(lambda: any(tick.cursor for tick in ticks(instance)), world)
        world.write_recipe("tiny", recipe(base_model, max_steps=600))
        (first,) = wait_for(instance.get_runs, world)
        assert first.tags["dagster/partition"] == "tiny"
        wait_for(lambda: checkpoints(world), world)
        worker = worker_of(instance, first)
        for process in [*worker.children(recursive=True), worker]:
            process.kill()
        retried = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])
        (second,) = wait_for(lambda: instance.get_runs(retried), world)
        assert second.parent_run_id == first.run_id
        ended = {run.run_id: run.status for run in instance.get_runs()}
        assert ended == {first.run_id: dg.DagsterRunStatus.FAILURE, second.run_id: dg.DagsterRunStatus.SUCCESS}
        assert any(
            "going on from the checkpoint of step" in entry.message for entry in instance.all_logs(second.run_id)
        )
    assert set(world.artifacts("tiny")) >= {"lora_adapter", "evaluation_report", "published_repo"}


def ticks(instance):
    """The sensor's ticks so far."""
    (state,) = instance.all_instigator_state()
    return instance.get_ticks(state.instigator_origin_id, state.selector_id)
