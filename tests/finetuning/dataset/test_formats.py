import doctest
import json

import pytest

from finetuning.dataset import formats, other_formats
from finetuning.dataset.formats import FORMATS, to_messages, to_pair, tools_of
from finetuning.dataset.other_formats import judgement_of, looks_like_turns
from finetuning.dataset.row_faults import NotChosen, RowDropped
from finetuning.recipe.dataset import FORMAT_COLUMNS, SourceSpec


def source(format: str, **keys) -> SourceSpec:
    return SourceSpec(files=["rows.jsonl"], format=format, **keys)


def turns(*pairs: tuple[str, str | None]) -> list[dict[str, str | None]]:
    return [{"role": role, "content": content} for role, content in pairs]


def test_the_examples_in_the_docstrings_are_right():
    found = doctest.testmod(formats)
    assert found.attempted >= 10 and found.failed == 0
    found = doctest.testmod(other_formats)
    assert found.attempted >= 3 and found.failed == 0


def test_each_format_of_the_schema_has_a_function():
    assert FORMATS.keys() == FORMAT_COLUMNS.keys()


@pytest.mark.parametrize(
    ("format", "row"),
    [
        ("messages", {"messages": turns(("user", "2 + 3?"), ("assistant", "5"))}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]}),
        ("alpaca", {"instruction": "2 + 3?", "input": "", "output": "5"}),
        ("alpaca", {"instruction": "2 + 3?", "input": None, "output": "5"}),
        ("alpaca", {"instruction": "2 + 3?", "output": "5"}),
        ("prompt-completion", {"prompt": "2 + 3?", "completion": "5"}),
        ("question-answer", {"question": "2 + 3?", "answer": "5", "more": 1}),
    ],
)
def test_each_format_gives_the_same_messages(format, row):
    assert to_messages(row, source(format)) == turns(("user", "2 + 3?"), ("assistant", "5"))


@pytest.mark.parametrize("form", ["text", "messages"])
def test_a_judged_answer_is_the_conversation_that_it_ends(form):
    prompt, completion = turns(("user", "2 + 3?")), turns(("assistant", "6"))
    row = {"prompt": prompt, "completion": completion, "label": False, "system": "Be brief."}
    if form == "text":
        row |= {"prompt": "2 + 3?", "completion": "6"}
    expected = turns(("system", "Be brief."), ("user", "2 + 3?"), ("assistant", "6"))
    assert to_messages(row, source("unpaired-preference")) == expected


@pytest.mark.parametrize("label", [None, "good", 2, 0.5, [True]])
def test_a_label_that_judges_nothing_drops_the_row(label):
    with pytest.raises(RowDropped, match="a label that is neither true nor false") as dropped:
        judgement_of({"good": label}, source("unpaired-preference", columns={"label": "good"}))
    assert dropped.value.field == "good"


def test_a_text_is_one_message_by_itself():
    said = "### Human: 2 + 3?### Assistant: 5"
    assert to_messages({"text": said, "id": 3}, source("text")) == turns(("text", said))
    assert to_messages({"body": said}, source("text", columns={"text": "body"})) == turns(("text", said))
    faults = (({"text": " \n"}, "an empty text"), ({"text": 7}, "a number, not text"), ({}, "column is missing"))
    for row, reason in faults:
        with pytest.raises(RowDropped, match=reason):
            to_messages(row, source("text"))


@pytest.mark.parametrize(
    ("said", "turns"),
    [
        ("### Human: 2 + 3?### Assistant: 5", True),
        ("### Instruction:\nAdd.\n\n### Response:\n5", True),
        ("<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n5", True),
        ("<s>[INST] 2 + 3? [/INST] 5", True),
        ("User: 2 + 3?\nAssistant: 5", True),
        ("Q: 2 + 3?\nA: 5", True),
        ("The user: a person who uses it. Its assistant: nobody.", False),
        ("## Instruction\nAdd.", False),
    ],
)
def test_text_that_was_a_conversation_is_told(said, turns):
    assert looks_like_turns(said) == turns


def test_columns_are_found_under_the_names_that_the_recipe_gives():
    row = {"Problem": "2 + 3?", "Solution": "5", "answer": "never this one"}
    spec = source("question-answer", columns={"question": "Problem", "answer": "Solution"})
    assert to_messages(row, spec) == turns(("user", "2 + 3?"), ("assistant", "5"))


