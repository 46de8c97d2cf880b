"""A training of two workers on a cluster, which a test may disturb."""

import json
import logging
import shutil
import threading
from contextlib import contextmanager
from types import SimpleNamespace

from finetuning.recipe.recipe import Recipe
from finetuning.training.job import TrainingTask
from resources.artifacts import Artifacts
from resources.ray_cluster.training import place_of, train_on_cluster
from resources.ray_cluster.worker import RayTraining
from resources.store.artifact import Origin, fingerprint_of
from resources.store.plan import Plan
from tests.finetuning.training.test_lost_training import TRAINING
from tests.waiting import PATIENCE

PLAIN, DROPOUT = {"lora_dropout": 0.0}, {"lora_dropout": 0.1}


class OnCluster:
    """A training of two workers, and the store that it reads from."""

    def __init__(self, folder, inputs, root=None, lora=PLAIN, resources=None, workers=2, start=None, **training):
        self.folder, self.start = folder, start
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
        train_on_cluster(SimpleNamespace(log=self.log), self.training, folder, self.start)
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
