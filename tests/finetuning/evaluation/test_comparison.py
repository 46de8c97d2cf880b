"""Samples show no secret, whole or half, and not two halves of one beside each other."""

from types import SimpleNamespace

import pytest

from finetuning.evaluation.comparison import shown
from finetuning.evaluation.exam import half_of
from finetuning.evaluation.generation import Question
from finetuning.evaluation.metrics import Outcome
from tests.finetuning.test_secrets import MIXED, PLANTED

KEY = PLANTED["AWS Access Key"]
PEM = f"{PLANTED['Private Key']}\n{MIXED}\n{MIXED[::-1]}\n{MIXED.lower()}"
OTHER = Outcome("", "nothing of that kind", True)


def text(asked, reference, after=""):
    return Question("a:1", [{"role": "text", "content": asked}], [], reference, after)


def said(answer, stopped=True):
    return Outcome("", answer, stopped)


def parts_of(sample: dict[str, str]) -> list[str]:
    """What of the key is in a sample, in pieces of six characters."""
    return [KEY[i : i + 6] for i in range(len(KEY) - 5) if KEY[i : i + 6] in str(sample)]


@pytest.mark.parametrize("cut", range(1, len(KEY)))
def test_a_key_that_goes_on_from_the_question_into_what_comes_next_is_in_neither(cut):
    first, second = f"The key is {KEY[:cut]}", f"{KEY[cut:]} and no more"
    for sample in (
        shown(text(first, second), OTHER, OTHER),
        shown(text(first, "x"), said(second), OTHER),
        shown(text(first, "x"), OTHER, said(second)),
        shown(text("It is", f" {first}", second), OTHER, OTHER),
        shown(text(first, second), said(f"{KEY[cut:-2]}", stopped=False), OTHER),
    ):
        assert not parts_of(sample) and sample["question"] == "[AWS Access Key]"


@pytest.mark.parametrize("cut", range(len(PLANTED["Private Key"]) + 5, len(PEM), 9))
def test_what_a_private_key_goes_on_with_is_not_shown(cut):
    sample = shown(text(PEM[:cut], PEM[cut:]), OTHER, OTHER)
    assert set(sample.values()) == {"[Private Key]"}


@pytest.mark.parametrize("cut", range(6, len(KEY)))
def test_an_answer_that_ends_within_a_key_of_its_row_is_not_shown(cut):
    row = Question("a:1", [{"role": "user", "content": "Which key?"}], [], f"It is {KEY}, as you know.")
    assert not parts_of(shown(row, said(f"It is {KEY[:cut]}", stopped=False), OTHER))


def test_what_is_no_half_of_a_secret_is_shown_beside_what_is_one():
    row = Question("a:1", [{"role": "user", "content": f"What is {KEY}?"}], [], "A key")
    assert shown(row, said("Word", stopped=False), said("A", stopped=False)) == {
        "question": "What is [AWS Access Key]?",
        "reference": "A key",
        "base": "Word",
        "tuned": "A",
    }
    whole = shown(text(f"{KEY} is", " a key.", f" {KEY}"), OTHER, said("", stopped=False))
    assert whole["question"] == "[AWS Access Key] is" and whole["reference"] == " a key."


@pytest.mark.parametrize("most", [None, 2, 9])
def test_a_text_is_asked_in_halves_and_what_comes_after_them_is_known(most):
    tokenizer = SimpleNamespace(decode=lambda ids, skip_special_tokens: "".join(map(chr, ids)))
    question = half_of({"place": "a:1", "input_ids": [*map(ord, "abcdefgh")]}, tokenizer, most)
    end = None if most is None else 4 + most
    assert (question.messages[0]["content"], question.reference) == ("abcd", "abcdefgh"[4:end])
    assert question.after == ("" if end is None else "abcdefgh"[end:])
