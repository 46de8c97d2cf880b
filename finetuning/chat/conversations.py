"""Reads the rows of a raw data set as conversations, and lays them out by the chat template, batch by batch.

data/train.jsonl:17  {"question": "What is 2 + 3?", "answer": "#### 5"}
-> Row("data/train.jsonl:17", Conversation([user: What is 2 + 3?, assistant: #### 5]))
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from finetuning.chat.layouts import LaidOut
from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.chat.text_rows import lay_out_text, text_layout
from finetuning.checks.findings import FindingsTable
from finetuning.checks.white_space import bare
from finetuning.dataset.formats import to_messages, to_pair, tools_of
from finetuning.dataset.other_formats import judgement_of
from finetuning.dataset.raw_folder import read_rows
from finetuning.dataset.raw_summary import JsonRow
from finetuning.dataset.row_faults import NotChosen, RowDropped, without_nulls
from finetuning.dataset.turns import Message
from finetuning.knowledge.rows import Context, Contexts, Examined, named_in
from finetuning.recipe.dataset import sources
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.source import SourceSpec

BATCH_ROWS = 1_000
BATCH_BYTES = 8 * 2**20
DIGEST_BYTES = 8
# White space, and signs that end or divide sentences and no numbers.
BETWEEN = re.compile(r"""\s+|(?<!\d)[.,;:!?…"'“”‘’]+|[.,;:!?…"'“”‘’]+(?!\d)""")
TEXT = pa.string()
TEXTS = ("name", "tool_call_id", "reasoning_content")
MESSAGE = pa.struct([*[(key, TEXT) for key in ("role", "content", "tool_calls", *TEXTS)], ("train", pa.bool_())])


class Row(NamedTuple):
    """One usable row of a raw data set."""

    place: str
    conversation: Conversation
    rejected: Conversation | None = None
    """The same conversation with the answer that is not preferred, where a row is a preference to be learned."""
    desirable: bool | None = None
    """Whether the answer was judged good, where a judgement is to be learned."""
    whole: str | None = None
    """Of a text, or a piece of one, the whole text."""
    context: Context | None = None
    """The passages that the question is asked with, where the recipe has documents."""

    @property
    def asked(self) -> list[Message]:
        """What is said, without passages: by this, rows are the same or not."""
        return self.context.own if self.context else self.conversation.messages


class Batch(NamedTuple):
    """Rows of one source, and each of them laid out; after all of them, their rejected conversations."""

    is_eval: bool
    rows: list[Row]
    laid_out: list[LaidOut]
    source: int = 0
    """The number of the source among all of the recipe."""


def batches(
    raw_folder: Path,
    recipe: Recipe,
    formats: Mapping[str, str],
    renderer: Renderer,
    dropped: FindingsTable,
    contexts: Contexts | None = None,
) -> Iterator[Batch]:
    """Yield the rows of `raw_folder`; those without a conversation, or that the template refuses, go to `dropped`.

    Args:
        recipe: by its `training.method`, `dpo`, a row has a rejected conversation too, and by `kto` a judgement.
        formats: of each source, by its stem.
        contexts: the passages that questions are asked with, where the recipe has documents.
    """
    as_text, method = text_layout(renderer.tokenizer), recipe.training.method
    for number, (stem, (source, _)) in enumerate(sources(recipe.dataset).items()):
        kinds = {"preference": _pair if method == "dpo" else _row, "unpaired-preference": _judged, "text": _text_row}
        read = partial(kinds.get(formats[stem], _row), source=source, format=formats[stem])
        for raw in _raw_rows(raw_folder / f"{stem}.parquet"):
            rows, texts = _usable(raw, read, dropped)
            if contexts:
                rows, texts = _with_passages(rows, texts, source, contexts, stem.startswith("eval"), dropped)
            conversations = [row.conversation for row in rows]
            if method == "dpo":
                conversations += [row.rejected for row in rows if row.rejected]
            found: list[LaidOut | RowDropped]
            if formats[stem] == "text":
                found = [lay_out_text(as_text, conversation.messages[0]["content"]) for conversation in conversations]
            else:
                found = renderer.lay_out(conversations)
            faults = _faults(found, len(rows))
            for i, fault in sorted(faults.items()):
                dropped.add(rows[i].place, "refused_rows", str(fault), fault.field, texts[i].decode())
            kept = [_learned(row, found[i]) for i, row in enumerate(rows) if i not in faults]
            laid_out = [
                side for i, side in enumerate(found) if not (isinstance(side, RowDropped) or i % len(rows) in faults)
            ]
            if kept:
                yield Batch(stem.startswith("eval"), kept, laid_out, number)


def _learned(row: Row, laid_out: LaidOut | RowDropped) -> Row:
    """Return the row up to its last answer that is learned."""
    messages = row.conversation.messages
    turns = laid_out.layout.turns if isinstance(laid_out, LaidOut) else len(messages)
    return row._replace(conversation=row.conversation._replace(messages=messages[:turns])) if turns else row


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


def _with_passages(
    rows: list[Row], texts: list[bytes], source: SourceSpec, contexts: Contexts, is_eval: bool, dropped: FindingsTable
) -> tuple[list[Row], list[bytes]]:
    """Return the rows asked with passages, and their texts; those that have none for a reason go to `dropped`."""
    asked, kept = [], []
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        try:
            asked.append((row.conversation.messages, named_in(orjson.loads(text), source)))
            kept.append(number)
        except RowDropped as reason:
            dropped.add(row.place, "evidence", str(reason), reason.field, text.decode())
    found, left = [], []
    for number, context in zip(kept, contexts.give(asked, is_eval), strict=True):
        row, text = rows[number], texts[number]
        if isinstance(context, RowDropped):
            check = "document_leak" if isinstance(context, Examined) else "evidence"
            dropped.add(row.place, check, str(context), context.field, text.decode())
        else:
            found.append(
                row._replace(conversation=row.conversation._replace(messages=context.messages), context=context)
            )
            left.append(text)
    return found, left


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

    White space that carries no meaning makes no difference.

    Beside them, for each answer but a row's last one, the row (from 0) and a number for what the user said until then.
    """
    key = str(seed).encode()[:64]
    conversations, questions, prefixes = [], [], []
    known: tuple[str | None, int] = (None, 0)
    for number, row in enumerate(rows):
        messages, tools = row.asked, row.conversation.tools
        said = [message | {"content": bare(message["content"])} for message in messages]
        whole = orjson.dumps([said, tools]) if tools else orjson.dumps(said)
        if row.desirable is not None:
            whole += b"good" if row.desirable else b"bad"
        conversations.append(int.from_bytes(hashlib.blake2b(whole, digest_size=DIGEST_BYTES).digest()))
        if row.whole is not None:  # all pieces of a text go the same way
            if row.whole is not known[0]:
                text = bare(row.whole).casefold().encode()
                known = row.whole, int.from_bytes(hashlib.blake2b(text, digest_size=DIGEST_BYTES, key=key).digest())
            questions.append(known[1])
            continue
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


def questions_alone(rows: list[Row], before: int) -> list[tuple[int, int, bool]]:
    """Return of each question its row's number, a digest of it by itself, and whether it is the last of its row.

    White space, case and the signs between sentences count for nothing; those within numbers do.

    Args:
        before: how many rows came before these.
    """
    found = []
    for number, row in enumerate(rows, before):
        asked = [message["content"] for message in row.asked if message["role"] == "user"]
        for place, text in enumerate(asked, 1):
            said = BETWEEN.sub("", text.casefold()).encode()
            digest = int.from_bytes(hashlib.blake2b(said, digest_size=DIGEST_BYTES).digest())
            found.append((number, digest, place == len(asked)))
    return found


def messages_column(conversations: list[list[Message]]) -> pa.ListArray:
    """Write the messages of each conversation as records with the keys of MESSAGE, `tool_calls` as JSON text."""
    flat = [message for messages in conversations for message in messages]
    offsets = [0]
    for messages in conversations:
        offsets.append(offsets[-1] + len(messages))
    columns = [pa.array([message["role"] for message in flat], TEXT), pa.array([m["content"] for m in flat], TEXT)]
    if all(len(message) == 2 for message in flat):
        columns += [pa.nulls(len(flat), field.type) for field in list(MESSAGE)[2:]]
    else:
        calls = [message.get("tool_calls") for message in flat]
        columns.append(pa.array([call and orjson.dumps(call).decode() for call in calls], TEXT))
        columns += [pa.array([_text(message.get(key)) for message in flat], TEXT) for key in TEXTS]
        columns.append(pa.array([message.get("train") for message in flat], pa.bool_()))
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
    record = _without_padding(place, record, source)
    messages = to_messages(record, source, format)
    return Row(place, Conversation(messages, tools_of(record, source, format)))


def _pair(place: str, record: JsonRow, source: SourceSpec, format: str) -> Row:
    record = _without_padding(place, record, source)
    tools = tools_of(record, source, format)
    chosen, rejected = (Conversation(messages, tools) for messages in to_pair(record, source))
    return Row(place, chosen, rejected)


def _judged(place: str, record: JsonRow, source: SourceSpec, format: str) -> Row:
    return _row(place, record, source, format)._replace(desirable=judgement_of(record, source))


def _text_row(place: str, record: JsonRow, source: SourceSpec, format: str) -> Row:
    row = _row(place, record, source, format)
    return row._replace(whole=row.conversation.messages[0]["content"])


def _without_padding(place: str, record: JsonRow, source: SourceSpec) -> JsonRow:
    """The row without the nulls that a table writes into each record for the keys that only others of them have."""
    is_table = source.hub is not None or ".parquet" in place.rpartition(":")[0].lower()
    if not is_table or not any(isinstance(value, (list, dict)) for value in record.values()):
        return record
    return {column: without_nulls(value) for column, value in record.items()}


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)
