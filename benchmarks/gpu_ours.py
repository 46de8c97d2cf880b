"""Trains as the asset `lora_adapter` does: in its process, `finetuning.training.process`, from a job on the disk."""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu_jobs import LORA, OUT_OF_MEMORY, SETTINGS, Training, read
from benchmarks.gpu_recorder import DeviceRecorder
from finetuning.training import process as training_process
from finetuning.training.job import FAILURE, MISTAKE, RAN_OUT


def main(job: Training) -> int:
    """The exit code; the adapter is trained, and its steps are on record."""
    from transformers import trainer

    path = Path(job.record).with_name("training_job.json")
    path.write_text(json.dumps(training_job(job)))
    Path(job.adapter).mkdir(parents=True)
    recorder = DeviceRecorder(job.started)
    callbacks: list[Any] = trainer.DEFAULT_CALLBACKS
    callbacks.append(recorder)
    try:
        code = training_process.main(path)
    finally:
        callbacks.remove(recorder)
    failure = path.with_name(FAILURE)
    if code == MISTAKE and failure.exists() and RAN_OUT in failure.read_text():  # with a single row
        return OUT_OF_MEMORY
    if code == 0:
        summary = json.loads((Path(job.adapter) / "summary.json").read_text())
        recorder.report(job, summary["per_device_train_batch_size"])
    return code


def training_job(job: Training) -> dict[str, Any]:
    """What the asset hands to the process."""
    return {
        "where": "benchmark",
        "lora": LORA,
        "training": {
            **SETTINGS,
            "max_steps": job.steps,
            "per_device_train_batch_size": job.rows_per_pass,
            "activation_checkpointing": False,
            "packing": job.packing,
            "on_oom": "halve-batch",
            "seed": job.seed,
        },
        "max_length": job.max_length,
        "chat_dataset": job.rows,
        "base_model": job.base_model,
        "model_kwargs": job.model_kwargs,
        "output": job.adapter,
    }


if __name__ == "__main__":
    sys.exit(main(read(Training)))
