import doctest

import pytest

from finetuning import formats
from finetuning.formats import FORMATS, RowDropped, to_messages
from finetuning.recipe import FORMAT_COLUMNS, SourceSpec


def source(format: str, **keys) -> SourceSpec:
    return SourceSpec(files=["rows.jsonl"], format=format, **keys)


def turns(*pairs: tuple[str, str | None]) -> list[dict[str, str | None]]:
    return [{"role": role, "content": content} for role, content in pairs]


def test_the_examples_in_the_docstrings_are_right():
    found = doctest.testmod(formats)
    assert found.attempted >= 10 and found.failed == 0


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


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (turns(("user", "2 + 3?"), ("assistant", "")), "empty answer"),
        (turns(("user", "2 + 3?"), ("assistant", " \n")), "empty answer"),
        (turns(("user", "2 + 3?"), ("assistant", None)), "empty answer"),
        (turns(("user", ""), ("assistant", "5")), "empty user turn"),
        (turns(("user", "2 + 3?")), "no assistant turn"),
        ([], "no assistant turn"),
        (turns(("system", "Be brief.")), "no assistant turn"),
        (turns(("user", "2 + 3?"), ("tool", "5"), ("assistant", "5")), "unknown role 'tool'"),
        (turns(("user", "1?"), ("assistant", "1"), ("user", "2?")), "ends with a user turn"),
        (turns(("user", "1?"), ("user", "2?"), ("assistant", "2")), "user and assistant turns do not alternate"),
        (
            turns(("assistant", "Hello"), ("user", "1?"), ("assistant", "1")),
            "user and assistant turns do not alternate",
        ),
        (turns(("user", "1?"), ("assistant", "1"), ("system", "s")), "a system message that is not the first"),
        ("text", "messages is text, not a list of records"),
        (None, "messages is empty, not a list of records"),
        (["text"], "messages is a list, not a list of records"),
        ([{"role": "user", "content": ["part"]}], "the user turn is a list, not text"),
    ],
)
def test_a_row_that_is_no_conversation_is_dropped_with_the_reason(messages, reason):
    with pytest.raises(RowDropped) as dropped:
        to_messages({"messages": messages}, source("messages"))
    assert str(dropped.value) == reason


@pytest.mark.parametrize(
    ("format", "row", "reason"),
    [
        ("question-answer", {"question": "2 + 3?", "answer": 5}, "the assistant turn is int, not text"),
        ("question-answer", {"question": "2 + 3?", "answer": None}, "empty answer"),
        ("prompt-completion", {"prompt": ["a"], "completion": "b"}, "the user turn is a list, not text"),
        ("alpaca", {"instruction": {}, "input": "b", "output": "c"}, "the user turn is a record, not text"),
        ("sharegpt", {"conversations": [{"from": "observation", "value": "x"}]}, "unknown role 'observation'"),
        ("sharegpt", {"conversations": [{}]}, "unknown role 'None'"),
    ],
)
def test_a_value_of_the_wrong_type_drops_the_row(format, row, reason):
    with pytest.raises(RowDropped) as dropped:
        to_messages(row, source(format))
    assert str(dropped.value) == reason


def test_ultrafeedback_takes_the_answer_of_the_model_that_is_named():
    completions = [
        {"model": "llama-2-7b-chat", "custom_system_prompt": "Be slow.", "response": "4"},
        {"model": "gpt-4", "custom_system_prompt": "Be brief.", "response": "5"},
    ]
    row = {"instruction": "2 + 3?", "completions": completions}
    messages = to_messages(row, source("ultrafeedback", model="gpt-4"))
    assert messages == turns(("system", "Be brief."), ("user", "2 + 3?"), ("assistant", "5"))
    with pytest.raises(RowDropped, match="no answer of wizardlm"):
        to_messages(row, source("ultrafeedback", model="wizardlm"))
