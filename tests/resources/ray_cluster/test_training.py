"""One training in workers on several nodes: what it comes to, and what becomes of it when they die.

FINETUNING_RAY=1 asks for what takes minutes.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.recipe.recipe import Recipe
from finetuning.training.job import TrainingTask
from resources.artifacts import Artifacts
from resources.launcher import Launcher
from resources.ray_cluster.board import Board
from resources.ray_cluster.training import place_of, train_on_cluster
from resources.ray_cluster.worker import RayTraining
from resources.ray_internals import name_of_the_checkpoint_list
from resources.store.artifact import Origin, fingerprint_of
from resources.store.plan import Plan
from tests.finetuning.training.test_lost_training import ADAPTER, TRAINING, Training, make_inputs
from tests.ray_cluster import ray_cluster
from tests.resources.s3 import BUCKET, s3_server
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.long("a Ray cluster")

LONG = pytest.mark.skipif(not os.environ.get("FINETUNING_RAY"), reason="takes a minute; set FINETUNING_RAY=1")
PLAIN, DROPOUT = {"lora_dropout": 0.0}, {"lora_dropout": 0.1}
SHORT = {"num_train_epochs": 1, "max_steps": 24, "gradient_accumulation_steps": 1}


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


class OnCluster:
    """A training of two workers, and the store that it reads from."""

    def __init__(self, folder, inputs, root=None, lora=PLAIN, resources=None, workers=2, **training):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.log = logging.getLogger(str(folder))
        self.log.setLevel(logging.INFO)
        self.log.addHandler(logging.FileHandler(folder / "log"))
        self.artifacts = Artifacts(root=str(root or folder / "artifacts"), cache=str(folder / "cache"))
        self.recipe = Recipe.model_validate(
            {
                "name": "tiny",
                "summary": "tiny",
                "base_model": {"repo": "someone/model", "dtype": "float32", "quantization": None},
                "dataset": {"sources": [{"generator": "linear-equations", "rows": 10}]},
                "chat": {"max_length": 64},
                "lora": {"r": 4, **lora},
                "training": {**TRAINING, "bf16": False, **training},
                "resources": resources or {},
                "hub": {"repo": "tiny", "license": "mit"},
            }
        )
        task = TrainingTask.of(self.recipe)
        made = {"chat_dataset": self.stored("chat_dataset", inputs, ("train.parquet", "eval.parquet", "tokenizer"))}
        made["base_model"] = self.stored("quantized_base_model", inputs / "model")
        self.plan = self.planned("lora_adapter", task.model_dump(mode="json"))
        self.output = self.plan.home / f".{self.plan.fingerprint}.partial" / "artifact"
        self.training = RayTraining(
            recipe=self.recipe,
            task=task,
            inputs=made,
            workers=workers,
            require="any",
            place=place_of(self.artifacts, self.output),
        )

    def planned(self, asset, record):
        record = {"asset": asset, "partition": "tiny", "inputs": {}, "sections": record, "resolved": {}}
        return Plan(self.artifacts.store(print), Origin(**record), fingerprint_of(record), print)

    def stored(self, asset, source, names=None):
        def write(folder):
            for path in source.iterdir():
                if names is None or path.name in names:
                    copy = shutil.copytree if path.is_dir() else shutil.copy
                    copy(path, folder / path.name)
            return {}

        return self.planned(asset, {"source": str(source)}).obtain(write)

    def write(self, folder):
        train_on_cluster(SimpleNamespace(log=self.log), self.training, folder)
        return json.loads((folder / "summary.json").read_text())

    def run(self):
        return self.plan.obtain(self.write)

    def made(self):
        """The artifact that a run in a thread made."""
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def words(self):
        return (self.folder / "log").read_text()

    def saved(self):
        """The newest step of which a checkpoint is in the store."""
        found = self.output.with_name("checkpoints").glob("*/step-*")
        return max((int(path.name.removeprefix("step-")) for path in found), default=-1)


@contextmanager
def while_it_trains(training):
    """It has ended after the block."""

    def run():
        try:
            training.outcome = training.run()
        except BaseException as error:
            training.outcome = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(PATIENCE)
    assert not thread.is_alive(), training.words()


def test_a_training_whose_node_is_killed_ends_as_an_undisturbed_one_of_two_local_processes(cluster, tmp_path, inputs):
    local = Training(tmp_path / "local", inputs, lora=DROPOUT, **SHORT)
    assert local.start(*Launcher().start(2), OMP_NUM_THREADS="1").wait(PATIENCE) == 0, local.words()[-3000:]
    disturbed = OnCluster(tmp_path / "ray", inputs, lora=DROPOUT, **SHORT)
    with while_it_trains(disturbed):
        until(lambda: disturbed.saved() >= 8)
        cluster.nodes[-1].kill()
        cluster.join()
    artifact = disturbed.made()
    assert "the workers were started again" in disturbed.words()
    assert "going on from the checkpoint of step" in disturbed.words()
    assert (artifact.path / ADAPTER).read_bytes() == (local.output / ADAPTER).read_bytes()
    assert artifact.summary["curve"] == local.summary()["curve"] and artifact.summary["processes"] == 2
    assert sorted(path.name for path in artifact.path.iterdir()) == sorted(
        [*(path.name for path in local.output.iterdir()), "artifact.json"]
    )
    assert not list(artifact.path.parent.glob(".*.partial"))


def test_the_list_of_checkpoints_that_a_killed_process_was_writing_is_as_it_was_before(tmp_path):
    path = tmp_path / name_of_the_checkpoint_list()
    source = f"""
