"""Tools and calls of them, in the shapes that data sets have, as chat templates take them."""

import doctest
import json

import pytest

from finetuning.dataset import tool_calls
from finetuning.dataset.formats import to_messages, to_pair, tools_of
from finetuning.dataset.row_faults import RowDropped
from finetuning.recipe.source import SourceSpec

MESSAGES = SourceSpec(files=("x.jsonl",), format="messages")
FUNCTION = {"name": "add", "arguments": {"a": 2, "b": None}}
CALL = {"type": "function", "function": FUNCTION}
SCHEMA = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}}}
TEXT = json.dumps(FUNCTION["arguments"])


def called(keys, **columns) -> dict:
    """The assistant's turn with those keys, in a row that has those columns too."""
    messages = [
        {"role": "user", "content": "2 + 3?"},
        {"role": "assistant", "content": None, **keys},
        {"role": "tool", "content": "5"},
        {"role": "assistant", "content": "5"},
    ]
    return to_messages({"messages": messages, **columns}, MESSAGES)[1]


def test_the_examples_in_the_docstrings_are_right():
    found = doctest.testmod(tool_calls)
    assert found.attempted >= 4 and found.failed == 0


@pytest.mark.parametrize(
    "keys",
    [
        {"tool_calls": [CALL]},
        {"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": TEXT}}]},
        {"tool_calls": [{"function": FUNCTION}]},
        {"tool_calls": [FUNCTION]},
        {"tool_calls": json.dumps([CALL])},
        {"tool_calls": [json.dumps(CALL)]},
        {"tool_calls": [{**CALL, "id": None, "name": None}]},
        {"tool_calls": None, "function_call": {"name": "add", "arguments": TEXT}},
        {"function_call": json.dumps(FUNCTION)},
        {"function_call": None, "tool_calls": [CALL]},
    ],
)
def test_calls_of_every_shape_are_one(keys):
    assert called(keys) == {"role": "assistant", "content": "", "tool_calls": [CALL]}


def test_several_calls_keep_their_order_and_their_ids():
    calls = [{"id": str(n), "type": "function", "function": {"name": "add", "arguments": {"a": n}}} for n in range(3)]
    assert called({"tool_calls": calls})["tool_calls"] == calls


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ({"name": "add", "arguments": "2 + 3"}, "no JSON, which arguments of a tool call have to be"),
        ({"name": "add", "arguments": "[2, 3]"}, "a list as the arguments of a tool call, not a record"),
        ({"arguments": {"a": 2}}, "a tool call without a name"),
        ("add", "no JSON, which tool calls have to be"),
        (3, "a list with a number in it, not of tool calls"),
    ],
)
def test_a_call_that_is_none_drops_the_row(call, reason):
    with pytest.raises(RowDropped, match=f"^{reason}$") as dropped:
        called({"tool_calls": [call]})
    assert dropped.value.field == "messages[1].tool_calls"


def test_nulls_that_the_data_has_stay_and_those_of_other_tools_go():
    call = {"name": "add", "arguments": {"a": 2, "b": None, "city": None}}
    assert called({"tool_calls": [call]}, tools=[SCHEMA])["tool_calls"] == [CALL]
    assert called({"tool_calls": [call]})["tool_calls"][0]["function"]["arguments"] == call["arguments"]


@pytest.mark.parametrize(
    "tools", [[SCHEMA], json.dumps([SCHEMA]), [json.dumps(SCHEMA)], [{"type": "function", "function": SCHEMA}]]
)
@pytest.mark.parametrize("column", ["tools", "functions", "Tools"])
def test_tools_of_every_shape_are_one(tools, column):
    assert tools_of({"messages": [], column: tools}, MESSAGES) == [{"type": "function", "function": SCHEMA}]


def test_properties_that_are_null_are_those_of_other_tools():
    padded = {"name": "add", "parameters": {"properties": {"a": {"default": None}, "city": None}}}
    (tool,) = tools_of({"messages": [], "tools": [padded]}, MESSAGES)
    assert tool["function"]["parameters"] == {"properties": {"a": {"default": None}}}


