"""Collects tokenized conversations in the order of their sources, with all that split and checks need of them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import orjson
import pyarrow as pa

from finetuning.chat.conversations import MESSAGE, Batch, Row, digests, messages_column, questions_alone
from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation, learned_turns
from finetuning.chat.splits import Index
from finetuning.chat.template import bos_in_use
from finetuning.chat.text_rows import as_questions, in_pieces
from finetuning.chat.tokenization import added_tokens
from finetuning.checks.eval_rows import ShortAnswers
from finetuning.checks.findings import FindingsTable
from finetuning.checks.near_duplicates import Sketches
from finetuning.checks.round_trip import lost
from finetuning.checks.tokens import (
    answers,
    last_answers,
    lengths,
    supervised,
    take,
    truncate,
    without_one_bos,
    without_stop_token,
    without_supervision_or_prompt,
)
from finetuning.dataset.other_formats import TEXT_ROLE, is_text, looks_like_turns
from finetuning.dataset.row_faults import RowDropped
from finetuning.dataset.turns import Message
from finetuning.recipe.recipe import Recipe
from finetuning.secrets import find_secret
from finetuning.tokens import Tokens

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
# Of judgements to be learned.
JUDGED = [("desirable", pa.bool_())]
# Of preferences to be learned: the last turn of the rejected conversation, and all of its tokens.
# Of questions asked with passages: the conversation without them, the numbers of the passages, the places (from 1) of
# those that have the answer, and where the first of these was found (0: not among the first ten).
IN_CONTEXT = [
    ("asked", pa.list_(MESSAGE)),
    ("passages", pa.list_(pa.int64())),
    ("golden", TOKEN_LIST),
    ("rank", pa.int32()),
]
REJECTED = [("rejected", pa.list_(MESSAGE)), ("rejected_input_ids", TOKEN_LIST), ("rejected_labels", TOKEN_LIST)]


@dataclass
class Texts:
    """What was seen of rows that are text and no conversation."""

    is_text: list[np.ndarray] = field(default_factory=list)
    """Whether a row that is kept is text."""
    rows: int = 0
    like_turns: int = 0
    """Those that look like a conversation that was written out, and where the first one is."""
    example: str = ""
    long: int = 0
    """Those that were cut, and the pieces of them."""
    pieces: int = 0

    def count(self, rows: list[Row], owners: np.ndarray, in_several: np.ndarray) -> None:
        """Add some texts; `owners` (pieces,) has the number of each piece's text."""
        self.rows += len(rows)
        self.pieces += int(in_several.sum())
        self.long += len(set(owners[in_several].tolist()))
        for row in rows:
            if looks_like_turns(row.whole or ""):
                self.example = self.example or row.place
                self.like_turns += 1

    def notes(self, max_length: int) -> list[str]:
        """Sentences for a person."""
        notes = []
        if self.long:
            notes.append(
                f"{self.long} of {self.rows} texts are longer than chat.max_length: they were cut into {self.pieces} "
                f"rows of at most {max_length} tokens, and nothing of them is lost"
            )
        if self.like_turns:
            notes.append(
                f"{self.like_turns} of {self.rows} texts look like conversations (such as {self.example}): each is "
                "learned whole, as text, questions and marks too, and no chat template is applied. For a model that "
                "answers in its chat template, write them as rows of another format, such as messages"
            )
        return notes


