"""Turns of a conversation under whatever names and in whatever shapes data sets have them."""

import doctest
import json

import pytest

from finetuning.dataset import turns
from finetuning.dataset.formats import to_messages
from finetuning.dataset.row_faults import RowDropped
from finetuning.dataset.turns import OLD_CALL, TOOL_KEYS, messages_in, unread_keys
from finetuning.recipe.columns import REASONING_KEYS, TRAIN_KEYS
from finetuning.recipe.source import SourceSpec

MESSAGES = SourceSpec(files=("x.jsonl",), format="messages")
SHAREGPT = SourceSpec(files=("x.jsonl",), format="sharegpt")
ASKED, FIVE = {"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}


def read(*messages) -> list[dict]:
    return to_messages({"messages": list(messages)}, MESSAGES)


def dropped(*messages) -> tuple[str, str]:
    with pytest.raises(RowDropped) as reason:
        read(*messages)
    return str(reason.value), reason.value.field


def test_the_examples_in_the_docstrings_are_right():
    found = doctest.testmod(turns)
    assert found.attempted >= 4 and found.failed == 0


@pytest.mark.parametrize(
    ("asks", "answers"),
    [
        ("Human", "GPT"),
        ("USER", "bing"),
        ("human", "bard"),
        ("User", "Assistant"),
        ("prompter", "ChatGPT"),
        ("question", "answer"),
        (" user ", "gpt-4"),
    ],
)
def test_roles_have_many_names_in_any_case(asks, answers):
    rows = [{"from": asks, "value": "2 + 3?"}, {"from": answers, "value": "5"}]
    assert to_messages({"conversations": rows}, SHAREGPT) == [ASKED, FIVE]
    assert read({"role": asks, "content": "2 + 3?"}, {"role": answers, "content": "5"}) == [ASKED, FIVE]


def test_a_developer_is_the_system_and_a_function_answers_as_a_tool():
    call = {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": '{"a": 2}'}}
    for tool in ("function", "observation", "ipython", "Tool"):
        found = read({"role": "developer", "content": "Hi"}, ASKED, call, {"role": tool, "content": "5"}, FIVE)
        assert [message["role"] for message in found] == ["system", "user", "assistant", "tool", "assistant"]
        assert found[2]["tool_calls"] == [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}]


def test_a_turn_that_is_a_call_by_its_role_is_one():
    rows = [
        {"from": "human", "value": "2 + 3?"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2}}'},
        {"from": "observation", "value": "5"},
        {"from": "gpt", "value": "5"},
    ]
    found = to_messages({"conversations": rows}, SHAREGPT)
    assert found[1]["tool_calls"] == [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}]
    assert found[2] == {"role": "tool", "content": "5"}


def test_a_call_and_a_result_need_no_content():
    calls = [{"type": "function", "function": {"name": "now", "arguments": {}}}]
    found = read(ASKED, {"role": "assistant", "tool_calls": calls}, {"role": "tool", "name": "now"}, FIVE)
    assert found[1:3] == [
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "", "name": "now"},
    ]


@pytest.mark.parametrize("key", ["weight", "train", "loss", "Weight"])
@pytest.mark.parametrize(("value", "learned"), [(0, False), (False, False), (0.0, False), (1, True), (None, True)])
def test_an_answer_of_no_weight_is_not_learned(key, value, learned):
    marked = {"role": "assistant", "content": "6", key: value}
    found = read(ASKED, marked, {"role": "user", "content": "Sure?"}, {**FIVE, key: 1})
    assert [message.get("train", True) for message in found] == [True, learned, True, True]
    rows = [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "6", key: value}]
    assert to_messages({"conversations": rows}, SHAREGPT)[1].get("train", True) == learned


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking", "Thinking"])
def test_what_was_thought_before_an_answer_is_kept(key):
    found = read(ASKED, {**FIVE, key: "2, 3, 4, 5"})
    assert found == [ASKED, {**FIVE, "reasoning_content": "2, 3, 4, 5"}]
    assert read(ASKED, {**FIVE, key: None}) == read(ASKED, {**FIVE, key: " "}) == [ASKED, FIVE]


