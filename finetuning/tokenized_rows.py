"""Collects tokenized conversations in the order of their sources, with all that split and checks need of them."""

from pathlib import Path
from typing import Self

import numpy as np
import orjson
import pyarrow as pa

from finetuning.chat_template import bos_in_use, stop_token
from finetuning.conversations import MESSAGE, Batch, Row, digests, messages_column
from finetuning.findings import FindingsTable
from finetuning.formats import Message
from finetuning.near_duplicates import Sketches
from finetuning.recipe import Recipe
from finetuning.rendering import Renderer, Tokens
from finetuning.secret_patterns import find_secret
from finetuning.splits import Index
from finetuning.token_checks import (
    lengths,
    supervised,
    take,
    truncate,
    without_one_bos,
    without_stop_token,
    without_supervision_or_prompt,
)

ROUND_TRIP_ROWS = 1_000
TOKEN_LIST = pa.list_(pa.int32())
SCHEMA = pa.schema(
    [
        ("messages", pa.list_(MESSAGE)),
        ("tools", pa.string()),
        ("input_ids", TOKEN_LIST),
        ("labels", TOKEN_LIST),
        ("place", pa.string()),
    ]
)


class TokenizedRows:
    """An Arrow file of rows, and beside it in memory what is known of each, 100 bytes a row.

    `lengths` are in tokens, of every row before any limit; `kept_lengths` and `supervised` of those in the file.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, renderer: Renderer, dropped: FindingsTable, findings: FindingsTable
    ) -> None:
        self.path = folder / ".rows.arrow"
        self.chat, self.seed, self.renderer = recipe.chat, recipe.dataset.seed, renderer
        self.stop, self.bos = stop_token(renderer.tokenizer), bos_in_use(renderer.tokenizer)
        self.dropped, self.findings = dropped, findings
        self.index, self.sketches = Index(), Sketches(folder / ".signatures")
        self.lengths: list[np.ndarray] = []
        self.kept_lengths: list[np.ndarray] = []
        self.supervised: list[np.ndarray] = []
        self.round_trips = 0
        self._writer = pa.ipc.new_file(str(self.path), SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def add(self, batch: Batch, tokens: Tokens) -> None:
        """Nothing; rows of the batch that are too long are dropped or cut, the others kept, and all are looked at."""
        self._check_round_trip(batch, tokens)
        rows, tokens, cut_through = self._within_limit(batch, tokens)
        if not rows:
            return
        self._check_tokens(rows, tokens, cut_through)
        self._check_texts(rows)
        conversations, questions, prefixes = digests(rows, self.seed)
        before = sum(map(len, self.kept_lengths))
        self.index.prefixes.append(np.array([(before + i, d) for i, d in prefixes], np.uint64).reshape(-1, 2))
        self.index.is_eval.append(np.full(len(rows), batch.is_eval))
        self.index.conversation.append(np.array(conversations, np.uint64))
        self.index.question.append(np.array(questions, np.uint64))
        self.sketches.add(tokens)
        self.kept_lengths.append(lengths(tokens).astype(np.int32))
        self.supervised.append(supervised(tokens).astype(np.int32))
        self._writer.write_batch(_record_batch(rows, tokens))

    def _within_limit(self, batch: Batch, tokens: Tokens) -> tuple[list[Row], Tokens, np.ndarray]:
        """Rows and tokens within `chat.max_length`, and whether a row was cut through its first answer."""
        sizes, limit = lengths(tokens), self.chat.max_length
        self.lengths.append(sizes.astype(np.int32))
        long = sizes > limit
        if not long.any():
            return batch.rows, tokens, np.zeros(len(sizes), bool)
        rows, keep, cut_through = list(batch.rows), ~long, np.zeros(len(sizes), bool)
        reasons = np.full(len(sizes), f"longer than {limit} tokens", object)
        if self.chat.over_length == "truncate":
            tokens, answers, cut_through = truncate(tokens, limit)
            keep = ~long | (supervised(tokens) > 0)
            reasons[:] = f"no answer within the first {limit} tokens"
            for i in np.flatnonzero(long & keep):
                self.findings.add(rows[i].place, "max_length", f"cut to {limit} tokens or fewer")
                rows[i] = _first_answers(rows[i], max(1, int(answers[i])))
        for i in np.flatnonzero(~keep):
            self.dropped.add(rows[i].place, "max_length", reasons[i], "", _beginning(rows[i].conversation.messages))
        return [row for row, kept in zip(rows, keep, strict=True) if kept], take(tokens, keep), cut_through[keep]

    def _check_tokens(self, rows: list[Row], tokens: Tokens, cut_through: np.ndarray) -> None:
        turns = np.array([sum(m["role"] == "assistant" for m in row.conversation.messages) for row in rows])
        spelled_out = np.zeros(len(rows), bool)
        spelled_out[tokens.spelled_out] = True
        found = {
            ("supervision", "nothing is learned, or everything"): without_supervision_or_prompt(tokens),
            ("stop_token", "cut through the answer"): cut_through,
            ("stop_token", "not every answer ends in it"): without_stop_token(tokens, self.stop, turns) & ~cut_through,
            ("special_tokens", "spells out a special token"): spelled_out,
        }
        if self.bos is not None:
            found["bos_token", "not exactly one, at the beginning"] = without_one_bos(tokens, self.bos, self.stop)
        for (check, reason), rows_with_it in found.items():
            for i in np.flatnonzero(rows_with_it):
                place, (messages, _) = rows[i]
                self.findings.add(place, check, reason, "", _beginning(messages))

    def _check_texts(self, rows: list[Row]) -> None:
        for place, (messages, tools) in rows:
            texts = [f"{m['content']}\n{m['tool_calls']}" if "tool_calls" in m else m["content"] for m in messages]
            if tools:
                texts.append(str(tools))
            if kind := find_secret("\n".join(texts)):
                fields = [f"turn {i}" for i, text in enumerate(texts) if find_secret(text)]
                # The text itself is not kept: it would lie in one more place then.
                self.findings.add(place, "secrets", f"looks like: {kind}", ", ".join(fields))

    def _check_round_trip(self, batch: Batch, tokens: Tokens) -> None:
        for i in range(min(len(batch.rows), ROUND_TRIP_ROWS - self.round_trips)):
            self.round_trips += 1
            decoded = self.renderer.tokenizer.decode(tokens.of(i).ids, clean_up_tokenization_spaces=False)
            # Some tokenizers put a space before a text; no other difference is one that a reader would not see.
            if "".join(str(decoded).split()) != "".join(batch.laid_out[i].text.split()):
                self.findings.add(batch.rows[i].place, "round_trip", "decodes to another text", "", str(decoded))


def _record_batch(rows: list[Row], tokens: Tokens) -> pa.RecordBatch:
    offsets = pa.array(np.r_[0, tokens.ends], pa.int32())
    tools = [row.conversation.tools and orjson.dumps(row.conversation.tools).decode() for row in rows]
    columns = [
        messages_column(rows),
        pa.array(tools, pa.string()),
        pa.ListArray.from_arrays(offsets, pa.array(tokens.ids)),
        pa.ListArray.from_arrays(offsets, pa.array(tokens.labels)),
        pa.array([row.place for row in rows], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _first_answers(row: Row, answers: int) -> Row:
    """The row with its turns up to that many answers."""
    turns = [i for i, message in enumerate(row.conversation.messages) if message["role"] == "assistant"]
    messages = row.conversation.messages[: turns[answers - 1] + 1]
    return row._replace(conversation=row.conversation._replace(messages=messages))


def _beginning(messages: list[Message]) -> str:
    return next(message["content"] for message in messages if message["role"] == "user")
