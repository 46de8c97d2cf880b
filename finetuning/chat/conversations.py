"""Reads the rows of a raw data set as conversations, and lays them out by the chat template, batch by batch.

data/train.jsonl:17  {"question": "What is 2 + 3?", "answer": "#### 5"}
-> Row("data/train.jsonl:17", Conversation([user: What is 2 + 3?, assistant: #### 5]))
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from finetuning.chat.layouts import LaidOut
from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.checks.findings import FindingsTable
from finetuning.dataset.formats import Message, NotChosen, RowDropped, to_messages, to_pair, tools_of
from finetuning.dataset.raw_folder import read_rows
from finetuning.dataset.raw_summary import JsonRow
from finetuning.recipe.dataset import DatasetSpec, SourceSpec, sources
from finetuning.recipe.training import Method

BATCH_ROWS = 1_000
BATCH_BYTES = 8 * 2**20
DIGEST_BYTES = 8
TEXT = pa.string()
MESSAGE = pa.struct([(key, TEXT) for key in ("role", "content", "tool_calls", "name", "tool_call_id")])


class Row(NamedTuple):
    """One usable row of a raw data set."""

    place: str
    conversation: Conversation
    rejected: Conversation | None = None
    """The same conversation with the answer that is not preferred, where a row is a preference to be learned."""


class Batch(NamedTuple):
    """Rows of one source, and each of them laid out; after all of them, their rejected conversations."""

    is_eval: bool
    rows: list[Row]
    laid_out: list[LaidOut]


def batches(
    raw_folder: Path,
    dataset: DatasetSpec,
    formats: Mapping[str, str],
    renderer: Renderer,
    dropped: FindingsTable,
    method: Method = "sft",
) -> Iterator[Batch]:
    """Yield the rows of `raw_folder`; those without a conversation, or that the template refuses, go to `dropped`.

    Args:
        formats: of each source, by its stem.
        method: with `dpo`, a row has a rejected conversation too.

    Raises:
        FinetuningError: the chat template changes what went before when a turn is added.
    """
    for stem, (source, _) in sources(dataset).items():
        read = partial(_pair if method == "dpo" else _row, source=source, format=formats[stem])
        for raw in _raw_rows(raw_folder / f"{stem}.parquet"):
            rows, texts = _usable(raw, read, dropped)
            conversations = [row.conversation for row in rows]
            if method == "dpo":
                conversations += [row.rejected for row in rows if row.rejected]
            found = renderer.lay_out(conversations)
            faults = _faults(found, len(rows))
            for i, fault in sorted(faults.items()):
                dropped.add(rows[i].place, "bad_rows", str(fault), fault.field, texts[i].decode())
            kept = [row for i, row in enumerate(rows) if i not in faults]
            laid_out = [
                side for i, side in enumerate(found) if not (isinstance(side, RowDropped) or i % len(rows) in faults)
            ]
            if kept:
                yield Batch(stem.startswith("eval"), kept, laid_out)


def _usable(
    raw: list[tuple[str, bytes]], read: Callable[[str, JsonRow], Row], dropped: FindingsTable
) -> tuple[list[Row], list[bytes]]:
    """Return the rows that hold a conversation, and their texts."""
    rows, texts = [], []
    for place, text in raw:
        try:
            rows.append(read(place, orjson.loads(text)))
            texts.append(text)
        except NotChosen as reason:
            dropped.add(place, "", str(reason), reason.field, text.decode())
        except RowDropped as reason:
            dropped.add(place, "bad_rows", str(reason), reason.field, text.decode())
    return rows, texts


def _faults(found: list[LaidOut | RowDropped], rows: int) -> dict[int, RowDropped]:
    """Return why the template does not take a conversation, by the number of its row."""
    faults: dict[int, RowDropped] = {}
    for i, fault in enumerate(found):
        if isinstance(fault, RowDropped):
            rejected = RowDropped(str(fault), f"rejected {fault.field}".strip())
            faults.setdefault(i % rows, fault if i < rows else rejected)
    return faults


def digests(rows: list[Row], seed: int) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Return, for each row, a digest of all that is said, and one of what the user says, which depends on the seed too.

    Beside them, for each answer but a row's last one, the row (from 0) and a number for what the user said until then.
    """
    key = str(seed).encode()[:64]
    conversations, questions, prefixes = [], [], []
    for number, (_, (messages, tools), _) in enumerate(rows):
        whole = orjson.dumps([messages, tools]) if tools else orjson.dumps(messages)
        conversations.append(int.from_bytes(hashlib.blake2b(whole, digest_size=DIGEST_BYTES).digest()))
        asked = hashlib.blake2b(digest_size=DIGEST_BYTES, key=key)
        before = None
        for message in messages:
            if message["role"] == "user":
                if before is not None:
                    prefixes.append((number, before))
                asked.update(" ".join(message["content"].split()).casefold().encode() + b"\x1e")
                before = int.from_bytes(asked.digest())
        questions.append(before)
    return conversations, questions, prefixes


def messages_column(conversations: list[list[Message]]) -> pa.ListArray:
    """Write the messages of each conversation as records with the keys of MESSAGE, `tool_calls` as JSON text."""
    flat = [message for messages in conversations for message in messages]
    offsets = [0]
    for messages in conversations:
        offsets.append(offsets[-1] + len(messages))
    columns = [pa.array([message["role"] for message in flat], TEXT), pa.array([m["content"] for m in flat], TEXT)]
    if all(len(message) == 2 for message in flat):
        columns += [pa.nulls(len(flat), TEXT)] * 3
    else:
        calls = [message.get("tool_calls") for message in flat]
        columns.append(pa.array([call and orjson.dumps(call).decode() for call in calls], TEXT))
        columns += [pa.array([_text(message.get(key)) for message in flat], TEXT) for key in ("name", "tool_call_id")]
    records = pa.StructArray.from_arrays(columns, fields=list(MESSAGE))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), records)


def conversation_of(record: Mapping[str, Any]) -> Conversation:
    """Read the conversation in a record of a split: its columns `messages` and `tools`."""
    messages = [{key: value for key, value in message.items() if value is not None} for message in record["messages"]]
    for message in messages:
        if "tool_calls" in message:
            message["tool_calls"] = orjson.loads(message["tool_calls"])
    return Conversation(messages, orjson.loads(record["tools"]) if record["tools"] else None)


def _raw_rows(path: Path) -> Iterator[list[tuple[str, bytes]]]:
    """Yield place and JSON text of raw rows, in lists of at most BATCH_ROWS rows and about BATCH_BYTES."""
    part, held = [], 0
    for name, line, text in read_rows(path):
        part.append((f"{name}:{line}", text))
        held += len(text)
        if len(part) == BATCH_ROWS or held > BATCH_BYTES:
            yield part
            part, held = [], 0
    yield part


def _row(place: str, record: JsonRow, source: SourceSpec, format: str) -> Row:
    messages = to_messages(record, source, format)
    has_tools = format in ("messages", "sharegpt", "preference") and "tools" in record
    return Row(place, Conversation(messages, tools_of(record) if has_tools else None))


def _pair(place: str, record: JsonRow, source: SourceSpec, format: str) -> Row:
    tools = tools_of(record)
    return Row(place, *(Conversation(messages, tools) for messages in to_pair(record, source)))


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)
