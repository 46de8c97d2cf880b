"""Trains as a plain loop does: transformers' model, peft's adapter, torch's optimizer, and nothing around them."""

import pyarrow.parquet as pq
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, get_scheduler, set_seed

from benchmarks.training_jobs import BATCH_ROWS, LORA, NOT_SUPERVISED, SETTINGS, Training, read
from benchmarks.training_recorder import Steps

MAX_GRAD_NORM = 1.0  # as the trainers have it


def main(job: Training) -> None:
    """The adapter is trained, and its steps are on record."""
    set_seed(job.seed)
    steps = Steps(job.started)
    model = AutoModelForCausalLM.from_pretrained(job.base_model, dtype="bfloat16", device_map="cpu")
    model = get_peft_model(model, LoraConfig(**LORA, target_modules="all-linear", task_type="CAUSAL_LM"))
    rows = pq.read_table(f"{job.chat}/train.parquet", columns=["input_ids", "labels"]).to_pylist()
    batches = torch.randperm(len(rows)).split(BATCH_ROWS)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=SETTINGS["learning_rate"], weight_decay=0.0, fused=True)
    schedule = get_scheduler(SETTINGS["lr_scheduler_type"], optimizer, SETTINGS["warmup_steps"], len(batches))
    model.train()
    for chosen in batches:
        batch = padded([rows[i] for i in chosen.tolist()])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        steps.losses.append(loss.item())
        steps.add(int(batch["attention_mask"].sum()), batch["input_ids"].numel())
    model.save_pretrained(job.adapter)
    steps.report(job, rows)


def padded(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """The rows as a batch (rows, longest of them)."""
    ids, labels = ([torch.tensor(row[column]) for row in rows] for column in ("input_ids", "labels"))
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=NOT_SUPERVISED),
    }


if __name__ == "__main__":
    main(read(Training))
