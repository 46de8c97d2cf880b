"""What happens by itself, with the real daemon: edited recipes are run, killed runs run again, trainings take turns."""

import re
from contextlib import contextmanager
from itertools import pairwise

import dagster as dg
import psutil
import pytest

from tests.pipelines.command import World, family_of, kill, shipped_instance
from tests.pipelines.main_line import PASSES
from tests.tiny_models import ZEPHYR, save_tiny_model
from tests.waiting import until

pytestmark = pytest.mark.long("a daemon whose runs are killed, and trainings that wait for each other")

LOCATION = "pipelines.definitions"
RESUMED = "going on from the checkpoint of step"
SOURCE = {
    "generator": "linear-equations",
    "format": "question-answer",
    "columns": {"question": "Problem", "answer": "Solution"},
    "rows": 24,
}


@pytest.fixture
def world(tmp_path):
    """A world with the instance's own settings, which looks sooner for what was killed."""
    shipped = shipped_instance(tmp_path)
    sooner = {"poll_interval_seconds": 1, "free_slots_after_run_end_seconds": 1}
    return World(tmp_path, instance=shipped | {"run_monitoring": shipped["run_monitoring"] | sooner})


def recipe(base_model, **training):
    return {
        "summary": "A tiny model that learns for a while",
        "base_model": {"repo": str(base_model)},
        "dataset": {"sources": [SOURCE], "eval": {"fraction": 0.25}},
        "lora": {"r": 4},
        "training": {"per_device_train_batch_size": 1, "save_steps": 10, **training},
        "evaluation": {
            "metrics": ["exact-match"],
            "rows": 6,
            "max_new_tokens": 4,
            "gate": PASSES,
        },
        "hub": {"repo": "tiny-adapter", "license": "apache-2.0"},
        "schedule": True,
    }


@contextmanager
def daemon_of(world):
    """The daemon at work, and its instance, which is there before: two processes must not make one database at once."""
    with (
        dg.DagsterInstance.from_config(str(world.root / "dagster")) as instance,
        world.running("-m", "dagster._daemon", "run", "-m", LOCATION),
    ):
        yield instance


def wait_for(found, world):
    """What `found` returns once it is something."""
    return until(found, lambda: (world.root / "running.log").read_text())


def worker_of(instance, run):
    """The process that carries out the run."""
    said = " ".join(entry.message for entry in instance.all_logs(run.run_id))
    found = re.search(r"Started process for run \(pid: (\d+)\)", said)
    assert found, said
    return psutil.Process(int(found[1]))


def checkpoints(world):
    return list((world.root / "artifacts" / "lora_adapter" / "tiny").glob(".*.partial/checkpoints/step-[1-9]*"))


def said(instance, run, text):
    return any(text in entry.message for entry in instance.all_logs(run.run_id))


def test_an_edited_recipe_is_run_and_killed_runs_go_on(world):
    base_model = save_tiny_model("smollm2-135m", world.root / "tiny-llama", ZEPHYR)
    world.write_recipe("tiny", recipe(base_model, max_steps=300))
    switched = world.python("-m", "dagster", "sensor", "start", "recipe_changed", "-m", LOCATION)
    assert switched.returncode == 0, switched.stdout
    with daemon_of(world) as instance:
        wait_for(lambda: any(tick.cursor for tick in ticks(instance)), world)
        world.write_recipe("tiny", recipe(base_model, max_steps=400))
        (first,) = wait_for(instance.get_runs, world)
        assert first.tags["dagster/partition"] == "tiny"
        wait_for(lambda: checkpoints(world), world)
        kill(family_of(worker_of(instance, first)))
        (second,) = wait_for(lambda: instance.get_runs(dg.RunsFilter(tags={"dagster/retry_number": "1"})), world)
        assert second.parent_run_id == first.run_id
        wait_for(lambda: said(instance, second, RESUMED), world)
        # The machine goes down: daemon, code server, run and training at once.
        kill([one for child in psutil.Process().children() for one in family_of(child)])
    with daemon_of(world) as instance:
        (third,) = wait_for(lambda: instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])), world)
        assert third.tags["dagster/retry_number"] == "2" and said(instance, third, RESUMED)
        assert said(instance, second, "The run's process is gone")
        ended = {run.run_id: run.status for run in instance.get_runs()}
        killed = dg.DagsterRunStatus.FAILURE
        assert ended == {first.run_id: killed, second.run_id: killed, third.run_id: dg.DagsterRunStatus.SUCCESS}
    assert set(world.artifacts("tiny")) >= {"lora_adapter", "evaluation_report", "published_repo"}


def times_of(instance, run):
    """From when to when each step was at work, in seconds since 1970."""
    steps = {step.step_key: step for step in instance.get_run_step_stats(run.run_id)}
    return {key: (step.start_time, step.end_time) for key, step in steps.items()}


def test_trainings_take_turns_and_the_rest_goes_on_beside_them(world):
    base_model = save_tiny_model("smollm2-135m", world.root / "tiny-llama", ZEPHYR)
    for name in ("one", "two"):
        world.write_recipe(name, recipe(base_model, max_steps=150) | {"hub": {"repo": name, "license": "mit"}})
    with daemon_of(world) as instance:
        asked = ["job", "backfill", "-m", LOCATION, "-j", "main_line", "--partitions", "one,two", "--noprompt"]
        done = world.python("-m", "dagster", *asked)
        assert done.returncode == 0, done.stdout
        ended = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE])
        wait_for(lambda: len(instance.get_runs(ended)) == 2, world)
        runs = instance.get_runs()
        assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * 2
        earlier, later = sorted((times_of(instance, run) for run in runs), key=lambda times: times["lora_adapter"])
    assert earlier["lora_adapter"][1] <= later["lora_adapter"][0]
    assert later["chat_dataset"][0] < earlier["lora_adapter"][1], "data waited for the training"
    at_work = sorted(times[step] for times in (earlier, later) for step in ("lora_adapter", "evaluation_report"))
    assert all(one[1] <= other[0] for one, other in pairwise(at_work)), "an exam ran beside a training"


def ticks(instance):
    """The sensor's ticks so far."""
    (state,) = instance.all_instigator_state()
    return instance.get_ticks(state.instigator_origin_id, state.selector_id)
