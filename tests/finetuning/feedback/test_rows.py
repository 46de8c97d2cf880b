"""Rows that are learned of feedback, by training method; and how many entries are taken."""

import pytest

from finetuning.dataset.formats import FORMATS as READ
from finetuning.dataset.formats import preference
from finetuning.feedback.entries import delete, entries, keep, parsed
from finetuning.feedback.rows import FORMATS, revision_of, rows_of, taken

TALK = [
    {"role": "system", "content": "Add."},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "2 + 3?"},
]
ANSWERS = [{"model": "maths", "content": "6"}, {"model": "maths/base", "content": "4"}]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNING_FEEDBACK", str(tmp_path))
    return tmp_path / "maths"


def said(folder, **what):
    return keep(folder, parsed({"messages": TALK, "answers": ANSWERS, **what}), "v1")


CASES = {
    "a correction": (
        {"correction": "5", "of": "maths"},
        ["5"],
        [("5", "6")],
        [("5", True), ("6", False)],
    ),
    "a preference": ({"preferred": "maths/base"}, ["4"], [("4", "6")], [("4", True), ("6", False)]),
    "both": (
        {"preferred": "maths/base", "correction": "5", "of": "maths/base"},
        ["5"],
        [("5", "4"), ("5", "6")],
        [("5", True), ("4", False), ("6", False)],
    ),
    "good": ({"rating": "good", "of": "maths"}, ["6"], [], [("6", True)]),
    "bad": ({"rating": "bad", "of": "maths"}, [], [], [("6", False)]),
    "a contradiction": ({"preferred": "maths", "rating": "bad", "of": "maths"}, [], [], [("4", False), ("6", False)]),
    "a correction that changes nothing": ({"correction": "6", "of": "maths"}, ["6"], [], [("6", True)]),
}


@pytest.mark.parametrize("name", CASES)
def test_each_method_learns_what_it_can(folder, name):
    what, messages, pairs, judged = CASES[name]
    entry = said(folder, **what)
    assert [row["messages"][-1]["content"] for row in rows_of([entry], "sft")] == messages
    assert [(row["chosen"], row["rejected"]) for row in rows_of([entry], "dpo")] == pairs
    assert [(row["completion"], row["label"]) for row in rows_of([entry], "kto")] == judged


def test_earlier_answers_are_read_and_not_learned(folder):
    (row,) = rows_of([said(folder, correction="5", of="maths")], "sft")
    assert [message.get("train") for message in row["messages"]] == [None, None, False, None, None]


@pytest.mark.parametrize("method", FORMATS)
def test_the_rows_are_in_the_methods_format(folder, method):
    (row, *_) = rows_of([said(folder, correction="5", of="maths")], method)
    read = preference if method == "dpo" else READ[FORMATS[method]]
    assert read(row, None)[-1]["content"] == "5"
    assert len(read(row, None)) == len(TALK) + 1


def test_entries_are_taken_in_whole_batches(folder):
    assert taken("maths", 3) == [] and revision_of("maths", 3).startswith("0 entries")
    revisions = []
    for _ in range(7):
        said(folder, correction="5", of="maths")
        revisions.append(revision_of("maths", 3))
    assert len(taken("maths", 3)) == 6
    assert [revision.split()[0] for revision in revisions] == ["0", "0", "3", "3", "3", "6", "6"]
    assert len(set(revisions)) == 3


def test_what_was_learned_stays_so_when_another_entry_is_deleted(folder):
    kept = [said(folder, correction=str(i), of="maths") for i in range(7)]
    delete(folder, {kept[1].id})
    assert taken("maths", 3) == [kept[0], *kept[2:6]]
    delete(folder, {kept[0].id, kept[1].id, kept[2].id})
    assert taken("maths", 3) == kept[3:6] and entries(folder) == kept[3:]
    kept += [said(folder, correction=str(i), of="maths") for i in (7, 8)]
    assert taken("maths", 3) == kept[3:]
    assert delete(folder, {entry.id for entry in kept}) == 6 and taken("maths", 3) == entries(folder) == []
    kept = [said(folder, correction=str(i), of="maths") for i in range(4)]
    assert taken("maths", 3) == kept[:3]


def test_lines_that_are_no_entries_are_in_no_batch(folder):
    kept = [said(folder, correction=str(i), of="maths") for i in range(2)]
    (path,) = folder.glob("*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"id": "cut')
    assert taken("maths", 3) == []
    kept.append(said(folder, correction="2", of="maths"))
    assert taken("maths", 3) == kept
    delete(folder, {kept[0].id})
    assert taken("maths", 3) == kept[1:]


def test_an_entry_that_is_taken_back_makes_another_revision(folder):
    for answer in "5678":
        said(folder, correction=answer, of="maths/base")
    before = revision_of("maths", 2)
    delete(folder, {entries(folder)[0].id})
    assert revision_of("maths", 2) != before