def test_a_system_prompt_of_the_source_opens_a_conversation_that_has_none():
    row = {"messages": turns(("user", "2 + 3?"), ("assistant", "5"))}
    assert to_messages(row, source("messages", system="Be brief."))[0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("own", ["", "  \n", None])
def test_a_blank_system_message_counts_as_none(own):
    row = {"messages": turns(("system", own), ("user", "2 + 3?"), ("assistant", "5"))}
    assert to_messages(row, source("messages", system="Be brief."))[0]["content"] == "Be brief."
    assert to_messages(row, source("messages")) == turns(("user", "2 + 3?"), ("assistant", "5"))


def test_a_system_message_of_the_row_stays():
    row = {"messages": turns(("system", "Be kind."), ("user", "2 + 3?"), ("assistant", "5"))}
    messages = to_messages(row, source("messages", system="Be brief."))
    assert [message["content"] for message in messages] == ["Be kind.", "2 + 3?", "5"]


def test_text_is_left_as_it_is():
    row = {"question": " 2 + 3?\n", "answer": "\n5 "}
    assert to_messages(row, source("question-answer")) == turns(("user", " 2 + 3?\n"), ("assistant", "\n5 "))


CALLS = [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}]


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


def test_a_row_without_a_format_of_its_source_is_read_in_that_of_its_columns():
    row = {"prompt": "2?", "completion": "5"}
    spec = SourceSpec(files=["rows.jsonl"])
    assert to_messages(row, spec, "prompt-completion") == turns(("user", "2?"), ("assistant", "5"))


def test_calls_of_tools_and_what_they_answer_are_kept():
    messages = [
        {"role": "user", "content": "2 + 3?"},
        {"role": "assistant", "content": None, "tool_calls": CALLS},
        {"role": "tool", "content": "5", "name": "add", "tool_call_id": "1", "other": "x"},
        {"role": "assistant", "content": "5", "tool_calls": []},
    ]
    assert to_messages({"messages": messages}, source("messages")) == [
        {"role": "user", "content": "2 + 3?"},
        {"role": "assistant", "content": "", "tool_calls": CALLS},
        {"role": "tool", "content": "5", "name": "add", "tool_call_id": "1"},
        {"role": "assistant", "content": "5"},
    ]


def test_a_conversation_does_not_end_in_a_call_that_nothing_answers():
    messages = [*turns(("user", "2?")), {"role": "assistant", "content": "", "tool_calls": CALLS}, {"role": "tool"}]
    with pytest.raises(RowDropped, match="ends with a tool turn"):
        to_messages({"messages": messages}, source("messages"))


@pytest.mark.parametrize(
    ("tools", "found"),
    [
        ([{"name": "add"}], [{"name": "add"}]),
        ('[{"name": "add"}]', [{"name": "add"}]),
        (None, None),
        ([], None),
        ("", None),
        ("[]", None),
        (" \n", None),
    ],
)
def test_tools_are_records_or_the_json_text_of_them(tools, found):
    assert tools_of({"tools": tools}, source("messages")) == found


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


def test_ultrafeedback_takes_the_answer_of_the_model_that_is_named():
    completions = [
        {"model": "llama-2-7b-chat", "custom_system_prompt": "Be slow.", "response": "4"},
        {"model": "gpt-4", "custom_system_prompt": "Be brief.", "response": "5"},
    ]
    row = {"instruction": "2 + 3?", "completions": completions}
    messages = to_messages(row, source("ultrafeedback", model="gpt-4"))
    assert messages == turns(("system", "Be brief."), ("user", "2 + 3?"), ("assistant", "5"))
    with pytest.raises(NotChosen, match=r"^no answer of wizardlm$"):
        to_messages(row, source("ultrafeedback", model="wizardlm"))


