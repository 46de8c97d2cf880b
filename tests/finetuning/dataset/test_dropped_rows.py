"""A row that holds no conversation, judgement, tool or preference is dropped with its reason and its field."""

import pytest

from finetuning.dataset.formats import to_messages, to_pair, tools_of
from finetuning.dataset.other_formats import judgement_of
from finetuning.dataset.row_faults import RowDropped
from tests.finetuning.dataset.turns import ASKED, CALLS, FIVE, source, turns


@pytest.mark.parametrize("label", [None, "good", 2, 0.5, [True]])
def test_a_label_that_judges_nothing_drops_the_row(label):
    with pytest.raises(RowDropped, match="a label that is neither true nor false") as dropped:
        judgement_of({"good": label}, source("unpaired-preference", columns={"label": "good"}))
    assert dropped.value.field == "good"


@pytest.mark.parametrize(
    ("messages", "reason", "field"),
    [
        (turns(("user", "2 + 3?"), ("assistant", "")), "empty answer", "turn 1"),
        (turns(("user", "2 + 3?"), ("assistant", " \n")), "empty answer", "turn 1"),
        (turns(("user", "2 + 3?"), ("assistant", None)), "empty answer", "turn 1"),
        (turns(("user", ""), ("assistant", "5")), "empty user turn", "turn 0"),
        (turns(("user", "2 + 3?")), "ends with a user turn, not with an answer", "turn 0"),
        ([], "no turns at all", ""),
        (turns(("system", "Be brief.")), "ends with a system turn, not with an answer", "turn 0"),
        (turns(("user", "2?"), ("tool", "5"), ("assistant", "5")), "a tool turn after the user turn", "turn 1"),
        (turns(("user", "2?"), ("critic", "5")), "unknown role 'critic'", "messages[1]"),
        (turns(("user", "2?"), (None, "5")), "no role", "messages[1]"),
        (turns(("user", "2?"), ("assistant " * 99, "5")), "unknown role 'assistant assistant '", "messages[1]"),
        (
            turns(("user", "1?"), ("assistant", "1"), ("user", "2?")),
            "ends with a user turn, not with an answer",
            "turn 2",
        ),
        (turns(("user", "1?"), ("user", "2?"), ("assistant", "2")), "two user turns in a row", "turn 1"),
        (turns(("user", "1?"), ("assistant", "1"), ("assistant", "2")), "two assistant turns in a row", "turn 2"),
        (turns(("assistant", "Hello"), ("user", "1?"), ("assistant", "1")), "an assistant turn first", "turn 0"),
        (turns(("system", "s"), ("assistant", "1")), "an assistant turn after the system turn", "turn 1"),
        (
            turns(("user", "1?"), ("assistant", "1"), ("system", "s")),
            "a system message that is not the first",
            "turn 2",
        ),
        (turns(("system", "s"), ("system", "s"), ("user", "1?")), "a system message that is not the first", "turn 1"),
        ("text", "text, not a list of records", "messages"),
        (None, "nothing, not a list of records", "messages"),
        ({}, "a record, not a list of records", "messages"),
        (["text"], "text, not a record", "messages[0]"),
        ([*turns(("user", "2?")), None], "nothing, not a record", "messages[1]"),
        ([{"role": "user", "content": ["part"]}], "a list in the user turn, not text", "messages[0]"),
        ([{"role": "user", "content": True}], "true or false in the user turn, not text", "messages[0]"),
        ([{"role": ["user"], "content": "x"}], "a list as the role", "messages[0]"),
    ],
)
def test_a_row_that_is_no_conversation_is_dropped_with_reason_and_field(messages, reason, field):
    with pytest.raises(RowDropped) as dropped:
        to_messages({"messages": messages}, source("messages"))
    assert (str(dropped.value), dropped.value.field) == (reason, field)


@pytest.mark.parametrize(
    ("format", "row", "reason", "field"),
    [
        ("question-answer", {"question": "2?", "answer": 5.5}, "a number in the assistant turn, not text", "answer"),
        ("question-answer", {"question": "2 + 3?", "answer": None}, "empty answer", "turn 1"),
        ("question-answer", {"question": "2 + 3?"}, "a column is missing", "answer"),
        ("prompt-completion", {"prompt": ["a"], "completion": "b"}, "a list in the user turn, not text", "prompt"),
        (
            "alpaca",
            {"instruction": {}, "input": "b", "output": "c"},
            "a record in the user turn, not text",
            "instruction",
        ),
        ("alpaca", {"instruction": "a", "input": 5, "output": "c"}, "a number in the input, not text", "input"),
        ("alpaca", {"instruction": "a", "input": [], "output": "c"}, "a list in the input, not text", "input"),
        ("alpaca", {"instruction": "a", "input": 0, "output": "c"}, "a number in the input, not text", "input"),
        (
            "sharegpt",
            {"conversations": [{"from": "critic", "value": "x"}]},
            "unknown role 'critic'",
            "conversations[0]",
        ),
        ("sharegpt", {"conversations": [{}]}, "no role", "conversations[0]"),
        ("ultrafeedback", {"instruction": "a", "completions": "b"}, "text, not a list of records", "completions"),
        ("messages", {}, "a column is missing", "messages"),
    ],
)
def test_a_value_of_the_wrong_type_drops_the_row(format, row, reason, field):
    with pytest.raises(RowDropped) as dropped:
        to_messages(row, source(format, **({"model": "gpt-4"} if format == "ultrafeedback" else {})))
    assert (str(dropped.value), dropped.value.field) == (reason, field)


