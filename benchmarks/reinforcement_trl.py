"""Trains by the same rewards as trl does by itself: its trainer, its generation, its head."""

from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset
from peft import PeftModel
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from benchmarks.reinforcement_jobs import MODEL_KWARGS, Rewarded, Steps, read
from finetuning.base_model.loading import keep_trainable_on_cpu, load_model
from finetuning.recipe.reward import OF_GROUPS
from finetuning.recipe.training import TrainingSpec
from finetuning.reinforcement.rewards import Rewards

SHARED = (
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "beta",
    "loss_type",
    "seed",
    "logging_steps",
    "max_grad_norm",
)


def main(job: Rewarded) -> None:
    """Train, and put the steps on record."""
    spec, steps = TrainingSpec.model_validate(job.training), Steps()
    tokenizer = AutoTokenizer.from_pretrained(Path(job.chat) / "tokenizer")
    model = load_model(job.base_model, **MODEL_KWARGS)
    keep_trainable_on_cpu(model)  # without it, bitsandbytes has no backward pass after the first answers
    rewards = Rewards(spec.reward, tokenizer, spec.max_completion_length)
    rows = pq.read_table(Path(job.chat) / "train.parquet", columns=["messages"]).to_pylist()
    asked = [
        [{"role": message["role"], "content": message["content"]} for message in row["messages"][:-1]] for row in rows
    ]
    said = [row["messages"][-1]["content"] for row in rows]
    trainer = GRPOTrainer(
        model=PeftModel.from_pretrained(model, job.start, is_trainable=True),  # pyright: ignore[reportArgumentType]
        reward_funcs=rewards.functions(),  # pyright: ignore[reportArgumentType]
        args=GRPOConfig(
            str(Path(job.record).with_name("out")),
            **spec.model_dump(include={*SHARED, *OF_GROUPS} - {"reward"}),
            reward_weights=list(spec.reward.values()),
            top_k=0,
            bf16=True,
            use_cpu=True,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": asked, "reference": said}),
        processing_class=tokenizer,
        callbacks=[steps],
    )
    trainer.train()
    steps.report(job)


if __name__ == "__main__":
    main(read())
