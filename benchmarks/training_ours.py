"""Trains as the asset `lora_adapter` does: in its process, `finetuning.training.process`, with a recipe's defaults.

The one addition is that a recorder of the steps stands among the callbacks which every trainer has.
"""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.training_jobs import LORA, MAX_LENGTH, MODEL_KWARGS, SETTINGS, Training, read
from benchmarks.training_recorder import Recorder
from finetuning.training import process as training_process


def main(job: Training) -> int:
    """The exit code; the adapter is trained, and its steps are on record."""
    from transformers import trainer

    path = Path(job.record).with_name("training_job.json")
    path.write_text(json.dumps(training_job(job)))
    Path(job.adapter).mkdir(parents=True)
    recorder = Recorder(job.started)
    callbacks: list[Any] = trainer.DEFAULT_CALLBACKS
    callbacks.append(recorder)
    try:
        code = training_process.main(path)
    finally:
        callbacks.remove(recorder)
    if code == 0:
        recorder.steps.report(job, recorder.rows)
    return code


def training_job(job: Training) -> dict[str, Any]:
    """What the asset hands to the process."""
    return {
        "where": "benchmark",
        "lora": LORA,
        "training": {**SETTINGS, "activation_checkpointing": False, "seed": job.seed},
        "max_length": MAX_LENGTH,
        "chat_dataset": job.chat,
        "base_model": job.base_model,
        "model_kwargs": MODEL_KWARGS,
        "output": job.adapter,
    }


if __name__ == "__main__":
    sys.exit(main(read(Training)))
