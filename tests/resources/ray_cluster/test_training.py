"""One training in workers on several nodes: what it comes to, and what becomes of it when they die.

FINETUNING_RAY=1 asks for what takes minutes.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from finetuning.errors import FinetuningError, InfrastructureError
from resources.launcher import Launcher
from resources.ray_cluster.training import train_on_cluster
from tests.finetuning.reinforcement.test_several_processes import HALVES, Rewarded, make_questions
from tests.finetuning.training.test_lost_training import ADAPTER, Training, make_inputs
from tests.ray_cluster import ray_cluster
from tests.resources.ray_cluster.network import other_network
from tests.resources.ray_cluster.on_cluster import DROPOUT, PLAIN, OnCluster, while_it_trains
from tests.resources.s3 import BUCKET, s3_server
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.long("a Ray cluster")
LONG = pytest.mark.skipif(not os.environ.get("FINETUNING_RAY"), reason="takes a minute; set FINETUNING_RAY=1")
SHORT = {"num_train_epochs": 1, "max_steps": 24, "gradient_accumulation_steps": 1}


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


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
def test_one_by_rewards_goes_on_from_an_adapter_and_where_it_was_killed(cluster, tmp_path):
    inputs = make_questions(tmp_path)
    first = Rewarded(tmp_path / "first", inputs, **HALVES)
    first.finish()
    start = tmp_path / "start"  # on this machine alone, and gone once it has travelled
    shutil.copytree(first.output, start)
    settings = {**HALVES, "seed": 7}
    local = Rewarded(tmp_path / "local", inputs, lora={**DROPOUT, "from": str(start)}, **settings)
    assert local.start(*Launcher().start(2), OMP_NUM_THREADS="1").wait(PATIENCE) == 0, local.words()[-3000:]
    disturbed = OnCluster(tmp_path / "ray", inputs, lora={**DROPOUT, "from": str(start)}, start=start, **settings)
    with while_it_trains(disturbed):
        until(lambda: disturbed.saved() >= 3)
        shutil.rmtree(start)
        cluster.nodes[-1].kill()
        cluster.join()
    artifact = disturbed.made()
    assert "the workers were started again" in disturbed.words()
    assert (artifact.path / ADAPTER).read_bytes() == (local.output / ADAPTER).read_bytes()
    assert artifact.summary["reward_curve"] == local.summary()["reward_curve"]


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
from tests.resources.ray_cluster.on_cluster import OnCluster
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
from tests.resources.ray_cluster.on_cluster import OnCluster
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


def workers():
    """The processes that train."""
    found = (process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"])
    return [process for process in found if "ray::RayTrainWorker" in process.info["cmdline"][0]]
