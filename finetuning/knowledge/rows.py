"""Gives each row of a data set the passages that it is learned or asked with.

A row names its passage by its document and by what it quotes from it, so that documents may be cut anew:
{"question": "…", "answer": "red", "document": "kelvane-b7.md", "evidence": "press the red button"}

In training, that passage is among others that were found for the question, at a place that a seed decides; of some rows
it is left out, and the answer is that the documents do not say. In the exam the passages are those that are found.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import orjson

from finetuning.dataset.raw_folder import read_rows
from finetuning.dataset.raw_summary import JsonRow
from finetuning.dataset.row_faults import RowDropped, is_empty
from finetuning.dataset.turns import Message
from finetuning.knowledge.context import asked_with, cited, question_of
from finetuning.knowledge.passages import Passage
from finetuning.knowledge.retriever import Retriever
from finetuning.recipe.columns import OF_KNOWLEDGE
from finetuning.recipe.dataset import DatasetSpec, sources
from finetuning.recipe.knowledge import ContextSpec
from finetuning.recipe.source import SourceSpec

# As far as a question's own passage is looked for, and what recall is told of.
DEPTH = 10
# Of so many passages the ones beside a training row's own are chosen, where some are of documents of the exam.
MORE = 30


class Examined(RowDropped):
    """The row is about a document that the exam asks about."""


class Named(NamedTuple):
    """What a row says of its passage; `is_named` where it has a column for that at all."""

    document: str | None
    evidence: str | None
    is_named: bool


@dataclass(frozen=True)
class Context:
    """A row's question with its passages."""

    asked: list[Message]
    """The messages without passages."""
    messages: list[Message]
    passages: list[int]
    """The numbers of those that are shown, in their order."""
    golden: list[int]
    """The places, from 1, of those that have the evidence."""
    rank: int | None
    """Where the first one with the evidence was found, from 1; 0 for not among the first DEPTH, None where there is
    none to be found."""


def named_in(row: JsonRow, source: SourceSpec) -> Named:
    """Return what a row says of its passage.

    Raises:
        RowDropped: it is no text, or quotes from a document that it does not name.

    >>> named_in({"question": "2 + 3?"}, SourceSpec(files=("x.jsonl",)))
    Named(document=None, evidence=None, is_named=False)
    """
    found = []
    for name in OF_KNOWLEDGE:
        value = row.get(source.columns.get(name, name))
        if not isinstance(value, str | None):
            raise RowDropped(f"{name}: not text", source.columns.get(name, name))
        found.append(None if is_empty(value) else value)
    document, evidence = found
    if evidence and not document:
        raise RowDropped("evidence without the document that it is from", source.columns.get("document", "document"))
    return Named(document, evidence, any(source.columns.get(name, name) in row for name in OF_KNOWLEDGE))


def documents_of_exam(raw_folder: Path, dataset: DatasetSpec) -> set[str]:
    """Return the documents that rows of `eval.sources` name."""
    found = set[str]()
    for stem, (source, _) in sources(dataset).items():
        if stem.startswith("eval"):
            column = source.columns.get("document", "document")
            rows = (orjson.loads(row.text).get(column) for row in read_rows(raw_folder / f"{stem}.parquet"))
            found |= {name for name in rows if isinstance(name, str)}
    return found


