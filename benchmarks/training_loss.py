"""The loss of adapters on the same held-out rows, by the same code, whoever trained them."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy

from benchmarks.training_bare import padded
from benchmarks.training_jobs import BATCH_ROWS, MODEL_KWARGS, NOT_SUPERVISED, Judgement, read
from finetuning.base_model.loading import keep_trainable_on_cpu, load_model


def main(job: Judgement) -> None:
    """The losses of the base model and of each adapter are on record, as means over supervised tokens."""
    rows = pq.read_table(f"{job.chat}/eval.parquet", columns=["input_ids", "labels"]).to_pylist()
    model = load_model(job.base_model, **MODEL_KWARGS)
    keep_trainable_on_cpu(model)
    losses = [loss_of(model, rows)]
    for folder in job.adapters:
        adapted = PeftModel.from_pretrained(model, folder)
        losses.append(loss_of(adapted, rows))
        model = adapted.unload()
    Path(job.record).write_text(json.dumps({"base": losses[0], "adapters": losses[1:]}))


@torch.inference_mode()
def loss_of(model: Any, rows: list[dict[str, list[int]]]) -> float:
    """The mean over the supervised tokens of the rows."""
    model.eval()
    # Rows of one length together: less padding.
    rows = sorted(rows, key=lambda row: len(row["input_ids"]))
    total, count = 0.0, 0
    for start in range(0, len(rows), BATCH_ROWS):
        batch = padded(rows[start : start + BATCH_ROWS])
        labels = batch.pop("labels")[:, 1:].flatten()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(**batch, use_cache=False).logits[:, :-1].flatten(0, 1)
        kept = labels != NOT_SUPERVISED
        total += cross_entropy(logits[kept].float(), labels[kept], reduction="sum").item()
        count += int(kept.sum())
    return total / count


if __name__ == "__main__":
    main(read(Judgement))
