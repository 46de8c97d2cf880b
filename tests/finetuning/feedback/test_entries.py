"""What people say of answers is kept whole or refused with a reason, and deleted when they ask."""

import contextlib
import json
import multiprocessing
import os
import signal
import time

import pytest

from finetuning.errors import FinetuningError
from finetuning.feedback import entries as module
from finetuning.feedback.entries import FeedbackFull, FeedbackRefused, delete, entries, folder_of, keep, parsed

GIVEN = {
    "messages": [{"role": "user", "content": "2 + 3?"}],
    "answers": [{"model": "maths", "content": "6"}, {"model": "maths/base", "content": "5"}],
    "preferred": "maths/base",
}


def given(**changes):
    return parsed(GIVEN | changes)


def test_what_is_kept_is_read_in_its_order(tmp_path):
    kept = [keep(tmp_path, given(correction=str(i), of="maths"), "v1") for i in range(3)]
    assert entries(tmp_path) == kept
    assert [entry.version for entry in kept] == ["v1"] * 3 and len({entry.id for entry in kept}) == 3
    assert kept[0].time.endswith("+00:00")


WRONG = {
    "nothing said": ({"preferred": None}, "it says nothing"),
    "a rating of nobody": ({"rating": "good"}, "of: missing"),
    "a stranger": ({"preferred": "other"}, "preferred: 'other' gave none of the answers (maths, maths/base)"),
    "an empty correction": ({"correction": " ", "of": "maths"}, "correction: empty"),
    "a rating that is none": ({"rating": "so-so", "of": "maths"}, "rating"),
    "no answers": ({"answers": []}, "answers"),
    "two of one model": ({"answers": [GIVEN["answers"][1]] * 2}, "answers: two of one model"),
    "no text": ({"messages": [{"role": "user", "content": 5}]}, "messages: each has a role and a content"),
    "no question": ({"messages": [{"role": "assistant", "content": "x"}]}, "messages: the last one"),
    "a strange key": ({"nonsense": 1}, "nonsense"),
    "no messages": ({"messages": None}, "messages"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_makes_no_sense_is_refused(name):
    changes, why = WRONG[name]
    with pytest.raises(FeedbackRefused) as error:
        given(**changes)
    assert why in str(error.value)


HALF = "\ud800"
UNWRITTEN = {
    "in a message": {"messages": [{"role": "user", "content": HALF}]},
    "in another value": {"messages": [{"role": "user", "content": "x", "more": {"a": [HALF]}}]},
    "in another key": {"messages": [{"role": "user", "content": "x", HALF: 1}]},
    "in an answer": {"answers": [{"model": "maths/base", "content": HALF}]},
    "in a model": {"answers": [{"model": HALF, "content": "5"}]},
    "in settings": {"settings": {"a": HALF}},
    "in a key of settings": {"settings": {HALF: 1}},
    "in an unknown key": {HALF: 1},
    "in who": {"who": HALF},
    "in a correction": {"correction": HALF, "of": "maths"},
    "in a name": {"of": HALF},
    **{f"{depth} deep": {"settings": {"a": json.loads("[" * depth + "]" * depth)}} for depth in (210, 300, 900)},
}


@pytest.mark.parametrize("name", UNWRITTEN)
def test_what_could_not_be_read_again_is_refused(name, tmp_path):
    with pytest.raises(FeedbackRefused) as error:
        keep(tmp_path, given(**UNWRITTEN[name]), "v1")
    assert str(error.value).encode() and not list(tmp_path.iterdir())


def test_whole_characters_and_some_depth_are_kept(tmp_path):
    deep = {
        "a": json.loads("[" * 100 + "]" * 100),
        "b": "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    }
    kept = keep(tmp_path, given(settings=deep), "v1")
    assert entries(tmp_path) == [kept]


@pytest.mark.parametrize("data", [None, [], "x", 5])
def test_what_is_no_object_is_refused(data):
    with pytest.raises(FeedbackRefused):
        parsed(data)


@pytest.mark.parametrize("place", ["correction", "messages", "answers", "who"])
def test_a_secret_is_not_kept_and_not_repeated(tmp_path, place):
    secret = "AKIA" + "Z7QK3M5N8P2R4T6V"
    with_secret = {
        "correction": {"correction": f"my key is {secret}", "of": "maths"},
        "messages": {"messages": [{"role": "user", "content": f"use {secret}"}]},
        "answers": {"answers": [{"model": "maths/base", "content": secret}]},
        "who": {"who": secret},
    }[place]
    with pytest.raises(FeedbackRefused, match="AWS Access Key") as error:
        keep(tmp_path, given(**with_secret), "v1")
    assert secret not in str(error.value) and not list(tmp_path.glob("*.jsonl"))


def test_a_folder_is_never_larger_than_it_may_be(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_FOLDER", 1000)
    with pytest.raises(FeedbackFull, match="may hold 1,000"):
        for _ in range(10):
            keep(tmp_path, given(), "v1")
    assert 0 < sum(path.stat().st_size for path in tmp_path.glob("*.jsonl")) <= 1000
    with pytest.raises(FeedbackRefused, match="an entry may have"):
        keep(tmp_path, given(correction="x" * module.MOST_ENTRY, of="maths"), "v1")


def test_entries_are_deleted_by_id_and_by_who_gave_them(tmp_path):
    kept = [keep(tmp_path, given(who=who), "v1") for who in ("ann", "ben", "ann", "cy")]
    assert delete(tmp_path, {kept[1].id, "nobody's"}) == 1
    assert delete(tmp_path, who="ann") == 2
    assert entries(tmp_path) == [kept[3]]
    assert "ann" not in "".join(path.read_text() for path in tmp_path.iterdir())
    assert delete(tmp_path / "nowhere", {"x"}) == 0


@pytest.mark.parametrize("linked", ["the file", "a link to a link", "the folder"])
def test_what_is_deleted_is_gone_from_where_a_link_leads(tmp_path, linked):
    folder, elsewhere = tmp_path / "maths", tmp_path / "elsewhere"
    kept = [keep(elsewhere, given(who=who), "v1") for who in ("ann", "ben")]
    (file,) = elsewhere.glob("*.jsonl")
    if linked == "the folder":
        folder.symlink_to(elsewhere)
    else:
        folder.mkdir()
        target = file
        if linked == "a link to a link":
            target = tmp_path / "between.jsonl"
            target.symlink_to(file)
        (folder / file.name).symlink_to(os.path.relpath(target, folder))
    assert delete(folder, who="ann") == 1
    assert "ann" not in file.read_text() and entries(folder) == entries(elsewhere) == [kept[1]]
    assert not file.is_symlink() and (folder / file.name).samefile(file)
    later = keep(folder, given(), "v1")
    assert entries(elsewhere) == [kept[1], later]


def test_a_line_that_was_cut_spoils_no_other(tmp_path):
    first = keep(tmp_path, given(), "v1")
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"id": "cut')
    second = keep(tmp_path, given(), "v1")
    assert entries(tmp_path) == [first, second]
    assert delete(tmp_path, {first.id}) == 1 and entries(tmp_path) == [second]


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "x" * 97, "a\nb", "é"])
def test_a_name_is_no_path(name):
    with pytest.raises(FinetuningError, match="is no name"):
        folder_of(name)


def _write(folder, number):
    for i in range(number):
        keep(folder, given(correction=str(i), of="maths"), "v1")


def test_several_processes_lose_nothing(tmp_path):
    workers = [multiprocessing.get_context("spawn").Process(target=_write, args=(tmp_path, 25)) for _ in range(3)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        delete(tmp_path, {entry.id for entry in entries(tmp_path)[:0]} or {"none"})
    for worker in workers:
        worker.join()
    assert len(entries(tmp_path)) == 75


def _write_until_killed(folder, pipe):
    """Keep entries, and tell the id of each through the pipe, as a server tells its clients."""
    while True:
        os.write(pipe, f"{keep(folder, given(), 'v1').id}\n".encode())


def test_what_was_acknowledged_is_there_whenever_the_writer_is_killed(tmp_path):
    told = b""
    for number in range(100):
        read, write = os.pipe()
        writer = os.fork()
        if not writer:
            with contextlib.suppress(BaseException):
                _write_until_killed(tmp_path, write)
            os._exit(1)
        os.close(write)
        told += os.read(read, 33)  # it is at work
        time.sleep(0.0005 * (number % 20))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        with os.fdopen(read, "rb") as pipe:
            told += pipe.read()
    acknowledged, found = told.decode().split(), [entry.id for entry in entries(tmp_path)]
    assert len(acknowledged) >= 100
    assert set(acknowledged) <= set(found) and len(found) == len(set(found))
    assert len(found) - len(acknowledged) <= 100, "at most one that was not told by each writer"
