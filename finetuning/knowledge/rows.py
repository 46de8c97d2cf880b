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
from typing import NamedTuple

import orjson

from finetuning.dataset.raw_folder import read_rows
from finetuning.dataset.raw_summary import JsonRow
from finetuning.dataset.row_faults import RowDropped, is_empty
from finetuning.dataset.turns import Message
from finetuning.knowledge.context import asked_with, cited, has_words, question_of, without_citations
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
    """What a row says of its passage. With a document and no evidence, the document does not say it."""

    document: str | None
    evidence: str | None


@dataclass(frozen=True)
class Context:
    """A row's question with its passages."""

    own: list[Message]
    """The messages as the row has them, by which rows are the same or not."""
    asked: list[Message]
    """The messages without passages, and the answer without citations."""
    messages: list[Message]
    passages: list[int]
    """The numbers of those that are shown, in their order."""
    golden: list[int]
    """The places, from 1, of those that have the evidence."""
    rank: int | None
    """Where the first one with the evidence was found, from 1; 0 for not among those that were looked at, None where
    there is none to be found."""


def named_in(row: JsonRow, source: SourceSpec) -> Named:
    """Return what a row says of its passage.

    Raises:
        RowDropped: it is no text, or quotes from a document that it does not name.

    >>> named_in({"question": "2 + 3?"}, SourceSpec(files=("x.jsonl",)))
    Named(document=None, evidence=None)
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
    return Named(document, evidence)


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
        self._examined = {full for name in examined for full in self._documents(name)}

    def give(self, rows: Sequence[tuple[list[Message], Named]], is_eval: bool) -> list[Context | RowDropped]:
        """Return each row's question with its passages, or why it has none.

        Args:
            rows: of each its messages, of which the last is the answer, and what it names.
        """
        turns = [question_of(messages) for messages, _ in rows]
        questions = [messages[turn or 0]["content"] for (messages, _), turn in zip(rows, turns, strict=True)]
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

    def _examined_with(self, messages: list[Message], named: Named, hits: list[int]) -> Context:
        """The question as it will be asked: with the passages that are found for it."""
        golden = self._golden(named)
        return self._context(messages, named, hits[: self.spec.passages], golden, rank_of(hits, golden))

    def _learned_with(self, messages: list[Message], named: Named, hits: list[int]) -> Context:
        """The question with its own passage among others, or with others alone."""
        # By what the row says: of rows that are the same, all are learned in the same way.
        random = Random(f"{self.seed}:{named}:{[(message['role'], message['content']) for message in messages]}")
        if named.document and self._examined.intersection(self._documents(named.document)):
            raise Examined("its document is one that eval asks about", "document")
        golden = self._golden(named)
        others = [hit for hit in hits if hit not in golden and self._names[hit] not in self._examined]
        if named.evidence:  # nor passages of other documents that say it too
            texts = zip(others, self.retriever.passages(others), strict=True)
            others = [number for number, passage in texts if not has_words(passage.shown, named.evidence)]
        shown = others[: self.spec.passages]
        if golden and random.random() < self.spec.golden:
            shown = [golden[0], *others[: self.spec.passages - 1]]
        random.shuffle(shown)
        return self._context(messages, named, shown, golden, rank_of(hits, golden), is_learned=True)

    def _context(
        self,
        messages: list[Message],
        named: Named,
        shown: list[int],
        golden: list[int],
        rank: int | None,
        is_learned: bool = False,
    ) -> Context:
        """The question with the passages `shown`, and the answer that goes with them.

        Raises:
            RowDropped: that would be another answer than the row's, and the row's is a call of tools.
        """
        places = [place for place, number in enumerate(shown, 1) if number in golden]
        unsaid = bool(named.document and not named.evidence) or (is_learned and bool(golden) and not places)
        last = messages[-1]
        if last.get("tool_calls"):
            if unsaid:
                raise RowDropped("a call of tools, where the documents do not say it")
            answer = cites = last
        else:
            answer = last | {"content": self.spec.refusal if unsaid else self._uncited(last["content"], named)}
            if unsaid:
                answer.pop("reasoning_content", None)
            numbered = places and self.spec.citations and not unsaid
            cites = answer | {"content": cited(answer["content"], places[0])} if numbered else answer
        # What was said before the question was said without passages, and is not learned beside what was not.
        asked = question_of(messages) or 0
        earlier = [
            m | {"train": False} if m["role"] == "assistant" and n < asked else m for n, m in enumerate(messages)
        ]
        with_them = asked_with([*earlier[:-1], cites], self.retriever.passages(shown), self.spec)
        return Context(messages, [*earlier[:-1], answer], with_them, shown, places, rank)

    def _uncited(self, answer: str, named: Named) -> str:
        """A row's answer without what was cited when it was written, in another order of the passages.

        Brackets of a row that names no document are no citations, nor are those that its passage has, too.
        """
        is_quoted = named.evidence is not None and has_words(named.evidence, answer)
        return without_citations(answer, self.spec.passages) if named.document and not is_quoted else answer

    def _golden(self, named: Named) -> list[int]:
        """The passages that have what a row quotes, in the document that it names.

        Raises:
            RowDropped: there is no such document, there are several, or none of its passages has it.
        """
        if not named.document:
            return []
        meant = self._documents(named.document)
        if len(meant) != 1:
            several = "several documents end in that name"
            raise RowDropped(several if meant else "there is no document of that name", "document")
        if not named.evidence:
            return []
        numbers = self._numbers[meant[0]]
        passages = zip(numbers, self.retriever.passages(numbers), strict=True)
        found = [number for number, passage in passages if has_words(passage.shown, named.evidence)]
        if not found:
            raise RowDropped("no passage of its document has the evidence", "evidence")
        return found

    def _documents(self, name: str) -> list[str]:
        """The documents that a row may mean: the one of that name, or else those that end in it."""
        if name in self._numbers:
            return [name]
        return [full for full in self._by_last.get(name.rpartition("/")[2], ()) if full.endswith(f"/{name}")]

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


def rank_of(hits: Sequence[int], golden: Sequence[int]) -> int | None:
    """Where the first of the golden passages was found, from 1; 0 for nowhere, None where there is none to be found.

    >>> rank_of([5, 3, 9], [9, 3]), rank_of([5], [9]), rank_of([5], [])
    (2, 0, None)
    """
    return next((place for place, hit in enumerate(hits, 1) if hit in golden), 0) if golden else None
