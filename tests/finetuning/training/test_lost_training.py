"""A training that is killed, cancelled or starved goes on where it was, and ends with the very same weights.

FINETUNING_KILLS says at how many random moments it is killed (2, so that the tests stay quick).
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from finetuning.training.process import FAILURE, HANG, INTERRUPTED, MISTAKE, SMALLER
from resources.launcher import Launcher
from tests.tiny_models import save_tiny_model
from tests.waiting import PATIENCE
from tests.warm import SERVER
from tests.warm_server import WarmServer

KILLS = int(os.environ.get("FINETUNING_KILLS", "2"))
ADAPTER = "adapter_model.safetensors"
TRAINING = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "activation_checkpointing": False,
    "learning_rate": 1e-2,
    "logging_steps": 5,
    "save_steps": 4,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def make_inputs(folder: Path) -> Path:
    """`folder`, with a base model and a chat data set of rows of random lengths."""
    save_tiny_model("smollm2-135m", folder / "model")
    draw = random.Random(0)
    for split, count in (("train", 123), ("eval", 9)):
        Dataset.from_list([row(draw) for _ in range(count)]).to_parquet(str(folder / f"{split}.parquet"))
    AutoTokenizer.from_pretrained(folder / "model").save_pretrained(folder / "tokenizer")
    return folder


def row(draw: random.Random) -> dict[str, list[int]]:
    ids = [draw.randint(5, 90) for _ in range(draw.randint(8, 60))]
    prompt = draw.randint(2, len(ids) - 2)
    return {"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]}


class Training:
    """A job on the disk, and the process that does it."""

    MODULE = "finetuning.training.process"

    def __init__(self, folder: Path, inputs: Path, lora: dict[str, Any] | None = None, **training: Any) -> None:
        self.folder, self.output, self.checkpoints = folder, folder / "artifact", folder / "checkpoints"
        self.job = {
            "where": "tiny.yaml",
            "lora": {"r": 4, "lora_dropout": 0.1, **(lora or {})},
            "training": {**TRAINING, **training},
            "max_length": 64,
            "chat_dataset": str(inputs),
            "base_model": str(inputs / "model"),
            "model_kwargs": {"dtype": "float32", "device_map": {"": "cpu"}, "trust_remote_code": False},
            "output": str(self.output),
            "checkpoints": str(self.checkpoints),
        }

    def start(self, *before: str, warm: bool = True, **environment: str) -> subprocess.Popen[str]:
        """The process, in a folder that has no output of an earlier one, as the pipeline gives it.

        A warm one is the fork of a process that has imported the libraries; whoever kills it wants one that is not.
        """
        shutil.rmtree(self.output, ignore_errors=True)
        self.output.mkdir(parents=True)
        (self.folder / FAILURE).unlink(missing_ok=True)
        (self.folder / "job.json").write_text(json.dumps(self.job))
        command = [*(before or (sys.executable, "-m")), self.MODULE, str(self.folder / "job.json")]
        # What it says is there at once, so that a test may wait for it.
        surroundings = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        if warm and (server := WarmServer.training(surroundings)):
            command, surroundings = [str(server.interpreter), *command[1:]], surroundings | {SERVER: server.address}
        log = (self.folder / "log").open("a")
        return subprocess.Popen(command, env=surroundings, stdout=log, stderr=subprocess.STDOUT, text=True)

    def finish(self, **environment: str) -> bytes:
        """The adapter's file, once the process has ended well."""
        assert self.start(**environment).wait(PATIENCE) == 0, self.words()[-3000:]
        return (self.output / ADAPTER).read_bytes()

    def summary(self) -> dict[str, Any]:
        return json.loads((self.output / "summary.json").read_text())

    def words(self) -> str:
        return (self.folder / "log").read_text()

    def steps_saved(self) -> list[int]:
        return sorted(int(path.name.removeprefix("step-")) for path in self.checkpoints.glob("step-*"))


