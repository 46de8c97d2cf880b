"""One training in workers on several nodes: what it comes to, and what becomes of it when they die.

FINETUNING_RAY=1 asks for what takes minutes: S3, a network that is cut, and how long a cluster takes.
"""

import json
import logging
import shutil
import threading
import time
from types import SimpleNamespace

import pytest

from finetuning.recipe import Recipe
from resources.artifacts import Artifacts, Plan, fingerprint_of
from resources.launcher import Launcher
from resources.ray_training import place_of, train_on_cluster
from resources.ray_worker import RayTraining
from tests.finetuning.test_lost_training import ADAPTER, TRAINING, Training, inputs  # noqa: F401
from tests.ray_cluster import ray_cluster

PLAIN = {"gradient_accumulation_steps": 1}
SHORT = {"num_train_epochs": 1, "max_steps": 24, "gradient_accumulation_steps": 1}


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster() as cluster:
        yield cluster


class OnCluster:
    """A training of two workers, and the store that it reads from."""

    def __init__(self, folder, inputs, root=None, lora=None, workers=2, **training):
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
                "lora": {"r": 4, "lora_dropout": 0.0, **(lora or {})},
                "training": {**TRAINING, "bf16": False, **training},
                "hub": {"repo": "tiny", "license": "mit"},
            }
        )
        job = {
            "where": "tiny.yaml",
            "lora": self.recipe.lora.model_dump(mode="json"),
            "training": self.recipe.training.model_dump(mode="json"),
            "max_length": 64,
        }
        made = {"chat_dataset": self.stored("chat_dataset", inputs, ("train.parquet", "eval.parquet", "tokenizer"))}
        made["base_model"] = self.stored("quantized_base_model", inputs / "model")
        self.plan = self.planned("lora_adapter", job)
        self.output = self.plan.home / f".{self.plan.fingerprint}.partial" / "artifact"
        self.training = RayTraining(
            recipe=self.recipe,
            job=job,
            inputs=made,
            workers=workers,
            artifacts=self.artifacts.everywhere(),
            require="any",
            place=place_of(self.artifacts, self.output),
            fingerprint=self.plan.fingerprint,
        )

    def planned(self, asset, record):
        record = {"asset": asset, "partition": "tiny", "inputs": {}, "sections": record, "resolved": {}}
        home = self.artifacts.home(asset, "tiny")
        return Plan(home, fingerprint_of(record), record, print, self.artifacts.remote(print))

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

    def words(self):
        return (self.folder / "log").read_text()

    def saved(self):
        """The newest step of which a checkpoint is in the store."""
        found = self.output.with_name("checkpoints").glob("*/step-*")
        return max((int(path.name.removeprefix("step-")) for path in found), default=-1)


def until(happened, seconds=120):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_workers_on_two_nodes_have_the_losses_of_one_process_with_twice_the_batch(cluster, tmp_path, inputs):
    two = OnCluster(tmp_path / "two", inputs, **PLAIN, per_device_train_batch_size=4).run()
    one = Training(tmp_path / "one", inputs, lora={"lora_dropout": 0.0}, **PLAIN, per_device_train_batch_size=8)
    one.finish()
    alone = one.summary()
    assert (two.summary["processes"], two.summary["tokens"]) == (2, alone["tokens"])
    for shared, single in zip(two.summary["curve"], alone["curve"], strict=True):
        assert shared["step"] == single["step"] and shared["loss"] == pytest.approx(single["loss"], rel=1e-5)
    assert two.summary["eval_loss"] == pytest.approx(alone["eval_loss"], rel=1e-5)


def test_a_training_whose_node_is_killed_ends_with_the_weights_of_an_undisturbed_one(cluster, tmp_path, inputs):
    undisturbed = Training(tmp_path / "local", inputs, lora={"lora_dropout": 0.1}, **SHORT)
    assert undisturbed.start(*Launcher().start(2), OMP_NUM_THREADS="1").wait(180) == 0, undisturbed.words()[-3000:]
    disturbed = OnCluster(tmp_path, inputs, lora={"lora_dropout": 0.1}, **SHORT)

    def disturb():
        until(lambda: disturbed.saved() >= 8)
        cluster.nodes[-1].kill()
        cluster.join()

    thread = threading.Thread(target=disturb)
    thread.start()
    artifact = disturbed.run()
    thread.join()
    assert "the workers were started again" in disturbed.words()
    assert (artifact.path / ADAPTER).read_bytes() == (undisturbed.output / ADAPTER).read_bytes()
    assert artifact.summary["curve"] == undisturbed.summary()["curve"]