def test_parts_of_text_are_joined_and_those_that_are_thought_stand_apart():
    asked = [{"type": "text", "text": "2 "}, {"type": "input_text", "text": "+ 3?", "image_url": None}]
    answer = [{"type": "thinking", "thinking": "2, 3, 4, 5"}, {"type": "text", "text": "5"}]
    found = read({"role": "user", "content": asked}, {"role": "assistant", "content": answer})
    assert found == [ASKED, {**FIVE, "reasoning_content": "2, 3, 4, 5"}]
    rows = {"prompt": [{"type": "text", "text": "2 + 3?"}], "completion": [{"text": "5"}]}
    assert to_messages(rows, SourceSpec(files=("x.jsonl",), format="prompt-completion")) == [ASKED, FIVE]


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ({"type": "image_url", "image_url": {"url": "a.png"}}, "a part of the type 'image_url'"),
        ({"type": "image"}, "a part of the type 'image'"),
        ({"type": "input_audio", "text": "a"}, "a part of the type 'input_audio'"),
        ({"url": "a.png"}, "a record"),
    ],
)
def test_parts_that_are_no_text_drop_the_row_with_their_kind(part, shown):
    parts = [{"type": "text", "text": "What is this?"}, part]
    reason = dropped({"role": "user", "content": parts}, FIVE)
    assert reason == (f"{shown} in the user turn, not text", "messages[0].content[1]")


def test_whole_numbers_are_answers_and_other_numbers_are_not():
    rows = SourceSpec(files=("x.jsonl",), format="question-answer")
    assert to_messages({"question": "2 + 3?", "answer": 5}, rows) == [ASKED, FIVE]
    assert read(ASKED, {"role": "assistant", "content": 0})[1]["content"] == "0"
    for value in (5.0, True):
        with pytest.raises(RowDropped, match=r"in the assistant turn, not text$"):
            to_messages({"question": "2 + 3?", "answer": value}, rows)


@pytest.mark.parametrize(
    ("result", "text"),
    [({"celsius": 4}, '{"celsius":4}'), ([{"celsius": 4}], '[{"celsius":4}]'), (4.5, "4.5"), ([], "[]")],
)
def test_what_a_tool_gives_back_may_be_an_object(result, text):
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "arguments": {}}]}
    assert read(ASKED, call, {"role": "tool", "content": result}, FIVE)[2] == {"role": "tool", "content": text}


def test_conversations_are_read_from_json_text_too():
    assert to_messages({"messages": json.dumps([ASKED, FIVE])}, MESSAGES) == [ASKED, FIVE]
    rows = json.dumps([{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}])
    assert to_messages({"conversations": rows}, SHAREGPT) == [ASKED, FIVE]
    with pytest.raises(RowDropped, match=r"^text, not a list of records$"):
        to_messages({"messages": json.dumps([ASKED, FIVE])[:-1]}, MESSAGES)


CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 2}}}


@pytest.mark.parametrize("key", ["tool_calls", "toolCalls", "Tool_Calls", "tool-calls"])
def test_calls_are_read_however_their_key_is_spelled(key):
    (made,) = messages_in([{"role": "assistant", "content": "Let me see.", key: [CALL]}], "messages")
    assert made["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 2}}


@pytest.mark.parametrize(("key", "name"), [("toolCallId", "tool_call_id"), ("Name", "name")])
def test_so_is_whose_answer_it_is(key, name):
    (made,) = messages_in([{"role": "tool", "content": "5", key: "c1"}], "messages")
    assert made[name] == "c1"


def test_every_key_that_counts_as_read_is_read_in_another_spelling():
    turn = {"role": "assistant", "content": "5"}
    for name in (*TOOL_KEYS, OLD_CALL, *REASONING_KEYS, *TRAIN_KEYS):
        value = {"tool_calls": [CALL], OLD_CALL: CALL["function"]}.get(name, 0 if name in TRAIN_KEYS else "c1")
        other = "".join(part.capitalize() for part in name.split("_"))
        assert unread_keys({**turn, other: value}, frozenset()) == []
        assert messages_in([{**turn, other: value}], "messages") != [turn], f"{other} counts as read, and is lost"


@pytest.mark.parametrize("key", ["weight", "train", "image", "loss_mask"])
@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value")])
def test_what_stands_beside_the_text_of_a_part_is_told(key, keys):
    part = {"type": "text", "text": "5", key: 1, "cache_control": None}
    assert unread_keys({keys[0]: "assistant", keys[1]: [part]}, frozenset()) == [f"{keys[1]}[].{key}"]
    assert unread_keys({keys[0]: "assistant", keys[1]: [part]}, frozenset({key})) == []