@pytest.fixture
def training(tmp_path, inputs):
    return Training(tmp_path, inputs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, inputs):
    """A training that nothing happened to: its process's seconds, and those before its first step."""
    whole = Training(tmp_path_factory.mktemp("whole"), inputs)
    started = time.monotonic()
    process = whole.start(warm=False)
    until(lambda: whole.steps_saved() != [], process)
    before = time.monotonic() - started
    assert process.wait(PATIENCE) == 0, whole.words()[-3000:]
    return whole, before, time.monotonic() - started


def until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Return once it happened, or the process has ended."""
    while process.poll() is None and not happened():
        time.sleep(0.01)


@pytest.mark.long("trainings that are killed")
@pytest.mark.parametrize("number", range(KILLS))
def test_a_training_killed_at_any_moment_ends_with_the_same_weights(training, whole, number):
    reference, before, seconds = whole
    process = training.start(warm=False)
    time.sleep(random.uniform(before * 0.9, seconds))
    process.kill()
    process.wait(PATIENCE)
    assert training.finish() == (reference.output / ADAPTER).read_bytes()
    assert training.summary()["curve"] == reference.summary()["curve"]
    assert sorted(path.name for path in training.output.iterdir()) == sorted(
        path.name for path in reference.output.iterdir()
    )
    assert not list(training.checkpoints.glob(".*")) and len(training.steps_saved()) == 2


@pytest.mark.long("a training for each step to go on from")
@pytest.mark.parametrize("step", [0, 16, 20])
def test_a_training_goes_on_from_a_checkpoint_wherever_in_an_epoch_it_is(training, whole, step):
    reference, *_ = whole  # 16 steps are an epoch
    process = training.start(warm=False)
    until(lambda: step in training.steps_saved(), process)
    process.kill()
    process.wait(PATIENCE)
    for path in training.checkpoints.iterdir():
        if path.name != f"step-{step}":
            shutil.rmtree(path)
    assert training.finish() == (reference.output / ADAPTER).read_bytes()
    assert f"going on from the checkpoint of step {step}" in training.words() or step == 0


@pytest.mark.long("trainings that are cancelled")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_training_ends_at_once_after_a_checkpoint(tmp_path, inputs, whole, number):
    reference, *_ = whole
    training = Training(tmp_path, inputs, save_steps=None)
    process = training.start()
    until(lambda: "'loss'" in (training.words() if training.folder.joinpath("log").exists() else ""), process)
    process.send_signal(number)
    asked = time.monotonic()
    assert process.wait(10) == INTERRUPTED, training.words()[-3000:]
    assert time.monotonic() - asked < 10
    assert 0 < training.steps_saved()[-1] < 48, "it was cancelled too early or too late to prove anything"
    assert training.finish() == (reference.output / ADAPTER).read_bytes()


@pytest.mark.long("several trainings")
def test_the_same_steps_come_of_smaller_micro_batches(tmp_path, inputs):
    halves = Training(
        tmp_path, inputs, lora={"lora_dropout": 0.0}, per_device_train_batch_size=2, gradient_accumulation_steps=4
    )
    plain = Training(tmp_path / "plain", inputs, lora={"lora_dropout": 0.0})
    halves.finish()
    plain.finish()
    for one, other in zip(halves.summary()["curve"], plain.summary()["curve"], strict=True):
        assert one["step"] == other["step"] and one["loss"] == pytest.approx(other["loss"], rel=1e-5)


@pytest.mark.long("two processes that train")
def test_two_processes_have_the_losses_of_one_with_twice_the_batch(tmp_path, inputs):
    settings = {"lora": {"lora_dropout": 0.0}, "gradient_accumulation_steps": 1}
    two = Training(tmp_path / "two", inputs, **settings, per_device_train_batch_size=4)
    one = Training(tmp_path / "one", inputs, **settings, per_device_train_batch_size=8)
    process = two.start(*Launcher().start(2), OMP_NUM_THREADS="1")
    assert process.wait(PATIENCE) == 0, two.words()[-3000:]
    one.finish()
    assert (two.summary()["processes"], two.summary()["tokens"]) == (2, one.summary()["tokens"])
    for shared, alone in zip(two.summary()["curve"], one.summary()["curve"], strict=True):
        assert shared["step"] == alone["step"] and shared["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert two.summary()["eval_loss"] == pytest.approx(one.summary()["eval_loss"], rel=1e-5)


@pytest.mark.long("two processes that train")
def test_of_two_processes_that_ran_out_of_memory_smaller_passes_take_the_place(tmp_path, inputs):
    settings = {"lora": {"lora_dropout": 0.0}, "max_steps": 8, "num_train_epochs": 1, "on_oom": "halve-batch"}
    starved, plain = (
        Training(tmp_path / "starved", inputs, **settings),
        Training(tmp_path / "plain", inputs, **settings),
    )
    hungry = tmp_path / "hungry"
    hungry.mkdir()
    # What runs out after five steps with more than two rows a pass, by an allocation that no machine can make.
    (hungry / "sitecustomize.py").write_text(
        "import finetuning.training.trainer as module, torch\n"
        "compute = module.AdapterTrainer.compute_loss\n"
        "def compute_loss(self, model, inputs, *args, **kwargs):\n"
        "    if self.state.global_step >= 5 and model.training and len(inputs['input_ids']) > 2: torch.empty(2**50)\n"
        "    return compute(self, model, inputs, *args, **kwargs)\n"
        "module.AdapterTrainer.compute_loss = compute_loss\n"
    )
    surroundings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(hungry)}
    two = Launcher().start(2)
    assert starved.start(*two, **surroundings).wait(PATIENCE) != 0
    starved.job["batch_size"] = json.loads((starved.folder / SMALLER).read_text())
    assert starved.job["batch_size"] == {"rows": 2, "accumulation": 4}
    assert starved.start(*two, **surroundings).wait(PATIENCE) == 0, starved.words()[-3000:]
    assert "going on from the checkpoint of step 4" in starved.words()
    assert plain.start(*two, OMP_NUM_THREADS="1").wait(PATIENCE) == 0, plain.words()[-3000:]
    assert starved.summary()["per_device_train_batch_size"] == 2
    for smaller, larger in zip(starved.summary()["curve"], plain.summary()["curve"], strict=True):
        assert smaller["step"] == larger["step"] and smaller["loss"] == pytest.approx(larger["loss"], rel=1e-5)


@pytest.mark.long("a training that hangs")
def test_a_training_that_hangs_ends_itself_and_says_where_it_was(training, inputs, tmp_path):
    training.job["training"] |= {"step_timeout_minutes": 0.02}
    slow = tmp_path / "slow"
    slow.mkdir()
    # The process loads this before all else, as a broken library would be: the third step never comes back.
    (slow / "sitecustomize.py").write_text(
        "import finetuning.training.supervised_loss as module, time\n"
        "calls, compute = [], module.supervised_loss\n"
        "def supervised_loss(*args):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3: time.sleep(60)\n"
        "    return compute(*args)\n"
        "module.supervised_loss = supervised_loss\n"
    )
    process = training.start(PYTHONPATH=f"{slow}:{Path.cwd()}")
    assert process.wait(PATIENCE) == 1, training.words()[-3000:]
    assert "supervised_loss" in (training.folder / HANG).read_text()


def test_a_full_disk_is_found_before_the_first_step(training, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("needs to mount a small disk")
    try:
        training.job["checkpoints"] = str(small / "checkpoints")
        assert training.start().wait(PATIENCE) == MISTAKE, training.words()[-3000:]
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert "the disk is full: checkpoints need 1 MiB, and 0 MiB are free" in (training.folder / FAILURE).read_text()