class TokenizedRows:
    """An Arrow file of rows, and beside it in memory what is known of each, 100 bytes a row.

    `lengths` are in tokens, of every row before any limit; `kept_lengths` and `supervised` of those in the file. A row
    that is a preference has two sides: it is as long as the longer one, and has a fault that either has.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        renderer: Renderer,
        dropped: FindingsTable,
        findings: FindingsTable,
        in_context: bool = False,
    ) -> None:
        self.path = folder / ".rows.arrow"
        self.chat, self.seed, self.renderer = recipe.chat, recipe.dataset.seed, renderer
        self.stop, self.stops = renderer.stop_ids[0], renderer.stop_ids
        self.bos = bos_in_use(renderer.tokenizer)
        self.dropped, self.findings = dropped, findings
        self.index, self.sketches = Index(), Sketches(folder / ".signatures")
        self.lengths: list[np.ndarray] = []
        self.kept_lengths: list[np.ndarray] = []
        self.tokens: list[np.ndarray] = []
        self.supervised: list[np.ndarray] = []
        self.answers = ShortAnswers()
        self.round_trips = 0
        longest_first = sorted(added_tokens(renderer.tokenizer), key=len, reverse=True)
        self._marks = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self.sides = 2 if recipe.training.method == "dpo" else 1
        self.last_alone = recipe.training.method in ("dpo", "kto", "grpo")
        self.has_feedback = any(source.feedback for source in recipe.dataset.sources)
        self.desirable: list[np.ndarray] = []
        self.texts = Texts()
        # Rows that are a part of a text that looks like a secret, by their places, and passages that are one.
        self.hidden, self.hidden_passages = set[str](), set[int]()
        more = {"dpo": REJECTED, "kto": JUDGED}.get(recipe.training.method, IN_CONTEXT if in_context else [])
        self._writer = pa.ipc.new_file(str(self.path), pa.schema([*SCHEMA, *more]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def add(self, batch: Batch, tokens: Tokens) -> dict[str, int]:
        """Write the rows of a batch, without those that are too long or with these cut, and look for faults in all.

        Returns the number of each row that was kept, by its place.

        Args:
            tokens: of all that the batch has laid out.
        """
        self._check_round_trip(batch, tokens)
        if self.last_alone:
            tokens = last_answers(tokens)
        is_plain = is_text(batch.rows[0].conversation.messages)
        if is_plain:
            batch, tokens = self._in_pieces(batch, tokens)
        rows, tokens, cut_through = self._within_limit(batch, tokens)
        if not rows:
            return {}
        self._check_tokens(rows, tokens, cut_through)
        self._check_texts(rows)
        conversations, questions, prefixes = digests(rows, self.seed)
        before = sum(map(len, self.kept_lengths))
        self.index.prefixes.append(np.array([(before + i, d) for i, d in prefixes], np.uint64).reshape(-1, 2))
        if self.has_feedback:
            self.index.asked.append(np.array(questions_alone(rows, before), np.uint64).reshape(-1, 3))
        self.index.is_eval.append(np.full(len(rows), batch.is_eval))
        self.index.conversation.append(np.array(conversations, np.uint64))
        self.index.question.append(np.array(questions, np.uint64))
        self.sketches.add(as_questions(tokens) if is_plain else self._asked(rows, _part(tokens, 0, len(rows))))
        self.texts.is_text.append(np.full(len(rows), is_plain))
        self.desirable.append(np.array([bool(row.desirable) for row in rows]))
        self.index.source.append(np.full(len(rows), batch.source, np.int16))
        answers = [self.answers.number(row.asked[-1]["content"] or "") for row in rows]
        self.index.answer.append(np.array(answers, np.int16))
        self.kept_lengths.append(self._by_row(lengths(tokens)).max(axis=0).astype(np.int32))
        self.tokens.append(self._by_row(lengths(tokens)).sum(axis=0, dtype=np.int32))
        self.supervised.append(self._by_row(supervised(tokens)).sum(axis=0, dtype=np.int32))
        self._writer.write_batch(record_batch(rows, tokens))
        return {row.place: before + i for i, row in enumerate(rows)}

    def hides(self, place: str, passages: Iterable[int] = ()) -> bool:
        """Whether a row may hold a part of a secret, which by itself does not look like one."""
        return place in self.hidden or not self.hidden_passages.isdisjoint(passages)

    def _asked(self, rows: list[Row], tokens: Tokens) -> Tokens:
        """Return the tokens by which rows nearly repeat each other: without passages, which many rows share."""
        if rows[0].context is None:
            return tokens
        bare = self.renderer.lay_out([row.conversation._replace(messages=row.asked) for row in rows])
        laid_out = [one for one in bare if not isinstance(one, RowDropped)]
        return self.renderer.tokenize(laid_out) if len(laid_out) == len(rows) else tokens

    def _by_row(self, numbers: np.ndarray) -> np.ndarray:
        """Arrange numbers of all conversations by side and row (sides, rows)."""
        return numbers.reshape(self.sides, -1)

    def _in_pieces(self, batch: Batch, tokens: Tokens) -> tuple[Batch, Tokens]:
        """Return texts of at most `chat.max_length` tokens: those that are longer in pieces, each a row."""
        pieces, owners = in_pieces(tokens, self.chat.max_length, self.bos)
        rows = [batch.rows[owner] for owner in owners.tolist()]
        in_several = np.bincount(owners)[owners] > 1
        for i in np.flatnonzero(in_several).tolist():
            said = str(self.renderer.tokenizer.decode(pieces.of(i).ids, skip_special_tokens=True))
            rows[i] = rows[i]._replace(conversation=Conversation([{"role": TEXT_ROLE, "content": said}]))
        self.texts.count(batch.rows, owners, in_several)
        self._hide(batch.rows[owner] for owner in set(owners[in_several].tolist()))
        return batch._replace(rows=rows), pieces

    def _within_limit(self, batch: Batch, tokens: Tokens) -> tuple[list[Row], Tokens, np.ndarray]:
        """Return rows and tokens within `chat.max_length`, and whether a row was cut through its first answer."""
        sizes, limit = self._by_row(lengths(tokens)).max(axis=0), self.chat.max_length
        self.lengths.append(sizes.astype(np.int32))
        long = sizes > limit
        if not long.any():
            return batch.rows, tokens, np.zeros(len(sizes), bool)
        rows, keep, cut_through = list(batch.rows), ~long, np.zeros(len(sizes), bool)
        reasons = np.full(len(sizes), f"longer than {limit} tokens", object)
        if self.chat.over_length == "truncate":
            tokens, answers, cut_through = truncate(tokens, limit)
            # Of an answer that stands alone, behind all that precedes it, no shorter one is left.
            alone = np.array([bool(laid_out.earlier) for laid_out in batch.laid_out[: len(rows)]])
            keep = ~long | ((supervised(tokens) > 0) & ~alone)
            reasons[:] = f"no answer within the first {limit} tokens"
            for i in np.flatnonzero(long & keep):
                self.findings.add(rows[i].place, "max_length", f"cut to {limit} tokens or fewer")
                self._hide([rows[i]])
                rows[i] = _first_answers(rows[i], max(1, int(answers[i])))
        for i in np.flatnonzero(~keep):
            self.dropped.add(rows[i].place, "max_length", reasons[i], "", _beginning(rows[i].conversation.messages))
        kept = [row for row, kept in zip(rows, keep, strict=True) if kept]
        return kept, take(tokens, np.tile(keep, self.sides)), cut_through[keep]

    def _hide(self, rows: Iterable[Row]) -> None:
        """Remember which of some rows look like a secret before they are cut."""
        self.hidden |= {row.place for row in rows if find_secret("\n".join(_texts_of(row)))}

    def _check_tokens(self, rows: list[Row], tokens: Tokens, cut_through: np.ndarray) -> None:
        # Of a text all is learned, as it has to be, and its last piece alone has its end.
        whole = np.tile([row.whole is not None for row in rows], self.sides)
        spelled_out = np.zeros(len(tokens.ends), bool)
        spelled_out[tokens.spelled_out] = True
        unstopped = without_stop_token(tokens, self.stops, answers(tokens))
        found = {
            ("supervision", "nothing is learned, or everything"): without_supervision_or_prompt(tokens) & ~whole,
            ("stop_token", "cut through the answer"): np.tile(cut_through, self.sides),
            ("stop_token", "not every answer ends in it"): unstopped & ~whole & ~np.tile(cut_through, self.sides),
            ("special_tokens", "spells out a special token"): spelled_out,
        }
        if self.bos is not None:
            found["bos_token", "not exactly one, at the beginning"] = without_one_bos(tokens, self.bos, self.stop)
        for (check, reason), with_it in found.items():
            for i in np.flatnonzero(self._by_row(with_it).any(axis=0)):
                self.findings.add(rows[i].place, check, reason, "", _beginning(rows[i].conversation.messages))

    def _check_texts(self, rows: list[Row]) -> None:
        for row in rows:
            messages, place, rejected = row.conversation.messages, row.place, row.rejected
            texts = _texts_of(row)
            if kind := find_secret("\n".join(texts)):
                names = [*(f"turn {i}" for i in range(len(messages))), *(["rejected"] if rejected else []), "tools"]
                fields = [name for name, text in zip(names, texts, strict=False) if find_secret(text)]
                # The text itself is not kept: it would lie in one more place then.
                self.findings.add(place, "secrets", f"looks like: {kind}", ", ".join(fields))

    def _check_round_trip(self, batch: Batch, tokens: Tokens) -> None:
        for i in range(min(len(batch.rows), ROUND_TRIP_ROWS - self.round_trips)):
            self.round_trips += 1
            for side in range(i, len(batch.laid_out), len(batch.rows)):
                decoded = self.renderer.tokenizer.decode(tokens.of(side).ids, clean_up_tokenization_spaces=False)
                if fault := lost(batch.laid_out[side].text, str(decoded), self._marks):
                    self.findings.add(batch.rows[i].place, "round_trip", fault, "", str(decoded))
                    break


def _texts_of(row: Row) -> list[str]:
    """Each turn's role and content, and what else it may have: calls of tools, what was thought, a name."""
    messages, tools = row.conversation
    said = [*messages, row.rejected.messages[-1]] if row.rejected else messages
    texts = [m["content"] if len(m) == 2 else "\n".join(map(str, m.values())) for m in said]
    return [*texts, str(tools)] if tools else texts


