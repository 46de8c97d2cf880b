"""Trains by rewards as the asset `lora_adapter` does."""

from pathlib import Path
from typing import Any

from transformers import trainer

from benchmarks.reinforcement_jobs import MODEL_KWARGS, Rewarded, Steps, read
from finetuning.progress import Progress
from finetuning.reinforcement.kind import any_kind_of
from finetuning.training.job import TrainingJob
from finetuning.training.lora_adapter import train


def main(job: Rewarded) -> None:
    """Train, and put the steps on record."""
    steps = Steps()
    callbacks: list[Any] = trainer.DEFAULT_CALLBACKS
    callbacks.append(steps)
    told = {
        "where": "benchmark",
        "lora": {"from": job.start},
        "training": {**job.training, "report_to": []},
        "max_length": job.max_length,
        "chat_dataset": job.chat,
        "base_model": job.base_model,
        "model_kwargs": MODEL_KWARGS,
        "output": str(Path(job.record).with_name("adapter")),
        "writes_weights_out": True,  # as on a machine with room for them
    }
    training = TrainingJob.model_validate(told)
    train(training, Progress(print, ""), kind=any_kind_of(training))
    steps.report(job)


if __name__ == "__main__":
    main(read())
