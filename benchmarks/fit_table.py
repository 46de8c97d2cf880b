"""What is predicted to fit on GPUs of four sizes, by model and length of rows: the table of `docs/gpu.md`.

`python -m benchmarks.fit_table` prints it, and `--write` puts it there. Nothing is downloaded and no GPU is asked: the
shapes of the models are below, and what they need is what `lora_adapter` predicts before it trains them.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from transformers import FalconConfig, GemmaConfig, LlamaConfig, MistralConfig, PhiConfig, PreTrainedConfig, Qwen3Config

from finetuning.memory.prediction import predict
from finetuning.memory.savings import with_settings
from finetuning.recipe.loading import load
from finetuning.recipe.recipe import Recipe

PAGE = Path(__file__).parents[1] / "docs/gpu.md"
BEGIN, END = "<!-- from benchmarks.fit_table -->\n", "<!-- end -->"
SIZES = (16, 24, 48, 80)
USABLE = 0.95  # of a GPU's GiB; the rest is its driver's, and that of a screen
LENGTHS = (512, 2048, 8192)
MOST = 64  # rows
# Rows of the two predictions that tell the others: with one or two, what a row adds may not be at the peak yet.
FEW, MORE = 4, 8

GEMMA_2B = {
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
}
PHI_2 = {
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "partial_rotary_factor": 0.4,
}
LLAMA_3B = {
    "vocab_size": 128256,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
QWEN_4B = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
MISTRAL_24B = {
    "vocab_size": 131072,
    "hidden_size": 5120,
    "intermediate_size": 32768,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "sliding_window": None,
}
# The shape of each recipe's base model; transformers' defaults for Falcon and Mistral are those of their 7B.
SHAPES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "gemma-2b": (GemmaConfig, GEMMA_2B),
    "phi-2": (PhiConfig, PHI_2),
    "llama-3.2-3b": (LlamaConfig, LLAMA_3B),
    "qwen3-4b-tools": (Qwen3Config, QWEN_4B),
    "falcon-7b": (FalconConfig, {}),
    "mistral-7b-fennec": (MistralConfig, {"sliding_window": None}),
    "zephyr-7b-beta": (MistralConfig, {}),
    "mistral-small-24b": (MistralConfig, MISTRAL_24B),
}


class Need(NamedTuple):
    """Bytes of a training: without a row in a pass, and for each row."""

    fixed: int
    row: int

    def rows(self, gigabytes: int) -> int:
        """How many rows a pass may have on a GPU of that size."""
        return max(0, int(gigabytes * 2**30 * USABLE - self.fixed) // self.row)


def need(recipe: Recipe, config: PreTrainedConfig, length: int, checkpointing: bool) -> Need:
    """What a recipe needs with rows of that length."""
    sizes = []
    for rows in (FEW, MORE):
        settings: dict[str, Any] = {"per_device_train_batch_size": rows, "per_device_eval_batch_size": 1}
        settings |= {"activation_checkpointing": checkpointing}
        changed = with_settings(recipe, {f"training.{key}": value for key, value in settings.items()})
        sizes.append(predict(changed, config, "cuda", length).total)
    few, more = sizes
    row = (more - few) // (MORE - FEW)
    return Need(few - FEW * row, row)


def line(name: str, length: int) -> dict[str, str]:
    """A line of the table."""
    recipe, (kind, shape) = load(name), SHAPES[name]
    kept, recomputed = (need(recipe, kind(**shape), length, checkpointing) for checkpointing in (False, True))
    fits = {f"{size} GB": f"{shown(kept.rows(size))} / {shown(recomputed.rows(size))}" for size in SIZES}
    return {"recipe": f"`{name}`, r={recipe.lora.r}", "tokens": str(length), **fits}


def shown(rows: int) -> str:
    """A number of rows, as the table has it."""
    return f"{MOST}+" if rows >= MOST else str(rows) if rows else "–"


def table() -> str:
    """All lines, as Markdown."""
    return pd.DataFrame([line(name, length) for name in SHAPES for length in LENGTHS]).to_markdown(index=False) + "\n"


def main() -> None:
    """The table is printed, or written into its page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit_table", description="What fits on which GPU.")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(PAGE.parents[1])}")
    made = table()
    if not parser.parse_args().write:
        print(made, end="")
        return
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + made + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
