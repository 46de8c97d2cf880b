"""Reads raw rows as conversations and decides which of them train and which are kept for evaluation."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from datasets import Features

from finetuning.formats import Message, RowDropped, to_messages
from finetuning.recipe import DatasetSpec
from finetuning.source_revisions import sources

BATCH_ROWS = 1_000


class Conversation(NamedTuple):
    """One usable row. Its text stays packed as JSON: a hundred thousand rows are in memory together."""

    place: str
    packed: bytes
    prompt: bytes
    """A digest of all messages before the last answer, which depends on the seed of the data set too."""

    @property
    def messages(self) -> list[Message]:
        """The messages themselves."""
        return json.loads(self.packed)


@dataclass
class Dropped:
    """How many rows were not used, by reason, and the place of the first one."""

    places: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, reason: str, place: str) -> None:
        """Nothing; one more row was dropped for that reason."""
        self.places.setdefault(reason, [0, place])[0] += 1

    def records(self) -> list[dict[str, Any]]:
        """A record for each reason, the most frequent first."""
        records = [{"reason": reason, "rows": n, "example": place} for reason, (n, place) in self.places.items()]
        return sorted(records, key=lambda record: -record["rows"])


@dataclass
class Split:
    """The conversations of both splits, each in its final order, and the rows that are in neither."""

    train: list[Conversation]
    eval: list[Conversation]
    dropped: Dropped


def split_conversations(raw_folder: Path, dataset: DatasetSpec) -> Split:
    """The rows of `raw_folder` as conversations, train and eval without a prompt in common, both in random order.

    The order and the choice depend on `dataset.seed` alone. With `eval.fraction`, whole prompts go to eval until it has
    that share of the rows (one row at least); with `eval.sources`, a train row whose prompt is in eval is dropped.
    """
    dropped = Dropped()
    train = list(_conversations(raw_folder, "train", dataset, dropped))
    evaluation = list(_conversations(raw_folder, "eval", dataset, dropped))
    if dataset.eval.fraction:
        prompts = _drawn_prompts(train, dataset.eval.fraction)
        evaluation = [row for row in train if row.prompt in prompts]
        train = [row for row in train if row.prompt not in prompts]
    else:
        prompts = {row.prompt for row in evaluation}
        for row in train:
            if row.prompt in prompts:
                dropped.add("also in eval", row.place)
        train = [row for row in train if row.prompt not in prompts]
    rng = np.random.default_rng(dataset.seed)
    return Split(_shuffled(train, rng), _shuffled(evaluation, rng), dropped)


def _shuffled(rows: list[Conversation], rng: np.random.Generator) -> list[Conversation]:
    return [rows[i] for i in rng.permutation(len(rows))]


def _conversations(raw_folder: Path, split: str, dataset: DatasetSpec, dropped: Dropped) -> Iterator[Conversation]:
    key, pack = str(dataset.seed).encode()[:64], json.JSONEncoder().encode
    for stem, (source, _) in sources(dataset).items():
        if not stem.startswith(split):
            continue
        for place, row in _raw_rows(raw_folder / f"{stem}.parquet"):
            try:
                messages = to_messages(row, source)
            except RowDropped as reason:
                dropped.add(str(reason), place)
                continue
            prompt = hashlib.blake2b(pack(messages[:-1]).encode(), key=key, digest_size=16).digest()
            yield Conversation(place, pack(messages).encode(), prompt)


def _raw_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a raw file with its place, such as `train-00.parquet:17` (rows count from 0)."""
    with pq.ParquetFile(path) as file:
        # Columns whose rows differ in shape are kept as JSON text, which only `datasets` knows how to decode.
        features = Features.from_arrow_schema(file.schema_arrow)
        number = 0
        for batch in file.iter_batches(BATCH_ROWS):
            for row in batch.to_pylist():
                yield f"{path.name}:{number}", features.decode_example(row)
                number += 1


def _drawn_prompts(rows: Iterable[Conversation], fraction: float) -> set[bytes]:
    """Prompts that together hold `fraction` of the rows: in the order of their digests, which the seed shuffles."""
    counts = Counter(row.prompt for row in rows)
    wanted = max(1, round(fraction * counts.total()))
    drawn: set[bytes] = set()
    held = 0
    for prompt in sorted(counts):
        if held >= wanted:
            break
        drawn.add(prompt)
        held += counts[prompt]
    return drawn