class Contexts:
    """The passages of rows, found in an index.

    Args:
        examined: documents that eval asks about. No row about them is learned, and none of their passages is shown in
            training.
        seed: of the draw of what is shown beside a row's own passage, and where.
    """

    def __init__(self, retriever: Retriever, spec: ContextSpec, examined: set[str], seed: int) -> None:
        self.retriever, self.spec, self.seed = retriever, spec, seed
        self._examined = {self._document(name) for name in examined} - {None}

    def give(self, rows: Sequence[tuple[str, list[Message], Named]], is_eval: bool) -> list[Context | RowDropped]:
        """Return each row's question with its passages, or why it has none.

        Args:
            rows: of each its place, its messages of which the last is the answer, and what it names.
        """
        turns = [question_of(messages) for _, messages, _ in rows]
        questions = [messages[turn or 0]["content"] for (_, messages, _), turn in zip(rows, turns, strict=True)]
        depth = max(DEPTH, self.spec.passages) if is_eval else self.spec.passages + MORE
        found: list[Context | RowDropped] = []
        for row, turn, hits in zip(rows, turns, self.retriever.find(questions, depth), strict=True):
            try:
                if turn is None:
                    raise RowDropped("no question that passages could be found for")
                found.append((self._examined_with if is_eval else self._learned_with)(*row, hits))
            except RowDropped as reason:
                found.append(reason)
        return found

    def _examined_with(self, place: str, messages: list[Message], named: Named, hits: list[int]) -> Context:
        """The question as it will be asked: with the passages that are found for it."""
        golden = set(self._golden(named))
        shown = hits[: self.spec.passages]
        rank = next((n for n, hit in enumerate(hits[:DEPTH], 1) if hit in golden), 0) if golden else None
        places = [n for n, hit in enumerate(shown, 1) if hit in golden]
        return self._context(messages, shown, places, rank, self._answer(messages, named, places))

    def _learned_with(self, place: str, messages: list[Message], named: Named, hits: list[int]) -> Context:
        """The question with its own passage among others, or with others alone."""
        random = Random(f"{self.seed}:{place}")
        if named.document and self._document(named.document) in self._examined:
            raise Examined("its document is one that eval asks about", "document")
        golden = self._golden(named)
        others = [hit for hit in hits if hit not in golden and self._names[hit] not in self._examined]
        rank = next((n for n, hit in enumerate(hits[:DEPTH], 1) if hit in golden), 0) if golden else None
        shown = others[: self.spec.passages]
        if golden and random.random() < self.spec.golden:
            shown = [golden[0], *others[: self.spec.passages - 1]]
        random.shuffle(shown)
        places = [n for n, number in enumerate(shown, 1) if number in golden]
        left_out = bool(golden) and not places
        answer = self.spec.refusal if left_out else self._answer(messages, named, places)
        return self._context(messages, shown, places, rank, answer)

    def _answer(self, messages: list[Message], named: Named, places: list[int]) -> str:
        if named.is_named and not named.evidence:
            return self.spec.refusal
        answer = messages[-1]["content"]
        return cited(answer, places[0]) if places and self.spec.citations else answer

    def _context(
        self, messages: list[Message], shown: list[int], places: list[int], rank: int | None, answer: str
    ) -> Context:
        # Answers before the last one were given without passages, and are not learned beside one that was.
        earlier = [m | {"train": False} if m["role"] == "assistant" else m for m in messages[:-1]]
        asked = [*earlier, messages[-1] | {"content": answer}]
        with_them = asked_with(asked, self.retriever.passages(shown), self.spec)
        return Context(asked, with_them, shown, places, rank)

    def _golden(self, named: Named) -> list[int]:
        """The passages that have what a row quotes, in the document that it names.

        Raises:
            RowDropped: there is no such document, or none of its passages has it.
        """
        if not named.document:
            return []
        document = self._document(named.document)
        if document is None:
            raise RowDropped("there is no document of that name", "document")
        if not named.evidence:
            return []
        numbers = self._numbers[document]
        evidence = _plain(named.evidence)
        passages = zip(numbers, self.retriever.passages(numbers), strict=True)
        found = [number for number, passage in passages if evidence in _plain(passage.shown)]
        if not found:
            raise RowDropped("no passage of its document has the evidence", "evidence")
        return found

    def _document(self, name: str) -> str | None:
        """The document that a row means: of that name or, where there is only one such, of one that ends in it."""
        if name in self._numbers:
            return name
        ends = [full for full in self._by_last.get(name.rpartition("/")[2], ()) if full.endswith(f"/{name}")]
        return ends[0] if len(ends) == 1 else None

    @cached_property
    def _names(self) -> list[str]:
        """The document of each passage."""
        return self.retriever.table["document"].to_pylist()

    @cached_property
    def _numbers(self) -> Mapping[str, list[int]]:
        """The passages of each document."""
        found: dict[str, list[int]] = {}
        for number, name in enumerate(self._names):
            found.setdefault(name, []).append(number)
        return found

    @cached_property
    def _by_last(self) -> Mapping[str, list[str]]:
        """The documents by the last part of their names."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in self._numbers:
            found[name.rpartition("/")[2]].append(name)
        return found


def _plain(text: str) -> str:
    """A text by which a quotation is found again: without marks of emphasis, case, and kinds of white space."""
    return " ".join(text.replace("*", "").replace("`", "").replace("_", "").split()).casefold()


def shown_passages(record: Mapping[str, Any], table: Any) -> list[Passage]:
    """The passages that a record of a split was asked with."""
    return [Passage(**row) for row in table.take(record["passages"]).to_pylist()]
