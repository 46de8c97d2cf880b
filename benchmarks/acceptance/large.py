"""A random model of the shape of Mistral-7B in NF4, which all parts that measure share."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu_jobs import SEED, SHAPES, Shape
from benchmarks.gpu_preparation import minimal_tokenizer, write_model, write_rows
from finetuning.recipe.base_model import BaseModelSpec
from resources.gpu import Gpu

KERNELS = ("flash_attention_3", "flash_attention_4", "flash_attention_2", "varlen", "sdpa")  # best first


class Large(NamedTuple):
    """The model's folder, its sizes, and what it is loaded with."""

    folder: Path
    shape: Shape
    model_kwargs: dict[str, Any]


def large_model(work: Path, shape: str) -> Large:
    """The model, which is drawn where `work` has none yet."""
    spec, gpu, folder = BaseModelSpec(repo="random", attention=KERNELS), Gpu(), work.parent / "nf4"
    kwargs = gpu.model_kwargs(spec)
    if not (folder / "tokenizer_config.json").exists():
        write_model(SHAPES[shape], folder, gpu.quantization_config(spec), kwargs)
        minimal_tokenizer().save_pretrained(folder)  # last, as the mark that all is there
    return Large(folder, SHAPES[shape], kwargs)


def rows_of(large: Large, count: int, length: int, folder: Path) -> None:
    """Write so many random rows of that length to `folder`, as `chat_dataset` does."""
    write_rows(np.random.default_rng(SEED), large.shape, [length] * count, folder, minimal_tokenizer())
