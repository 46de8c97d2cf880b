"""Faults planted in tokens are found, and cutting them loses no stop token unseen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.checks.tokens import (
    answer_ends,
    last_answers,
    lengths,
    supervised,
    take,
    truncate,
    without_one_bos,
    without_stop_token,
    without_supervision_or_prompt,
)
from finetuning.tokens import ANSWER, OTHER, QUESTION, Tokens

BOS, STOP = 1, 2
KINDS = {"q": QUESTION, "a": ANSWER, "o": OTHER}


def tokens(*conversations: str, spelled_out=()) -> Tokens:
    """A letter for each token: `^` begin, `.` a stop token that is learned, `,` one that is not, `q`, `a`, `o`."""
    ids = [BOS if c == "^" else STOP if c in ".," else 10 for text in conversations for c in text]
    kinds = [ANSWER if c == "." else KINDS.get(c, OTHER) for text in conversations for c in text]
    ends = np.cumsum([len(text) for text in conversations], dtype=np.int64)
    return Tokens(np.array(ids, np.int32), np.array(kinds, np.int8), ends, list(spelled_out))


def as_text(found: Tokens) -> list[str]:
    """The conversations in the letters of `tokens`."""
    texts = []
    for row in range(len(found.ends)):
        one = found.of(row)
        pairs = zip(one.ids.tolist(), one.kinds.tolist(), strict=True)
        texts.append("".join(_letter(token, kind) for token, kind in pairs))
    return texts


def _letter(token: int, kind: int) -> str:
    if token == BOS:
        return "^"
    if token == STOP:
        return "." if kind == ANSWER else ","
    return {number: letter for letter, number in KINDS.items()}[kind]


def test_lengths_and_supervised_tokens_are_counted_by_conversation():
    found = tokens("^qqaa.", "q.", "^oqa.oqaa.o")
    assert lengths(found).tolist() == [6, 2, 11]
    assert supervised(found).tolist() == [3, 1, 5]


def test_no_conversation_has_no_faults():
    none = tokens()
    assert len(lengths(none)) == len(supervised(none)) == len(without_one_bos(none, BOS, -1)) == 0
    assert len(without_supervision_or_prompt(none)) == len(without_stop_token(none, STOP, np.zeros(0, int))) == 0


@pytest.mark.parametrize(
    ("text", "wrong"), [("^qa.", False), ("^qq", True), ("aa.", True), ("a", True), ("q", True), ("qa", False)]
)
def test_a_conversation_of_which_nothing_is_learned_or_everything_is_found(text, wrong):
    assert without_supervision_or_prompt(tokens("^qa.", text, "^qa.")).tolist() == [False, wrong, False]


@pytest.mark.parametrize(
    ("text", "turns", "wrong"),
    [
        ("^qa.oqa.", 2, False),
        ("^qa.oqa,", 2, True),
        ("^qa,oqa.", 2, True),
        ("^qaaoqa.", 2, True),
        ("^qa.oqa", 2, True),
        ("^q.aa", 1, True),
        ("^qa..", 1, False),
        ("^qa,", 1, True),
        (".aa", 1, True),
    ],
)
def test_an_answer_without_a_stop_token_that_is_learned_is_found(text, turns, wrong):
    found = without_stop_token(tokens("^qa.", text, "qa."), STOP, np.array([1, turns, 1]))
    assert found.tolist() == [False, wrong, False]


@pytest.mark.parametrize(
    ("text", "wrong"), [("^qa.", False), ("qa.", True), ("^^qa.", True), ("q^a.", True), ("^qa.^", True), ("^", False)]
)
def test_a_conversation_without_exactly_one_begin_token_at_the_beginning_is_found(text, wrong):
    assert without_one_bos(tokens("^qa.", text, "^qa."), BOS, -1).tolist() == [False, wrong, False]


def test_an_answer_ends_where_the_next_token_is_no_answer_or_another_conversation():
    ends = answer_ends(tokens("qaa.", "a.q", "qa"))
    assert np.flatnonzero(ends).tolist() == [3, 5, 8]


def test_conversations_are_taken_with_their_marks():
    found = tokens("^qa.", "qqa.", "^q", "qa.", spelled_out=[1, 3])
    kept = take(found, np.array([True, False, True, True]))
    assert as_text(kept) == ["^qa.", "^q", "qa."]
    assert kept.spelled_out == [2]
    assert take(found, np.ones(4, bool)) is found
    assert as_text(take(found, np.zeros(4, bool))) == []


@pytest.mark.parametrize(
    ("text", "limit", "cut", "kept", "through"),
    [
        ("^qa.oqaa.o", 10, "^qa.oqaa.o", 2, False),
        ("^qa.oqaa.o", 9, "^qa.oqaa.", 2, False),
        ("^qa.oqaa.o", 8, "^qa.", 1, False),
        ("^qa.oqaa.o", 4, "^qa.", 1, False),
        ("^qa.oqaa.o", 3, "^qa", 0, True),
        ("^qa.oqaa.o", 2, "^q", 0, True),
    ],
)
def test_a_long_conversation_is_cut_behind_the_last_answer_that_fits(text, limit, cut, kept, through):
    found, answers, cut_through = truncate(tokens("q.", text), limit)
    assert as_text(found)[1] == cut
    assert (answers[1], cut_through[1]) == (kept, through)


TURNS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=4)
CONVERSATION = TURNS.map(lambda turns: "^" + "".join("q" * asked + "a" * said + "." for asked, said in turns))


@settings(max_examples=200)
@given(conversations=st.lists(CONVERSATION, min_size=1, max_size=5), limit=st.integers(1, 30))
def test_no_stop_token_is_cut_off_unseen(conversations, limit):
    found, answers, cut_through = truncate(tokens(*conversations), limit)
    for text, cut, kept, through in zip(conversations, as_text(found), answers, cut_through, strict=True):
        assert text.startswith(cut) and len(cut) <= limit
        assert (cut == text) == (len(text) <= limit)
        assert cut.count(".") == kept
        if kept:
            assert cut.endswith(".") and not through
            assert text[:limit].count(".") == kept  # none of those that fit is lost
        else:
            assert through and len(cut) == limit
    turns = np.array([text.count(".") for text in conversations])
    assert (without_stop_token(found, STOP, np.maximum(answers, 1)) == cut_through).all()
    assert (turns >= answers).all()


def test_of_several_answers_the_last_one_alone_stays_supervised():
    found = last_answers(tokens("^qqa.", "qaa.oqqa.o", "qa.qa.qaa", "a.a.", "qqo", spelled_out=[1]))
    assert as_text(found) == ["^qqa.", "qoo,oqqa.o", "qo,qo,qaa", "a.a.", "qqo"]
    assert found.spelled_out == [1]
