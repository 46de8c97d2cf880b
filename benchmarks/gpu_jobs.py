"""What the processes of `benchmarks.gpu` are told: the shapes of models, the settings of all sides, and their jobs.

>>> job = read(Training)  # in a process that was started as `python -m benchmarks.gpu_trl JOB.json`
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple, TypeVar


class Shape(NamedTuple):
    """A model and its rows."""

    config: dict[str, Any]
    """Where it differs from Mistral-7B: transformers' defaults for Mistral are those of its 7B."""
    max_length: int
    """Tokens of the longest rows, and of a packed one."""
    median_length: int
    """Tokens of a row in the middle, where lengths differ."""
    tokens: int
    """Of all rows."""
    rows_per_pass: int | None
    """None for as many as the device's memory takes."""
    matrix: int
    """Rows and columns of the matrices whose product is timed."""


# A window over the last 4,096 tokens, as the first release has it, leaves out nothing of 2,048; later ones have none.
MISTRAL_7B = Shape({"sliding_window": None}, 2048, 512, 300_000, None, 8192)
TINY = Shape(
    {
        "sliding_window": None,
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 224,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
    },
    *(128, 32, 2_500, 4, 256),
)
SHAPES = {"mistral-7b": MISTRAL_7B, "tiny": TINY}
LORA: dict[str, Any] = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0}  # on every linear layer but the head
# By the names that transformers and recipes have for them.
SETTINGS: dict[str, Any] = {
    "num_train_epochs": 1,
    "learning_rate": 1.0e-4,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
}
ROWS_TRIED = 16  # of the longest, in one pass, at first
STEPS_TRIED = 2
EVAL_ROWS = 2
SEED = 42
OUT_OF_MEMORY = 5  # exit code of a side that has no memory for so many rows in a pass, as of the process that trains


class Preparation(NamedTuple):
    """What is prepared, and where."""

    shape: str
    tokens: int
    same_length: bool
    """Whether all rows have the greatest length."""
    attention: list[str]
    """Kernels, best first; the first that runs here is taken."""
    work: str
    """An empty folder, which then has `nf4` (the model), `rows`, and `longest` (rows of the greatest length)."""
    record: str
    """The file where the record goes."""


class Training(NamedTuple):
    """What a side trains on, and how; paths are folders unless said otherwise."""

    rows: str
    """Rows as tokens with labels (`train.parquet`, `eval.parquet`), and the tokenizer (`tokenizer`)."""
    base_model: str
    model_kwargs: dict[str, Any]
    """For `from_pretrained`: number format, attention kernel, device."""
    packing: bool
    liger: bool
    """Whether trl takes Liger's kernels."""
    max_length: int
    rows_per_pass: int
    """Half as many when memory runs out, and so on."""
    steps: int
    """-1 for all rows."""
    seed: int
    matrix: int
    adapter: str
    """Where the adapter goes."""
    record: str
    """The file where the record goes."""
    started: float
    """The monotonic clock, which all processes of a machine share, when the process was started, in seconds."""


Job = TypeVar("Job", Preparation, Training)


def read(kind: type[Job]) -> Job:
    """The job that the command line names."""
    return kind(**json.loads(Path(sys.argv[1]).read_text()))