@pytest.mark.parametrize("answers", [json.dumps([FUNCTION]), [FUNCTION]])
def test_a_question_with_tools_is_answered_by_calls(answers):
    source = SourceSpec(
        files=("x.jsonl",), format="question-answer", columns={"question": "query", "answer": "answers"}
    )
    row = {"query": "2 + 3?", "answers": answers, "tools": json.dumps([SCHEMA])}
    assert to_messages(row, source)[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert tools_of(row, source) == [{"type": "function", "function": SCHEMA}]
    assert to_messages({**row, "answers": "[5]"}, source)[1] == {"role": "assistant", "content": "[5]"}


@pytest.mark.parametrize(
    "call",
    [
        {"name": "add", "args": FUNCTION["arguments"], "id": None, "type": "tool_call"},
        {"type": "tool_use", "name": "add", "input": FUNCTION["arguments"]},
        {"name": "add", "kwargs": TEXT, "index": 0},
        {"action": "add", "action_input": FUNCTION["arguments"]},
        {"function": "add", "arguments": TEXT},
        {"type": "function", "function": {"name": "add", "args": TEXT, "arguments": None}},
        {"type": "function", "function": {"name": "add"}, "args": FUNCTION["arguments"]},
        {"name": "add", "tool_input": FUNCTION["arguments"]},
    ],
)
def test_arguments_are_read_whatever_their_key_is_called(call):
    assert called({"tool_calls": [call]})["tool_calls"] == [CALL]
    row = {"messages": [{"role": "user", "content": "?"}, {"role": "function_call", "content": json.dumps(call)}]}
    assert to_messages(row, MESSAGES)[1]["tool_calls"] == [CALL]


@pytest.mark.parametrize("key", ["slots", "result", "payload", "argumenst"])
@pytest.mark.parametrize("place", ["call", "function"])
def test_a_key_of_a_call_that_is_not_read_drops_the_row_unless_it_is_ignored(key, place):
    call = {**CALL, "function": {**FUNCTION, key: {"a": 2}}} if place == "function" else {**CALL, key: {"a": 2}}
    with pytest.raises(RowDropped, match=f"^a tool call with the key '{key}', which is not read$") as dropped:
        called({"tool_calls": [call]})
    assert dropped.value.field == "messages[1].tool_calls"
    ignoring = MESSAGES.model_copy(update={"ignore": (key,)})
    messages = [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "tool_calls": [call]}]
    assert to_messages({"messages": messages}, ignoring)[1]["tool_calls"] == [CALL]
    messages[1]["tool_calls"] = json.dumps([call])
    assert to_messages({"messages": messages}, ignoring)[1]["tool_calls"] == [CALL]


def test_arguments_in_two_places_drop_the_row():
    with pytest.raises(RowDropped, match=r"^a tool call with arguments in both 'arguments' and 'args'$"):
        called({"tool_calls": [{**FUNCTION, "args": {"c": 1}}]})


def test_the_id_of_a_call_is_read_whatever_its_key_is_called():
    for key in ("id", "call_id", "tool_call_id"):
        assert called({"tool_calls": [{**FUNCTION, key: "c1"}]})["tool_calls"] == [{"id": "c1", **CALL}]


QUERIES = SourceSpec(files=("x.jsonl",), format="question-answer", columns={"question": "query", "answer": "answers"})


@pytest.mark.parametrize("answers", [FUNCTION, json.dumps(FUNCTION), {"name": "add", "args": FUNCTION["arguments"]}])
def test_with_tools_one_call_is_an_answer_without_a_list_around_it(answers):
    row = {"query": "2 + 3?", "answers": answers, "tools": json.dumps([SCHEMA])}
    assert to_messages(row, QUERIES)[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    if isinstance(answers, str):
        assert to_messages({**row, "tools": "[]"}, QUERIES)[1]["content"] == answers


@pytest.mark.parametrize("answers", ["[]", " [ ] ", []])
def test_with_tools_an_empty_list_is_no_answer(answers):
    row = {"query": "2 + 3?", "answers": answers, "tools": json.dumps([SCHEMA])}
    with pytest.raises(RowDropped, match=r"^an empty list of calls, not an answer$") as dropped:
        to_messages(row, QUERIES)
    assert dropped.value.field == "answers"


def test_a_judged_or_preferred_answer_may_be_calls_too():
    row = {"prompt": "2 + 3?", "chosen": json.dumps([FUNCTION]), "rejected": "6", "tools": [SCHEMA]}
    chosen, rejected = to_pair(row, SourceSpec(files=("x.jsonl",), format="preference"))
    assert chosen[1]["tool_calls"] == [CALL] and rejected[1]["content"] == "6"


@pytest.mark.parametrize("key", ["parameters", "input_schema", "inputSchema"])
def test_the_schema_of_a_tool_is_read_whatever_its_key_is_called(key):
    tool = {"name": "add", key: SCHEMA["parameters"]}
    assert tools_of({"messages": [], "tools": [tool]}, MESSAGES) == [{"type": "function", "function": SCHEMA}]