def record_batch(rows: list[Row], tokens: Tokens) -> pa.RecordBatch:
    """Return rows and their tokens as columns of SCHEMA, and of REJECTED where there are two sides."""
    tools = [row.conversation.tools and orjson.dumps(row.conversation.tools).decode() for row in rows]
    columns = [
        messages_column([row.conversation.messages for row in rows]),
        pa.array(tools, pa.string()),
        *_token_columns(_part(tokens, 0, len(rows))),
        pa.array([row.place for row in rows], pa.string()),
    ]
    if rows[0].context is not None:
        found = [row.context for row in rows if row.context]
        columns += [
            messages_column([context.asked for context in found]),
            *(pa.array([getattr(context, name) for context in found], kind) for name, kind in IN_CONTEXT[1:]),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema([*SCHEMA, *IN_CONTEXT]))
    if rows[0].desirable is not None:
        columns.append(pa.array([row.desirable for row in rows], pa.bool_()))
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema([*SCHEMA, *JUDGED]))
    if len(tokens.ends) == len(rows):
        return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
    rejected = [row.rejected.messages[-1:] for row in rows if row.rejected]
    columns += [messages_column(rejected), *_token_columns(_part(tokens, len(rows), 2 * len(rows)))]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema([*SCHEMA, *REJECTED]))


def _token_columns(tokens: Tokens) -> list[pa.ListArray]:
    offsets = pa.array(np.r_[0, tokens.ends], pa.int32())
    return [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in (tokens.ids, tokens.labels)]


def _part(tokens: Tokens, first: int, end: int) -> Tokens:
    """Return the conversations from number `first` until `end`."""
    start = int(tokens.ends[first - 1]) if first else 0
    inside = slice(start, int(tokens.ends[end - 1]))
    return Tokens(tokens.ids[inside], tokens.kinds[inside], tokens.ends[first:end] - start)


def _first_answers(row: Row, answers: int) -> Row:
    """Return the row with its turns up to that many answers."""
    turns = learned_turns(row.conversation)
    messages = row.conversation.messages[: turns[answers - 1] + 1]
    return row._replace(conversation=row.conversation._replace(messages=messages))


def _beginning(messages: list[Message]) -> str:
    return next((message["content"] for message in messages if message["role"] == "user"), messages[0]["content"])
