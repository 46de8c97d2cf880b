"""Trains as trl's SFTTrainer does, with its own defaults or with Liger's kernels, on rows that come as tokens."""

import sys

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from benchmarks.gpu_jobs import LORA, OUT_OF_MEMORY, SETTINGS, Training, read
from benchmarks.gpu_recorder import DeviceRecorder, rows_that_fit
from finetuning.base_model import varlen
from finetuning.out_of_memory import is_out_of_memory


def main(job: Training) -> int:
    """The exit code; the adapter is trained, and its steps are on record."""
    recorders = []

    def attempt(rows: int) -> None:
        recorders.append(DeviceRecorder(job.started))
        train(job, rows, recorders[-1])

    try:
        rows = rows_that_fit(attempt, job.rows_per_pass)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        print(error, file=sys.stderr)
        return OUT_OF_MEMORY
    recorders[-1].report(job, rows)
    return 0


def train(job: Training, rows: int, recorder: DeviceRecorder) -> None:
    """The adapter is trained, with so many rows in a pass."""
    varlen.register()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(job.base_model, **job.model_kwargs),
        args=settings(job, rows),
        train_dataset=Dataset.from_parquet(f"{job.rows}/train.parquet"),
        processing_class=AutoTokenizer.from_pretrained(f"{job.rows}/tokenizer"),
        peft_config=LoraConfig(**LORA, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[recorder],
    )
    trainer.train()
    trainer.save_model(job.adapter)


def settings(job: Training, rows: int) -> SFTConfig:
    """trl's settings for the job, which are its defaults but for what the job says.

    Activations are kept, as on all sides; by default trl computes them twice.
    """
    return SFTConfig(
        **SETTINGS,
        max_steps=job.steps,
        per_device_train_batch_size=rows,
        output_dir=f"{job.adapter}/trl",
        max_length=job.max_length,
        gradient_checkpointing=False,
        packing=job.packing,
        use_liger_kernel=job.liger,
        seed=job.seed,
        use_cpu=job.model_kwargs["device_map"][""] == "cpu",
        report_to="none",
    )


if __name__ == "__main__":
    sys.exit(main(read(Training)))