import os
from resources.ray_cluster.training import files_at
files, place = files_at({str(path)!r})
with files.open_output_stream(place) as stream:
    stream.write(b"whole")
stream = files.open_output_stream(place)
stream.write(b"cut")
stream.flush()
os._exit(9)
"""
    assert (
        subprocess.run([sys.executable, "-c", source], env={**os.environ, "PYTHONPATH": str(Path.cwd())}).returncode
        == 9
    )
    assert path.read_bytes() == b"whole"


@LONG
def test_workers_that_run_out_of_memory_go_on_in_smaller_passes(tmp_path, inputs):
    """What runs out after five steps with more than two rows a pass is an allocation that no machine can make."""
    (tmp_path / "sitecustomize.py").write_text("""
import importlib.machinery, sys

class Hungry:
    def find_spec(self, name, path=None, target=None):
        if name != "finetuning.training.trainer":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            import torch
            compute = module.AdapterTrainer.compute_loss
            def compute_loss(self, model, inputs, *args, **kwargs):
                if self.state.global_step >= 5 and model.training and len(inputs["input_ids"]) > 2:
                    torch.empty(2**50)
                return compute(self, model, inputs, *args, **kwargs)
            module.AdapterTrainer.compute_loss = compute_loss
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Hungry())
""")
    settings = {**SHORT, "max_steps": 8, "on_oom": "halve-batch", "per_device_train_batch_size": 4}
    with ray_cluster(environments=({"PYTHONPATH": str(tmp_path)},) * 2):
        starved = OnCluster(tmp_path / "ray", inputs, **settings)
        artifact = starved.run()
    plain = Training(tmp_path / "plain", inputs, lora=PLAIN, **settings)
    assert plain.start(*Launcher().start(2), OMP_NUM_THREADS="1").wait(PATIENCE) == 0, plain.words()[-3000:]
    assert "out of memory: going on with 2 rows a pass" in starved.words()
    assert "going on from the checkpoint of step" in starved.words()
    assert (artifact.summary["per_device_train_batch_size"], artifact.summary["gradient_accumulation_steps"]) == (2, 2)
    for shared, alone in zip(artifact.summary["curve"], plain.summary()["curve"], strict=True):
        assert shared["step"] == alone["step"] and shared["loss"] == pytest.approx(alone["loss"], rel=1e-5)


@LONG
def test_workers_on_two_nodes_have_the_losses_of_one_process_with_twice_the_batch(cluster, tmp_path, inputs):
    two = OnCluster(tmp_path / "two", inputs, **SHORT, per_device_train_batch_size=4).run()
    one = Training(tmp_path / "one", inputs, lora=PLAIN, **SHORT, per_device_train_batch_size=8)
    one.finish()
    alone = one.summary()
    assert (two.summary["processes"], two.summary["tokens"]) == (2, alone["tokens"])
    for shared, single in zip(two.summary["curve"], alone["curve"], strict=True):
        assert shared["step"] == single["step"] and shared["loss"] == pytest.approx(single["loss"], rel=1e-5)
    assert two.summary["eval_loss"] == pytest.approx(alone["eval_loss"], rel=1e-5)


@LONG
def test_workers_that_divide_the_base_model_go_on_where_one_was_killed_and_end_as_two_that_do_not(
    cluster, tmp_path, inputs
):
    settings = {**SHORT, "eval_steps": 2, "early_stopping_patience": 12}
    local = Training(tmp_path / "local", inputs, lora=DROPOUT, **settings)
    assert local.start(*Launcher().start(2), OMP_NUM_THREADS="1").wait(PATIENCE) == 0, local.words()[-3000:]
    divided = OnCluster(tmp_path / "ray", inputs, lora=DROPOUT, resources={"strategy": "fsdp"}, **settings)
    with while_it_trains(divided):
        until(lambda: divided.saved() >= 8)
        cluster.nodes[-1].kill()
        cluster.join()
    artifact = divided.made()
    assert "the workers were started again" in divided.words()
    assert artifact.summary["strategy"] == "fsdp"
    assert artifact.summary["weights_held_mb"] < 0.8 * artifact.summary["weights_mb"]
    # Measured with the best weights, which only the first worker has on its disk.
    assert artifact.summary["eval_loss"] == local.summary()["eval_loss"]
    assert artifact.summary["eval_loss"] < artifact.summary["eval_curve"][-2]["loss"]
    assert (artifact.path / ADAPTER).read_bytes() == (local.output / ADAPTER).read_bytes()


@LONG
def test_a_mistake_is_told_once_as_it_is_on_one_machine(cluster, tmp_path, inputs):
    wrong = OnCluster(tmp_path / "ray", inputs, lora={"target_modules": ["q_projj"]})
    with pytest.raises(FinetuningError, match=r"^tiny.yaml: lora.target_modules: 'q_projj' is no linear layer") as told:
        wrong.run()
    assert type(told.value) is FinetuningError and "started again" not in wrong.words()


@LONG
def test_a_cancelled_training_ends_after_a_checkpoint_and_the_next_one_goes_on_from_there(cluster, tmp_path, inputs):
    settings = {**SHORT, "max_steps": 400, "save_steps": None}
    source = f"""