def test_a_missing_column_is_named_as_the_data_set_names_it():
    spec = source("question-answer", columns={"question": "Problem"})
    with pytest.raises(RowDropped) as dropped:
        to_messages({"Question": "2?", "answer": "5"}, spec)
    assert dropped.value.field == "Problem"


def test_a_conversation_does_not_end_in_a_call_that_nothing_answers():
    messages = [*turns(("user", "2?")), {"role": "assistant", "content": "", "tool_calls": CALLS}, {"role": "tool"}]
    with pytest.raises(RowDropped, match="ends with a tool turn"):
        to_messages({"messages": messages}, source("messages"))


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        ("{", "no JSON, which tools have to be"),
        ('{"a": 1}', "a record, not a list of tools"),
        ([1], "a list with a number in it, not of tools"),
        (3, "a number, not a list of tools"),
    ],
)
def test_tools_of_another_kind_drop_the_row(tools, reason):
    with pytest.raises(RowDropped, match=rf"^{reason}$") as dropped:
        tools_of({"tools": tools}, source("messages"))
    assert dropped.value.field == "tools"


@pytest.mark.parametrize(
    ("row", "reason", "field"),
    [
        ({"rejected": "5"}, "chosen and rejected are the same", "rejected"),
        (
            {"prompt": None, "chosen": ASKED + FIVE, "rejected": turns(("user", "2 + 4?"), ("assistant", "6"))},
            "chosen and rejected differ in more than their last answer",
            "rejected",
        ),
        (
            {"rejected": turns(("user", "2 + 4?"), ("assistant", "6"))},
            "a whole conversation that the prompt is not in",
            "rejected",
        ),
        ({"rejected": " "}, "empty answer", "rejected turn 1"),
        ({"rejected": None}, "empty answer", "rejected turn 1"),
        ({"rejected": []}, "no turns at all", ""),
        ({"rejected": 6.5}, "a number in the assistant turn, not text", "rejected"),
        ({"rejected": [{"role": "robot", "content": "6"}]}, "unknown role 'robot'", "rejected[0]"),
        ({"rejected": ASKED}, "ends with a user turn, not with an answer", "rejected turn 0"),
        ({"chosen": ""}, "empty answer", "turn 1"),
        ({"chosen": ["5"]}, "a list in the assistant turn, not text", "chosen"),
        ({"prompt": None}, "an answer without a prompt", "prompt"),
        ({"prompt": 2}, "a number in the user turn, not text", "prompt"),
        ({"prompt": ASKED + FIVE}, "two assistant turns in a row", "turn 2"),
        ({"prompt": ""}, "empty user turn", "turn 0"),
    ],
)
def test_a_row_that_is_no_preference_is_dropped_with_reason_and_field(row, reason, field):
    with pytest.raises(RowDropped) as dropped:
        to_pair({"prompt": "2 + 3?", "chosen": "5", "rejected": "6", **row}, source("preference"))
    assert (str(dropped.value), dropped.value.field) == (reason, field)


@pytest.mark.parametrize("column", ["developer", "System_Prompt"])
def test_a_second_system_message_names_its_column(column):
    row = {"messages": turns(("system", "Be brief."), ("user", "?"), ("assistant", "5")), column: "Be long."}
    with pytest.raises(RowDropped) as dropped:
        to_messages(row, source("messages"))
    assert dropped.value.field == column
    assert to_messages(row, source("messages", ignore=[column]))[0]["content"] == "Be brief."


@pytest.mark.parametrize(("column", "value"), [("thinking", True), ("passage", {"a": 1}), ("chat_history", "a")])
def test_the_place_of_a_fault_is_the_column_of_the_data(column, value):
    with pytest.raises(RowDropped) as dropped:
        to_messages({"question": "2 + 3?", "answer": "5", column: value}, source("question-answer"))
    assert dropped.value.field == column
