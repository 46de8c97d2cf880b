"""Trains as `llamafactory-cli train` does, with its own defaults, in an environment of its own."""

import json
from pathlib import Path
from typing import Any

from llamafactory.train.tuner import run_exp  # pyright: ignore[reportMissingImports]

from benchmarks.data_llamafactory import DESCRIPTION
from benchmarks.training_jobs import LORA, MAX_LENGTH, SETTINGS, Training, read
from benchmarks.training_recorder import Recorder


def main(job: Training) -> None:
    """The adapter is trained, and its steps are on record."""
    recorder = Recorder(job.started)
    run_exp(settings(job), callbacks=[recorder])
    recorder.steps.report(job, recorder.rows)


def settings(job: Training) -> dict[str, Any]:
    """LLaMA-Factory's settings for the job, which are its defaults but for what the job says.

    Activations are kept, as on all sides; by default LLaMA-Factory computes them twice.
    """
    folder = Path(job.record).parent
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {**DESCRIPTION, "file_name": job.rows}}))
    return {
        **SETTINGS,
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": job.dense,
        **({"quantization_bit": 4} if job.nf4 else {}),
        "finetuning_type": "lora",
        "lora_rank": LORA["r"],
        "lora_alpha": LORA["lora_alpha"],
        "lora_dropout": LORA["lora_dropout"],
        "lora_target": "all",
        "template": "chatml",
        "dataset_dir": str(folder),
        "dataset": "rows",
        "cutoff_len": MAX_LENGTH,
        "output_dir": job.adapter,
        "bf16": True,
        "disable_gradient_checkpointing": True,
        "train_sampling_strategy": "group_by_length" if job.grouped else "random",
        "seed": job.seed,
        "use_cpu": True,
        "report_to": "none",
    }


if __name__ == "__main__":
    main(read(Training))