import signal
# A job that a shell put into the background ignores Ctrl-C, and so do its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from tests.resources.ray_cluster.test_training import OnCluster
OnCluster(Path({str(tmp_path / "ray")!r}), Path({str(inputs)!r}), **{settings!r}).run()
"""
    process = subprocess.Popen([sys.executable, "-c", source], env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    again = OnCluster(tmp_path / "ray", inputs, **settings)
    until(lambda: "step 1" in again.words() or "step 2" in again.words() or "step 3" in again.words())
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    assert process.wait(PATIENCE) != 0
    took = time.monotonic() - asked
    step = again.saved()
    assert took < 10 and 0 < step < 400, (took, step)
    again.run()
    assert f"going on from the checkpoint of step {step}" in again.words()


@LONG
def test_workers_end_with_a_step_that_was_killed_and_the_next_one_goes_on(cluster, tmp_path, inputs):
    settings = {**SHORT, "max_steps": 60}
    source = f"""
from pathlib import Path
from tests.resources.ray_cluster.test_training import OnCluster
OnCluster(Path({str(tmp_path / "ray")!r}), Path({str(inputs)!r}), **{settings!r}).run()
"""
    process = subprocess.Popen([sys.executable, "-c", source], env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    again = OnCluster(tmp_path / "ray", inputs, **settings)
    until(lambda: again.saved() >= 8)
    assert len(workers()) == 2
    process.kill()
    process.wait()
    killed = time.monotonic()
    until(lambda: not workers(), seconds=120)
    print(f"the workers were gone {time.monotonic() - killed:.1f} s after the step was killed")
    whole = OnCluster(tmp_path / "whole", inputs, **settings).run()
    assert (again.run().path / ADAPTER).read_bytes() == (whole.path / ADAPTER).read_bytes()
    assert "going on from the checkpoint of step" in again.words() and "started again" not in again.words()


@LONG
def test_an_adapter_that_nobody_took_is_found(cluster, tmp_path, inputs):
    training = OnCluster(tmp_path / "ray", inputs, **SHORT)

    def dies_before_the_end(folder):
        train_on_cluster(SimpleNamespace(log=training.log), training.training, folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.plan.obtain(dies_before_the_end)
    (training.folder / "log").write_text("")
    artifact = training.run()
    assert "step" not in training.words() and artifact.summary["steps"] == SHORT["max_steps"]


@LONG
def test_artifacts_and_checkpoints_travel_through_object_storage(tmp_path, inputs):
    with s3_server():
        caches = [{"FINETUNING_ARTIFACTS_CACHE": str(tmp_path / name)} for name in ("first", "second")]
        with ray_cluster(environments=tuple(caches)) as cluster:
            training = OnCluster(tmp_path / "ray", inputs, root=f"s3://{BUCKET}/artifacts", **SHORT)
            objects = training.artifacts.store(print).objects
            with while_it_trains(training):
                until(lambda: any("step-8/" in name for name in objects.sizes()))
                cluster.nodes[-1].kill()
                cluster.join(caches[1])
            artifact = training.made()
        assert not any(".partial/" in name for name in objects.sizes())
    local = Training(tmp_path / "local", inputs, lora=PLAIN, **SHORT)
    assert local.start(*Launcher().start(2), OMP_NUM_THREADS="1").wait(PATIENCE) == 0, local.words()[-3000:]
    assert (artifact.path / ADAPTER).read_bytes() == (local.output / ADAPTER).read_bytes()
    for cache in ("first", "second"):
        assert len(list((tmp_path / cache).rglob("quantized_base_model/tiny/*/artifact.json"))) == 1
    assert "a worker failed" not in training.words() or "started again" in training.words()


@LONG
def test_a_training_whose_nodes_lose_each_other_goes_on_once_a_node_is_there_again(tmp_path, inputs):
    with other_network() as network:
        first, second = ({"GLOO_SOCKET_IFNAME": name} for name in network.links)
        with ray_cluster(nodes=1, environments=(first,), head=network.addresses[0]) as cluster:
            cluster.join(second, address=network.addresses[1], within=network.within)
            training = OnCluster(tmp_path / "ray", inputs, lora=DROPOUT, **SHORT)
            with while_it_trains(training):
                until(lambda: training.saved() >= 8)
                network.cut()
                until(lambda: "waiting for the Ray cluster to start 2 workers" in training.words())
                cluster.nodes[-1].kill()
                network.mend()
                cluster.join(second, address=network.addresses[1], within=network.within)
            artifact = training.made()
    local = Training(tmp_path / "local", inputs, lora=DROPOUT, **SHORT)
    assert local.start(*Launcher().start(2), OMP_NUM_THREADS="1").wait(PATIENCE) == 0, local.words()[-3000:]
    assert (artifact.path / ADAPTER).read_bytes() == (local.output / ADAPTER).read_bytes()
    assert "the workers were started again" in training.words()


@dataclass
class Network:
    """Two ends of a cable, of which the second is in a network of its own."""

    name: str
    addresses: tuple[str, str] = ("10.77.0.1", "10.77.0.2")

    @property
    def links(self):
        return f"{self.name}a", f"{self.name}b"

    @property
    def within(self):
        return ("ip", "netns", "exec", self.name)

    def cut(self):
        ip("-n", self.name, "link", "set", self.links[1], "down")

    def mend(self):
        ip("-n", self.name, "link", "set", self.links[1], "up")


def ip(*words):
    subprocess.run(["ip", *words], check=True)


@contextmanager
def other_network():
    """A network that is gone after the block."""
    network = Network(f"ray{os.getpid()}")
    if not shutil.which("ip") or subprocess.run(["ip", "netns", "add", network.name], check=False).returncode:
        pytest.skip("needs to make a network")
    try:
        (ours, theirs), (here, there) = network.links, network.addresses
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", network.name)
        ip("addr", "add", f"{here}/24", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", network.name, "addr", "add", f"{there}/24", "dev", theirs)
        for link in ("lo", theirs):
            ip("-n", network.name, "link", "set", link, "up")
        yield network
    finally:
        ip("netns", "del", network.name)


@LONG
def test_a_cluster_takes_no_more_than_a_minute_longer_than_two_local_processes(cluster, tmp_path, inputs):
    local = Training(tmp_path / "local", inputs, lora=PLAIN, **SHORT)
    started = time.monotonic()
    assert local.start(*Launcher().start(2), OMP_NUM_THREADS="1").wait(PATIENCE) == 0, local.words()[-3000:]
    between = time.monotonic()
    OnCluster(tmp_path / "ray", inputs, **SHORT).run()
    alone, together = between - started, time.monotonic() - between
    print(f"{alone:.1f} s by two local processes, {together:.1f} s by two workers of a cluster")
    assert together - alone < 60


def test_what_no_cluster_can_do_is_said_before_anything_waits(cluster, tmp_path, inputs, monkeypatch):
    training = OnCluster(tmp_path, inputs, resources={"gpus": 1}, workers=4)
    said = r"resources: 4 workers of 1 CPU, 1 GPU are more than .* can hold: 2 nodes of 1 CPU, 0 GPU, .*room for 0 of"
    with pytest.raises(InfrastructureError, match=said):
        training.run()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(InfrastructureError, match=r"RAY_ADDRESS: '127.0.0.1:1': no Ray cluster answers"):
        training.run()
    assert time.monotonic() - started < 10


def test_workers_that_die_again_and_again_at_one_step_are_not_started_for_ever():
    board = Board()
    assert all(board.begin(step) for step in (-1, 4, 4, 8, 8, 8))
    assert not board.begin(8) and not board.may_go_on()
    lines, failure, _ = board.news()
    assert len(lines) == 6 and "died 3 times after step 8" in failure.text and failure.kind == "infrastructure"


def workers():
    """The processes that train."""
    found = (process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"])
    return [process for process in found if "ray::RayTrainWorker" in process.info["cmdline"][0]]
