"""Trains as trl's SFTTrainer does, with its own defaults, on rows that come as tokens with labels."""

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from benchmarks.training_jobs import LORA, MAX_LENGTH, SETTINGS, Training, read
from benchmarks.training_recorder import Recorder


def main(job: Training) -> None:
    """The adapter is trained, and its steps are on record."""
    recorder = Recorder(job.started)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(job.base_model, dtype="bfloat16", device_map="cpu"),
        args=settings(job),
        train_dataset=Dataset.from_parquet(f"{job.chat}/train.parquet").select_columns(["input_ids", "labels"]),
        processing_class=AutoTokenizer.from_pretrained(f"{job.chat}/tokenizer"),
        peft_config=LoraConfig(**LORA, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[recorder],
    )
    trainer.train()
    trainer.save_model(job.adapter)
    recorder.steps.report(job, recorder.rows)


def settings(job: Training) -> SFTConfig:
    """trl's settings for the job, which are its defaults but for what the job says.

    Activations are kept, as on all sides; by default trl computes them twice.
    """
    return SFTConfig(
        **SETTINGS,
        output_dir=f"{job.adapter}/trl",
        max_length=MAX_LENGTH,
        gradient_checkpointing=False,
        train_sampling_strategy="group_by_length" if job.grouped else "random",
        seed=job.seed,
        use_cpu=True,
        report_to="none",
    )


if __name__ == "__main__":
    main(read(Training))
