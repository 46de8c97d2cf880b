"""Prepares what all sides of `benchmarks.training` train on: rows as tokens with labels, and the base model.

The rows are prepared as the assets `raw_dataset` and `chat_dataset` do, the base model as `quantized_base_model` does.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi
from safetensors import safe_open

from benchmarks.training_jobs import MAX_LENGTH, MODEL_KWARGS, NOT_SUPERVISED, SPARE, Preparation, read
from finetuning.base_model.quantized_base_model import quantize
from finetuning.base_model.source import local_folder
from finetuning.chat.chat_dataset import write_chat
from finetuning.chat.tokenizer import load_tokenizer
from finetuning.dataset.raw_dataset import write_raw
from finetuning.dataset.revisions import resolve_all
from finetuning.recipe.base_model import BaseModelSpec, QuantizationSpec
from finetuning.recipe.chat import ChatSpec
from finetuning.recipe.dataset import DatasetSpec, EvalSpec
from finetuning.recipe.hub import HubSpec
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.source import SourceSpec


def main(job: Preparation) -> None:
    """All is prepared, and how much it is is on record."""
    work, spec = Path(job.work), recipe(job)
    source = local_folder(spec.base_model, spec.file)
    assert source is not None, "the base model of the benchmark is on this machine"
    api = HfApi(token=False)
    write_raw(spec.dataset, resolve_all(spec.dataset, api=api, where=spec.file), work / "raw", api=api, file=spec.file)
    write_chat(work / "raw", work / "chat", spec, load_tokenizer(spec.base_model, source, spec.file))
    train = cut(work / "chat/train.parquet", job.train_rows)
    cut(work / "chat/eval.parquet", job.eval_rows)
    with (work / "rows.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in conversations(train))
    dense = spec.base_model.model_copy(update={"quantization": None})
    quantize(dense, source, work / "bf16", MODEL_KWARGS, spec.file)
    if job.nf4:
        nf4 = dense.model_copy(update={"quantization": QuantizationSpec(bits=4)})
        quantize(nf4, source, work / "nf4", MODEL_KWARGS, spec.file)
    Path(job.record).write_text(json.dumps(sizes(train) | parameters(work / "bf16")))


def recipe(job: Preparation) -> Recipe:
    """A recipe for the rows that are wanted and some to spare, with everything else as recipes have it."""
    wanted = job.train_rows + job.eval_rows
    return Recipe(
        name="benchmark",
        summary="Trains as fast as it can",
        base_model=BaseModelSpec(**job.base_model, quantization=None),
        dataset=DatasetSpec(
            sources=(SourceSpec(files=(job.rows,), format="messages", rows=round(wanted * SPARE)),),
            eval=EvalSpec(fraction=job.eval_rows / wanted),
        ),
        chat=ChatSpec(max_length=MAX_LENGTH, over_length="drop", tolerance=1.0),
        hub=HubSpec(repo="benchmark", license="apache-2.0"),
    )


def cut(path: Path, rows: int) -> pa.Table:
    """The first rows of the file, which are all that it then has."""
    table = pq.read_table(path)
    if len(table) < rows:
        sys.exit(f"{path.name} has {len(table)} rows, and {rows} are needed: name a larger file, or take fewer steps.")
    pq.write_table(table.slice(0, rows), path)
    return table.slice(0, rows)


def conversations(train: pa.Table) -> list[dict[str, Any]]:
    """The rows as messages, without what the format has room for and they do not have."""
    return [
        {"messages": [{key: message[key] for key in ("role", "content")} for message in messages]}
        for messages in train["messages"].to_pylist()
    ]


def sizes(train: pa.Table) -> dict[str, int]:
    """How many rows and tokens are trained on, and how many of the tokens are learned."""
    labels = train["labels"].combine_chunks().flatten().to_numpy()
    return {"rows": len(train), "tokens": len(labels), "supervised_tokens": int((labels != NOT_SUPERVISED).sum())}


def parameters(folder: Path) -> dict[str, int]:
    """How many weights the linear layers of the blocks have, and the head.

    A head that shares the weights of the embeddings is no tensor of its own.
    """
    shapes = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "np") as tensors:
            shapes |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    blocks = [shape for name, shape in shapes.items() if re.search(r"\.\d+\.", name) and len(shape) == 2]
    head = next(shape for name, shape in sorted(shapes.items()) if name.startswith(("lm_head", "model.embed_tokens")))
    return {"block_parameters": sum(a * b for a, b in blocks), "head_parameters": head[0] * head[1]}


if __name__ == "__main__":
    main(read(Preparation))
