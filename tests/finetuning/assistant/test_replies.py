"""Text out of tokens: told as it comes, and in the end what the exam would have read."""

import pytest

from finetuning.assistant.replies import Call, Delta, Reply, calls_in
from finetuning.chat.tokenization import token_ids
from finetuning.evaluation.generation import answer_of
from tests.conftest import train_tiny_tokenizer

STOP = 1


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = train_tiny_tokenizer()
    tokenizer.add_tokens(["<|message|>", "[TOOL_CALLS]", "[ARGS]"], special_tokens=True)
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def told(reply, ids):
    """All that was told, token by token and at the end."""
    deltas = [reply.put(token) for token in ids]
    return [*deltas, reply.end()]


def joined(deltas):
    return Delta("".join(delta.content for delta in deltas), "".join(delta.reasoning for delta in deltas))


TEXTS = ["5", "", "  with space ", "ünïcödé → 日本語 👍🏽 ok", "a\n\nb\n", "x" * 300, "\ufffd", "</s", "<think"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("mark", ["", "</think>", "<|message|>"])
def test_what_was_told_is_what_the_exam_reads(tokenizer, text, mark):
    ids = ids_of(tokenizer, text)
    reply = Reply(tokenizer, STOP, mark)
    assert joined(told(reply, ids)).content == answer_of(tokenizer, ids, STOP, mark).text == reply.whole().content


def test_no_half_character_is_told(tokenizer):
    deltas = told(Reply(tokenizer, STOP), ids_of(tokenizer, "日本👍🏽"))
    assert joined(deltas).content == "日本👍🏽"
    assert not any("\ufffd" in delta.content for delta in deltas)


def test_text_is_told_as_it_comes(tokenizer):
    deltas = told(Reply(tokenizer, STOP), ids_of(tokenizer, "one two three"))
    assert sum(bool(delta.content) for delta in deltas) > 3


@pytest.mark.parametrize("opened", [True, False])
def test_what_was_thought_is_no_part_of_the_answer(tokenizer, opened):
    text = ("" if opened else "<think>\n") + "first this\n</think>\n\nthe answer"
    deltas = told(Reply(tokenizer, STOP, "</think>", opened), ids_of(tokenizer, text))
    assert joined(deltas).content == "the answer"
    assert joined(deltas).reasoning.strip() == "first this"
    assert any(delta.reasoning for delta in deltas[:-6]), "the thought was told only at the end"


def test_an_answer_of_a_thinking_model_that_does_not_think_is_told_at_once(tokenizer):
    deltas = told(Reply(tokenizer, STOP, "</think>"), ids_of(tokenizer, "just an answer"))
    assert joined(deltas) == Delta("just an answer")
    assert any(delta.content for delta in deltas[:-6])


@pytest.mark.parametrize("text, expected", [("one END two", "one "), ("one EN two", "one EN two"), ("END", "")])
def test_an_answer_ends_before_a_stop_string(tokenizer, text, expected):
    reply, deltas = Reply(tokenizer, STOP, stop_strings=("END",)), []
    for token in ids_of(tokenizer, text):
        deltas.append(reply.put(token))
        if reply.is_complete:
            break
    deltas.append(reply.end())
    assert joined(deltas).content == expected == reply.whole().content
    assert reply.is_complete is ("END" in text)


CALLS = {
    '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>': [("add", '{"a": 2}')],
    '<tool_call>{"name": "f", "arguments": {"x": {"y": "}"}}}</tool_call>\n<tool_call>{"name": "g", "arguments": {}}'
    "</tool_call>": [("f", '{"x": {"y": "}"}}'), ("g", "{}")],
    '[TOOL_CALLS][{"name": "add", "arguments": {"a": 2}}]': [("add", '{"a": 2}')],
    '[TOOL_CALLS]add[ARGS]{"a": 2}[TOOL_CALLS]sub[ARGS]{"b": 3}': [("add", '{"a": 2}'), ("sub", '{"b": 3}')],
    '{"name": "add", "parameters": {"a": 2}}': [("add", '{"a": 2}')],
    '<|python_tag|>{"name": "add", "parameters": {"a": 2}}<|eom_id|>': [("add", '{"a": 2}')],
    "2 + 3 is 5": [],
    '{"name": 5, "arguments": {}}': [],
    '{"sum": 5}': [],
    "<tool_call>no JSON</tool_call>": [],
}


@pytest.mark.parametrize("text", CALLS)
def test_calls_of_tools_are_found(text):
    assert list(calls_in(text)) == [Call(*call) for call in CALLS[text]]


def test_a_call_is_told_as_a_call_and_not_as_text(tokenizer):
    text = 'I add.\n<tool_call>\n{"name": "add", "arguments": {"a": "é"}}\n</tool_call>'
    reply = Reply(tokenizer, STOP, tools=True)
    deltas = told(reply, ids_of(tokenizer, text))
    assert joined(deltas).content == "I add."
    assert reply.whole().calls == [Call("add", '{"a": "é"}')]
    assert not Reply(tokenizer, STOP, ids=token_ids(tokenizer, [text])[0]).whole().calls, "no tools were offered"