ASKED = turns(("user", "2 + 3?"))
FIVE, SIX = turns(("assistant", "5")), turns(("assistant", "6"))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2 + 3?", "chosen": "5", "rejected": "6"},
        {"prompt": ASKED, "chosen": "5", "rejected": SIX},
        {"prompt": ASKED, "chosen": FIVE, "rejected": SIX},
        {"prompt": "2 + 3?", "chosen": FIVE, "rejected": SIX},
        {"chosen": ASKED + FIVE, "rejected": ASKED + SIX},
        {"prompt": None, "chosen": ASKED + FIVE, "rejected": ASKED + SIX},
        # As ultrafeedback_binarized is published.
        {"prompt": "2 + 3?", "chosen": ASKED + FIVE, "rejected": ASKED + SIX, "messages": ASKED + FIVE, "score": 9.0},
    ],
)
def test_each_kind_of_preference_gives_the_same_two_conversations(row):
    assert to_pair(row, source("preference")) == (ASKED + FIVE, ASKED + SIX)
    assert to_messages(row, source("preference")) == ASKED + FIVE


def test_columns_and_system_prompt_of_a_source_are_those_of_both_conversations():
    spec = source("preference", columns={"prompt": "question", "rejected": "bad"}, system="Be brief.")
    row = {"question": "2 + 3?", "chosen": "5", "bad": "6", "rejected": "never this one"}
    before = turns(("system", "Be brief."), ("user", "2 + 3?"))
    assert to_pair(row, spec) == (before + FIVE, before + SIX)
    own = turns(("system", "Be slow."), ("user", "2 + 3?"))
    assert to_pair({**row, "system": "Be slow."}, spec) == (own + FIVE, own + SIX)
    assert to_messages({**row, "system": "Be slow."}, spec) == own + FIVE


def test_answers_may_call_tools_as_long_as_only_the_last_turn_differs():
    called = [*ASKED, {"role": "assistant", "content": "", "tool_calls": CALLS}, {"role": "tool", "content": "5"}]
    assert to_pair({"chosen": called + FIVE, "rejected": called + SIX}, source("preference"))[1] == called + SIX


@pytest.mark.parametrize(
    ("row", "reason", "field"),
    [
        ({"rejected": "5"}, "chosen and rejected are the same", "rejected"),
        (
            {"rejected": turns(("user", "2 + 4?"), ("assistant", "6"))},
            "chosen and rejected differ in more than their last answer",
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


def test_a_row_without_a_rejected_answer_can_be_learned_from_and_is_no_preference():
    row = {"prompt": "2 + 3?", "chosen": "5"}
    assert to_messages(row, source("preference")) == ASKED + FIVE
    with pytest.raises(RowDropped, match="a column is missing") as dropped:
        to_pair(row, source("preference", columns={"rejected": "bad"}))
    assert dropped.value.field == "bad"


@pytest.mark.parametrize("form", ["record", "from", "list of from", "whole", "json", "json list"])
def test_pairs_of_every_shape_are_read(form):
    keys = ("role", "content") if form in ("record", "json") else ("from", "value")

    def shaped(answer):
        turn = dict(zip(keys, ("assistant", answer), strict=True))
        if form == "whole":
            return [{"from": "human", "value": "2 + 3?"}, turn]
        shapes = {"list of from": [turn], "json": json.dumps(turn), "json list": json.dumps([turn])}
        return shapes.get(form, turn)

    row = {"prompt": [dict(zip(keys, ("user", "2 + 3?"), strict=True))], "chosen": shaped("5"), "rejected": shaped("6")}
    if form == "whole":
        del row["prompt"]
    chosen, rejected = to_pair(row, source("preference"))
    assert chosen == turns(("user", "2 + 3?"), ("assistant", "5")) and rejected[1]["content"] == "6"


def test_a_prompt_that_is_a_request_is_read_with_its_tools():
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    asked = {"messages": turns(("user", "2 + 3?")), "tools": [tool], "parallel_tool_calls": True}
    pair = {"preferred_output": turns(("assistant", "5")), "non_preferred_output": turns(("assistant", "6"))}
    named = source(
        "preference",
        columns={"prompt": "input", "chosen": "preferred_output", "rejected": "non_preferred_output"},
    )
    row = {"input": asked, **pair}
    assert to_pair(row, named)[0] == turns(("user", "2 + 3?"), ("assistant", "5"))
    assert tools_of(row, named) == [tool]
    with pytest.raises(RowDropped, match="a prompt with the key 'documents', which is not read"):
        to_pair({**row, "input": {**asked, "documents": ["a"]}}, named)


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
