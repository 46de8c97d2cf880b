"""Prepares what all sides of `benchmarks.gpu` train on: a random model in NF4, and random rows with labels.

The model is laid down as the asset `quantized_base_model` does, and rows as `chat_dataset` does. Nothing is downloaded.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from benchmarks.gpu_jobs import EVAL_ROWS, ROWS_TRIED, SEED, SHAPES, STEPS_TRIED, Preparation, Shape, read
from finetuning.base_model import varlen
from finetuning.errors import FinetuningError
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.tokens import NOT_SUPERVISED
from resources.gpu import Gpu

SPECIAL = ["<pad>", "<s>", "</s>"]  # Of these no row has any.
SPREAD = 0.8  # of the logarithm of a row's length
SHORTEST = 16


def main(job: Preparation) -> None:
    """All is prepared, and what it is, and what this machine can do, is on record."""
    work, shape = Path(job.work), SHAPES[job.shape]
    spec, gpu = BaseModelSpec(repo="random", attention=job.attention), Gpu()  # pyright: ignore[reportArgumentType]
    machine, choice, kwargs = gpu.machine(), gpu.attention(spec), gpu.model_kwargs(spec)
    tokenizer = minimal_tokenizer()
    sizes = write_model(shape, work / "nf4", gpu.quantization_config(spec), kwargs)
    tokenizer.save_pretrained(work / "nf4")
    rng = np.random.default_rng(SEED)
    wanted = lengths(rng, shape, job.tokens, job.same_length)
    counted = write_rows(rng, shape, wanted, work / "rows", tokenizer)
    write_rows(rng, shape, [shape.max_length] * ROWS_TRIED * STEPS_TRIED, work / "longest", tokenizer)
    found = {
        "device": machine.name,
        "attention": choice.kernel,
        "passed_over": choice.passed_over,
        "model_kwargs": kwargs,
    }
    Path(job.record).write_text(json.dumps(found | sizes | counted))


def write_model(shape: Shape, out: Path, quantization: Any, kwargs: dict[str, Any]) -> dict[str, int]:
    """How many weights the model has, its blocks and its head; `out` then holds it, quantized.

    The weights are drawn on the device that trains, in bfloat16, and quantized there.
    """
    logging.disable_progress_bar()
    varlen.register()
    config = MistralConfig(**shape.config)
    torch.manual_seed(SEED)
    with torch.device(kwargs["device_map"][""]):
        dense = MistralForCausalLM._from_config(config, dtype=torch.bfloat16)
    linear = [m for m in dense.model.layers.modules() if isinstance(m, torch.nn.Linear)]
    settings = {key: kwargs[key] for key in ("dtype", "attn_implementation", "device_map")}
    model = MistralForCausalLM.from_pretrained(
        None, config=config, state_dict=dense.state_dict(), quantization_config=quantization, **settings
    )
    model.save_pretrained(out)
    return {
        "parameters": dense.num_parameters(),
        "block_parameters": sum(layer.weight.numel() for layer in linear),
        "head_parameters": dense.lm_head.weight.numel(),
    }


def minimal_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that has no more than the special tokens; rows are made of ids."""
    words = models.WordLevel({token: number for number, token in enumerate(SPECIAL)}, unk_token=SPECIAL[0])
    pad, bos, eos = SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), pad_token=pad, bos_token=bos, eos_token=eos)


def lengths(rng: np.random.Generator, shape: Shape, tokens: int, same: bool) -> list[int]:
    """Tokens of each row: as many rows as hold `tokens` together, cut off at the greatest length as chat is."""
    drawn = shape.median_length * rng.lognormal(0, 0.0 if same else SPREAD, size=tokens // SHORTEST + 1)
    found = np.full(len(drawn), shape.max_length) if same else drawn.round().clip(SHORTEST, shape.max_length)
    return found[: int(np.searchsorted(found.cumsum(), tokens)) + 1].astype(int).tolist()


def write_rows(
    rng: np.random.Generator, shape: Shape, wanted: list[int], out: Path, tokenizer: PreTrainedTokenizerFast
) -> dict[str, int]:
    """How many rows and tokens there are, and how many of them are learned; `out` holds them as `chat_dataset` does."""
    tokenizer.save_pretrained(out / "tokenizer")
    size = MistralConfig(**shape.config).vocab_size
    ids = [rng.integers(len(SPECIAL), size, length).tolist() for length in wanted]
    labels = [[NOT_SUPERVISED] * (len(row) // 2) + row[len(row) // 2 :] for row in ids]
    table = pa.table({"input_ids": ids, "labels": labels})
    pq.write_table(table, out / "train.parquet")
    pq.write_table(table.slice(0, EVAL_ROWS), out / "eval.parquet")
    learned = sum(len(row) - len(row) // 2 for row in ids)
    return {"rows": len(ids), "tokens": sum(wanted), "supervised_tokens": learned}


if __name__ == "__main__":
    try:
        main(read(Preparation))
    except FinetuningError as error:
        sys.exit(str(error))
