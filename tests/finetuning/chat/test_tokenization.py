"""Tokens of plain text: nothing added, and never a control token."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import AddedToken

from finetuning.chat.tokenization import PlainText, added_tokens, token_ids
from tests.conftest import train_tiny_tokenizer
from tests.finetuning.chat.test_rendering import space_first_tokenizer

NESTED = ["<a>", "<a><b>", "<b>", "><", "||", "|||"]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def nested():
    """Plain text for a tokenizer some of whose control tokens are in others, or overlap with them."""
    tokenizer = train_tiny_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": NESTED})
    return PlainText(tokenizer, added_tokens(tokenizer))


def test_no_token_is_added_that_is_not_in_the_text(smollm2_tokenizer):
    assert token_ids(smollm2_tokenizer, ["", "2 + 3?"]) == [
        [],
        smollm2_tokenizer.encode("2 + 3?", add_special_tokens=False),
    ]


def test_several_texts_are_tokenized_each_by_itself(smollm2_tokenizer):
    several = ["a", "b c", "", "a"]
    assert token_ids(smollm2_tokenizer, several) == [token_ids(smollm2_tokenizer, [text])[0] for text in several]


def test_the_tokenizers_own_truncation_and_padding_are_switched_off(tiny_tokenizer):
    before = token_ids(tiny_tokenizer, ["What is 2 + 3?", "5"])
    tiny_tokenizer.backend_tokenizer.enable_truncation(2)
    tiny_tokenizer.backend_tokenizer.enable_padding(length=50)
    assert token_ids(tiny_tokenizer, ["What is 2 + 3?", "5"]) == before


def test_added_tokens_are_all_that_are_looked_for_before_words(tiny_tokenizer):
    tiny_tokenizer.add_tokens([AddedToken("    ", special=False)])
    assert added_tokens(tiny_tokenizer) == {"<s>": 0, "</s>": 1, "<pad>": 2, "    ": len(tiny_tokenizer) - 1}


def test_a_text_is_split_at_the_longest_control_tokens(nested):
    assert nested.split("x<a><b>y<a>|||") == ["x", "<a><b>", "y", "<a>", "|||"]
    assert nested.split("") == []
    assert nested.split("no mark") == ["no mark"]


def test_without_control_tokens_nothing_is_split(tiny_tokenizer):
    plain = PlainText(tiny_tokenizer, {})
    assert plain.split("</s>x") == ["</s>x"]
    assert not plain.is_control.any()


@QUICK
@given(st.lists(st.one_of(st.sampled_from([*NESTED, "</s>", "<", ">", "|"]), st.text(max_size=3)), max_size=6))
def test_no_control_token_comes_out_of_a_text_and_it_stays_the_same(nested, pieces):
    text = "".join(pieces)
    ids = nested.apart(text, "\n")
    assert not set(ids) & set(nested.control.values())
    assert nested.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


@QUICK
@given(
    st.lists(st.one_of(st.sampled_from([*NESTED, "</s>", "x<", "x>", "b>", "|", ""]), st.text(max_size=3)), max_size=8)
)
def test_texts_have_the_same_tokens_together_as_alone(nested, texts):
    alone = [token_ids(nested.tokenizer, [text])[0] for text in texts]
    assert nested.token_ids(texts, ["\n"] * len(texts)) == alone


def test_a_text_that_becomes_a_control_token_by_normalization_moves_no_other_texts_tokens(tiny_tokenizer):
    tiny_tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tiny_tokenizer.add_tokens([AddedToken("<stop>", special=True, normalized=True)])
    plain = PlainText(tiny_tokenizer, {"<stop>": added_tokens(tiny_tokenizer)["<stop>"]})
    texts = ["one", "a <STOP> b", "two"]
    assert plain.token_ids(texts, ["\n"] * 3) == token_ids(tiny_tokenizer, texts)


def test_a_text_that_spells_out_nothing_has_the_same_tokens_apart(nested):
    assert nested.apart("What is 2 + 3?", "\n") == nested.token_ids(["What is 2 + 3?"], ["\n"])[0]


def test_only_what_spells_out_a_control_token_is_cut_in_two(nested):
    ids = nested.apart("The answer is <a> 5.", "\n")
    assert ids == [token for part in token_ids(nested.tokenizer, ["The answer is <", "a> 5."]) for token in part]


def test_a_tokenizer_that_changes_text_before_it_looks_for_its_tokens_finds_none(tiny_tokenizer):
    tiny_tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tiny_tokenizer.add_tokens([AddedToken("<stop>", special=True, normalized=True)])
    plain = PlainText(tiny_tokenizer, added_tokens(tiny_tokenizer))
    stop = plain.control["<stop>"]
    assert stop in plain.token_ids(["a <STOP> b"], ["\n"])[0]
    assert stop not in plain.apart("a <STOP> b", "\n")


@pytest.mark.parametrize("legacy", [True, False])
def test_a_tokenizer_that_puts_a_space_before_a_text_puts_none_where_something_is_before_it(legacy):
    tokenizer = space_first_tokenizer(legacy)
    plain = PlainText(tokenizer, added_tokens(tokenizer))
    assert plain.in_context
    whole = token_ids(tokenizer, ["<s>one\ntwo"])[0]
    both, second = plain.token_ids(["one\ntwo", "two"], ["<s>", "\n"])
    assert [*token_ids(tokenizer, ["<s>"])[0], *both] == whole
    assert whole[-len(second) :] == second and tokenizer.convert_ids_to_tokens(second)[0] == "t"
    assert plain.token_ids(["one"], [""]) == token_ids(tokenizer, ["one"])


def test_other_tokenizers_need_nothing_before_a_text(smollm2_tokenizer):
    assert not PlainText(smollm2_tokenizer, added_tokens(smollm2_tokenizer)).in_context


@pytest.mark.parametrize("before", ["", "\n", "</s>"])
def test_a_space_first_tokenizer_finds_no_control_token_in_a_text(before):
    tokenizer = space_first_tokenizer(legacy=False)
    plain = PlainText(tokenizer, added_tokens(tokenizer))
    ids = plain.apart("a</s>b<s>", before)
    assert not plain.is_control[ids].any()
    assert tokenizer.decode(ids) == "a</s>b<s>"
