"""Exams in a store, as the main line leaves them, of models whose scores a test decides."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from finetuning.base_model.quantization_summary import QuantizationSummary
from finetuning.training.summary import TrainingSummary
from resources.store.artifact import Artifact, Origin, fingerprint_of
from resources.store.disk import DiskStore
from resources.store.plan import Plan
from resources.store.store import Store
from tests.finetuning.leaderboard.made import ASKED, report, samples

BASE = {"source": "/models/tiny", "revision": "1" * 12, "on_hub": False}
TRAINED = TrainingSummary(
    trainable_parameters=1000,
    steps=3,
    train_loss=1.0,
    eval_loss=1.0,
    tokens=100,
    tokens_per_second=10.0,
    training_seconds=1800.0,
    peak_memory_mb=500,
    device="cpu",
    dtype="bfloat16",
    processes=2,
    per_device_train_batch_size=1,
    gradient_accumulation_steps=1,
    activation_checkpointing=False,
    attention="sdpa",
    passed_over={},
    curve=[],
    eval_curve=[],
).as_json()
LOADED = QuantizationSummary(
    parameters=999_000, full_size_mb=4.0, size_mb=1.0, quantization_error=0.1, layers=[]
).as_json()


@dataclass
class ExamStore:
    """A store on a disk, or the one that is given."""

    root: Path
    store: Store | None = None

    @property
    def disk(self) -> Store:
        return self.store or DiskStore(self.root)

    def make(self, origin: Origin, write: Callable[[Path], dict], partition: str | None = None) -> Artifact:
        """The artifact in force, which partitions share where its own partition is another one."""
        fingerprint = fingerprint_of({key: value for key, value in origin.as_json().items() if key != "partition"})
        if partition:
            origin = replace(origin, partition=fingerprint)
        return Plan(self.disk, origin, fingerprint, lambda line: None, partition).obtain(write)

    def exam(
        self, name: str, scores: list[float], r: int = 8, smoke: bool = False, weights: str = "weights"
    ) -> Artifact:
        """The report of an adapter of rank `r` with these scores, in force for the recipe of that name."""

        def adapter_in(folder: Path) -> dict:
            (folder / "adapter_model.safetensors").write_text(weights)
            return TRAINED

        def report_in(folder: Path) -> dict:
            (folder / "report.json").write_text(json.dumps(report(scores).as_json()))
            samples(name, scores).to_parquet(folder / "samples.parquet")
            return {}

        base = Origin(
            asset="quantized_base_model",
            partition=name,
            inputs={},
            sections={},
            resolved={"base_model": BASE},
            smoke=smoke,
        )
        loaded = self.make(base, lambda folder: LOADED, name)
        adapter = self.make(
            replace(base, asset="lora_adapter", sections={"lora": {"r": r}}, **made_of(loaded)), adapter_in
        )
        return self.make(
            replace(base, asset="evaluation_report", sections={"evaluation": ASKED}, **made_of(adapter)), report_in
        )


def made_of(artifact: Artifact) -> dict[str, dict[str, str]]:
    """What an artifact's maker records of it."""
    return {"inputs": {artifact.asset: artifact.fingerprint}, "contents": {artifact.asset: artifact.content}}
