"""A run that is killed or cancelled, in whole or in part: the next one ends with the weights that it would have had."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.pipelines.command import IN_PROCESS, ROOT, World
from tests.tiny_models import ZEPHYR, save_tiny_model
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.long("runs that are killed and made up for")

KILLS = int(os.environ.get("FINETUNING_KILLS", "1"))
ADAPTER = "adapter_model.safetensors"
TRAINING = "finetuning.memory.predicted_training"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    base_model = save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("base") / "tiny-llama", ZEPHYR)
    rows = {
        "generator": "linear-equations",
        "format": "question-answer",
        "columns": {"question": "Problem", "answer": "Solution"},
        "rows": 800,
    }
    return {
        "summary": "A tiny model that learns nothing much",
        "base_model": {"repo": str(base_model)},
        "dataset": {"sources": [rows], "eval": {"fraction": 0.02}},
        "lora": {"r": 4, "lora_alpha": 8},
        "training": {
            "max_steps": 150,
            "per_device_train_batch_size": 4,
            "activation_checkpointing": False,
            "save_steps": 10,
        },
        "evaluation": {"metrics": ["exact-match"], "rows": 6, "max_new_tokens": 64},
        "hub": {"repo": "tiny-adapter", "license": "apache-2.0"},
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, recipe):
    """A world in which a training came to its end undisturbed."""
    world = World(tmp_path_factory.mktemp("world"))
    world.write_recipe("tiny", recipe)
    first = world.materialize_warm("tiny", select="raw_dataset,chat_dataset,quantized_base_model,lora_adapter")
    assert first.returncode == 0, first.stdout[-4000:]
    return world


@contextmanager
def running(world: World, config: str = IN_PROCESS) -> Iterator[subprocess.Popen[str]]:
    """A run that trains, in a group of processes of its own; none of them outlives the block."""
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "pipelines.definitions"]
    command += ["--select", "lora_adapter", "--partition", "tiny", "--config-json", config]
    log = (world.root / "log").open("w")
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=world.environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def trainer_of(process: subprocess.Popen[str]) -> psutil.Process | None:
    """The process that trains, among those that the run has started."""
    try:
        found = [child for child in psutil.Process(process.pid).children(recursive=True) if TRAINING in child.cmdline()]
    except psutil.NoSuchProcess:
        return None
    return found[0] if found else None


def at_a_random_step(world: World, process: subprocess.Popen[str]) -> psutil.Process:
    """The process that trains, at a moment between its first steps and its last."""
    saved = world.root / "artifacts" / "lora_adapter" / "tiny"
    step = random.choice([10, 40, 80])
    until(lambda: list(saved.glob(f".*.partial/checkpoints/step-{step}")) or process.poll() is not None)
    assert process.poll() is None, (world.root / "log").read_text()[-3000:]
    time.sleep(random.uniform(0, 0.5))
    trainer = trainer_of(process)
    assert trainer
    return trainer


@pytest.fixture
def behind(undisturbed, tmp_path, recipe):
    """A world like the other one, in which nothing was trained yet."""
    world = World(tmp_path)
    world.write_recipe("tiny", recipe)
    shutil.copytree(undisturbed.root / "artifacts", tmp_path / "artifacts")
    shutil.rmtree(tmp_path / "artifacts" / "lora_adapter")
    return world


def adapter(world: World) -> bytes:
    return (world.folder("lora_adapter", "tiny") / ADAPTER).read_bytes()


def ends_as_it_would_have(world: World, undisturbed: World) -> None:
    run = world.materialize_warm("tiny", select="lora_adapter")
    assert run.returncode == 0, run.stdout[-4000:]
    assert "going on from the checkpoint of step" in run.stdout
    assert adapter(world) == adapter(undisturbed)
    home = world.root / "artifacts" / "lora_adapter" / "tiny"
    fingerprint = json.loads((home / "current.json").read_text())["fingerprint"]
    assert sorted(path.name for path in home.iterdir()) == sorted([".lock", "current.json", fingerprint])


@pytest.mark.parametrize("number", range(KILLS))
def test_a_run_killed_as_a_whole_is_made_up_for_by_the_next(behind, undisturbed, number):
    with running(behind) as process:
        trainer = at_a_random_step(behind, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        until(lambda: not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE, seconds=5)
    told = behind.results("tiny")
    assert told.returncode == 5 and "is STARTED: it was killed or cancelled, or goes on still" in told.stdout
    ends_as_it_would_have(behind, undisturbed)


@pytest.mark.parametrize("number", range(KILLS))
def test_a_step_that_is_killed_takes_its_training_with_it_and_is_made_up_for(behind, undisturbed, number):
    with running(behind, config="{}") as process:
        trainer = at_a_random_step(behind, process)
        step = trainer.parent()
        assert step and step.pid != process.pid, "the step has a process of its own"
        step.kill()
        until(lambda: not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE, seconds=5)
        assert process.wait(PATIENCE) != 0
    ends_as_it_would_have(behind, undisturbed)


@pytest.mark.parametrize("number", range(KILLS))
def test_a_training_that_is_killed_fails_its_step_with_the_reason_and_is_made_up_for(behind, undisturbed, number):
    with running(behind) as process:
        at_a_random_step(behind, process).kill()
        assert process.wait(PATIENCE) != 0
    assert "killed by the system (signal 9)" in (behind.root / "log").read_text()
    assert behind.results("tiny").returncode == 5
    ends_as_it_would_have(behind, undisturbed)


def test_a_cancelled_run_ends_its_training_within_ten_seconds_after_a_checkpoint(behind, undisturbed):
    with running(behind) as process:
        trainer = at_a_random_step(behind, process)
        process.send_signal(signal.SIGINT)
        until(lambda: not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE, seconds=10)
        assert process.wait(PATIENCE) != 0
    assert "interrupted; the next run goes on" in (behind.root / "log").read_text()
    ends_as_it_would_have(behind, undisturbed)
