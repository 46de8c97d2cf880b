"""Makes token ids and labels of conversations, by the base model's chat template.

[{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]
-> <|im_start|>user\\n2 + 3?<|im_end|>\\n<|im_start|>assistant\\n5<|im_end|>\\n
   of which "5<|im_end|>" is supervised: the answer and the stop token, nothing else
"""

from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from finetuning.chat_template import stop_text
from finetuning.errors import FinetuningError
from finetuning.formats import Message, RowDropped
from finetuning.recipe import ChatSpec, Recipe
from finetuning.rendering import NOT_SUPERVISED, Rendered, Segment, encode, segments
from finetuning.splits import Conversation, Dropped, split_conversations

BATCH_ROWS = 1_000
HISTOGRAM_BINS = 20
PREVIEW_CONVERSATIONS = 3
SCHEMA = pa.schema(
    [
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("place", pa.string()),
    ]
)


def write_chat(raw_folder: Path, folder: Path, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What `folder` then holds: `train.parquet`, `eval.parquet` and `tokenizer/`, counted and shown.

    Every row of `raw_folder` is in train, in eval, or counted in `dropped` with a reason. `lengths` are in tokens;
    their `max` is that of the longest row before any was dropped or cut.

    Args:
        tokenizer: with its chat template set (`load_template`).

    Raises:
        FinetuningError: too many rows are longer than `chat.max_length`, or a split is empty.
    """
    where = recipe.file
    folder.mkdir(parents=True, exist_ok=True)
    split = split_conversations(raw_folder, recipe.dataset)
    train, evaluation = (
        _write(folder / f"{name}.parquet", rows, tokenizer, recipe.chat, split.dropped, where)
        for name, rows in (("train", split.train), ("eval", split.eval))
    )
    lengths = train.lengths | evaluation.lengths
    _check_lengths(lengths, recipe.chat, where)
    for name, written in (("train", train), ("eval", evaluation)):
        if not written.rows:
            raise FinetuningError(f"{where}: dataset: the {name} split is empty. {_what_became(split.dropped)}")
    tokenizer.save_pretrained(folder / "tokenizer")
    return {
        "train_rows": train.rows,
        "eval_rows": evaluation.rows,
        "dropped": split.dropped.records(),
        "truncated": train.truncated + evaluation.truncated,
        "tokens": sum(train.kept_lengths),
        "supervised_tokens": train.supervised_tokens,
        "stop_token": stop_text(tokenizer),
        "lengths": {"train": _histogram(train.kept_lengths), "max": max(lengths.values())},
        "preview": [_preview(tokenizer, rendered) for rendered in train.first],
    }


@dataclass
class _Written:
    """What went into the file of one split."""

    lengths: dict[str, int] = field(default_factory=dict)  # tokens, by place, of every row before any limit
    kept_lengths: list[int] = field(default_factory=list)
    supervised_tokens: int = 0
    truncated: int = 0
    first: list[Rendered] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.kept_lengths)

    def add(self, rendered: Rendered) -> None:
        self.kept_lengths.append(len(rendered.input_ids))
        self.supervised_tokens += len(rendered.labels) - rendered.labels.count(NOT_SUPERVISED)
        if len(self.first) < PREVIEW_CONVERSATIONS:
            self.first.append(rendered)


def _write(
    path: Path,
    conversations: list[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    chat: ChatSpec,
    dropped: Dropped,
    where: str,
) -> _Written:
    written = _Written()
    stop = stop_text(tokenizer)
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, len(conversations), BATCH_ROWS):
            batch = [(row.place, row.messages) for row in conversations[start : start + BATCH_ROWS]]
            taken = _pieces(tokenizer, batch, stop, dropped, where)
            records = []
            encoded = encode(tokenizer, [pieces for _, _, pieces in taken])
            for (place, messages, _), whole in zip(taken, encoded, strict=True):
                written.lengths[place] = len(whole.input_ids)
                try:
                    rendered = _limited(whole, chat)
                except RowDropped as reason:
                    dropped.add(str(reason), place)
                    continue
                written.truncated += rendered is not whole
                written.add(rendered)
                records.append({"messages": messages, **rendered._asdict(), "place": place})
            writer.write_table(pa.Table.from_pylist(records, SCHEMA))
    return written


def _pieces(
    tokenizer: PreTrainedTokenizerBase, batch: list[tuple[str, list[Message]]], stop: str, dropped: Dropped, where: str
) -> list[tuple[str, list[Message], list[Segment]]]:
    """The rows of `batch` (place and messages) that the template takes, with their pieces."""
    try:
        found = segments(tokenizer, [messages for _, messages in batch], stop)
    except (RowDropped, FinetuningError) as error:
        if len(batch) > 1:  # alone, each of them tells whether it was the one
            return [taken for row in batch for taken in _pieces(tokenizer, [row], stop, dropped, where)]
        place = batch[0][0]
        if isinstance(error, FinetuningError):
            raise FinetuningError(f"{where}: base_model.chat_template: {place}: {error}") from error
        dropped.add(str(error), place)
        return []
    return [(place, messages, pieces) for (place, messages), pieces in zip(batch, found, strict=True)]


def _limited(rendered: Rendered, chat: ChatSpec) -> Rendered:
    if len(rendered.input_ids) <= chat.max_length:
        return rendered
    if chat.over_length != "truncate":
        raise RowDropped(f"longer than {chat.max_length} tokens")
    cut = Rendered(rendered.input_ids[: chat.max_length], rendered.labels[: chat.max_length])
    if cut.labels.count(NOT_SUPERVISED) == len(cut.labels):
        raise RowDropped(f"no answer within the first {chat.max_length} tokens")
    return cut


def _check_lengths(lengths: dict[str, int], chat: ChatSpec, where: str) -> None:
    over = sum(length > chat.max_length for length in lengths.values())
    tolerance = 0.0 if chat.over_length == "error" else chat.tolerance
    if over <= tolerance * len(lengths):
        return
    place, longest = max(lengths.items(), key=lambda item: item[1])
    ranked = sorted(lengths.values(), reverse=True)
    enough = ranked[int(tolerance * len(ranked))]
    raise FinetuningError(
        f"{where}: chat.max_length: {over} of {len(lengths)} rows ({over / len(lengths):.1%}) are longer than "
        f"{chat.max_length} tokens, and {tolerance:.1%} may be. The longest is {place} with {longest}. Write "
        f"`max_length: {longest}`, which holds them all"
        + (f", or `max_length: {enough}`, which holds enough of them" if enough < longest else "")
        + (", or `over_length: drop`" if chat.over_length == "error" else ", or a higher `tolerance`")
        + "."
    )


def _what_became(dropped: Dropped) -> str:
    records = [f"{r['rows']} rows were dropped: {r['reason']} (such as {r['example']})" for r in dropped.records()]
    return "; ".join(records[:5]) + "." if records else "No row was dropped: the sources have too few."


def _histogram(lengths: list[int]) -> dict[str, list[int]]:
    """At most HISTOGRAM_BINS counts of lengths and, one more, the edges between them; all bins equally wide."""
    low, high = min(lengths), max(lengths) + 1
    width = -(-(high - low) // HISTOGRAM_BINS)
    counts, edges = np.histogram(lengths, bins=np.arange(low, high + width, width))
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _preview(tokenizer: PreTrainedTokenizerBase, rendered: Rendered) -> list[dict[str, Any]]:
    pairs = zip(*rendered, strict=True)
    return [
        {"text": tokenizer.decode([token for token, _ in part]), "supervised": supervised}
        for supervised, part in groupby(pairs, key=lambda pair: pair[1] != NOT_SUPERVISED)
    ]
