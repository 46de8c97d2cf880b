"""Columns beside a format's own: read as what they mean, under many names."""

import doctest
import json

import pytest

from finetuning.dataset import row_columns, row_faults
from finetuning.dataset.formats import to_messages
from finetuning.dataset.row_faults import RowDropped
from finetuning.recipe import columns
from finetuning.recipe.source import SourceSpec

ROWS = {
    "alpaca": {"instruction": "And 3?", "output": "6"},
    "prompt-completion": {"prompt": "And 3?", "completion": "6"},
    "question-answer": {"question": "And 3?", "answer": "6"},
}
ASKED, SIX = {"role": "user", "content": "And 3?"}, {"role": "assistant", "content": "6"}
TURNS = [ASKED, SIX]


def source(format, **keys) -> SourceSpec:
    return SourceSpec(files=("x.jsonl",), format=format, **keys)


def test_the_examples_in_the_docstrings_are_right():
    for module, least in ((row_columns, 2), (row_faults, 3), (columns, 3)):
        found = doctest.testmod(module)
        assert found.attempted >= least and found.failed == 0


@pytest.mark.parametrize("format", ROWS)
@pytest.mark.parametrize("name", ["context", "Context", "input", "passage"])
def test_a_context_follows_the_question(format, name):
    found = to_messages({**ROWS[format], name: "3 + 3"}, source(format))
    assert found == [{"role": "user", "content": "And 3?\n\n3 + 3"}, SIX]
    assert to_messages({**ROWS[format], name: " "}, source(format)) == TURNS


@pytest.mark.parametrize("format", ROWS)
@pytest.mark.parametrize("name", ["system", "system_prompt", "System_Prompt", "systemPrompt"])
def test_a_system_prompt_of_the_row_opens_it(format, name):
    found = to_messages({**ROWS[format], name: "Be brief."}, source(format, system="Be slow."))
    assert found == [{"role": "system", "content": "Be brief."}, *TURNS]


@pytest.mark.parametrize(
    ("format", "row"),
    [
        ("messages", {"messages": TURNS}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "And 3?"}, {"from": "gpt", "value": "6"}]}),
        ("preference", {"prompt": "And 3?", "chosen": "6", "rejected": "7"}),
    ],
)
def test_a_system_prompt_in_a_column_opens_a_whole_conversation_too(format, row):
    assert to_messages({**row, "system_prompt": "Hi"}, source(format))[0] == {"role": "system", "content": "Hi"}


def test_two_system_prompts_of_one_row_are_a_fault_where_they_differ():
    row = {"messages": [{"role": "system", "content": "Hi"}, *TURNS], "system": "Hi"}
    assert to_messages(row, source("messages")) == row["messages"]
    with pytest.raises(RowDropped, match="and another one in a column") as dropped:
        to_messages({**row, "system": "Ho"}, source("messages"))
    assert dropped.value.field == "system"
    assert to_messages({**row, "system": "Ho"}, source("messages", ignore=("system",))) == row["messages"]


@pytest.mark.parametrize("format", ROWS)
@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "thinking", "cot", "Complex_CoT"])
def test_what_was_thought_belongs_to_the_answer(format, name):
    found = to_messages({**ROWS[format], name: "3 + 3 = 6"}, source(format))
    assert found == [ASKED, {**SIX, "reasoning_content": "3 + 3 = 6"}]


HISTORY = [["2 + 2?", "4"], ["2 + 3?", "5"]]
BEFORE = [
    {"role": role, "content": text} for pair in HISTORY for role, text in zip(("user", "assistant"), pair, strict=True)
]


@pytest.mark.parametrize("format", ROWS)
@pytest.mark.parametrize("history", [HISTORY, BEFORE, '[["2 + 2?", "4"], ["2 + 3?", "5"]]'])
def test_a_history_comes_before_the_question(format, history):
    assert to_messages({**ROWS[format], "history": history}, source(format)) == [*BEFORE, *TURNS]
    found = to_messages({**ROWS[format], "history": history, "system": "Hi", "context": "x"}, source(format))
    assert [message["content"] for message in found] == ["Hi", "2 + 2?", "4", "2 + 3?", "5", "And 3?\n\nx", "6"]
    assert to_messages({**ROWS[format], "history": []}, source(format)) == TURNS


def test_a_history_of_another_kind_drops_the_row():
    with pytest.raises(RowDropped, match="a history that is no list of messages") as dropped:
        to_messages({**ROWS["alpaca"], "history": ["2 + 2?"]}, source("alpaca"))
    assert dropped.value.field == "history"


def test_columns_of_any_name_are_mapped_and_one_that_is_mapped_is_nothing_else():
    spec = source("question-answer", columns={"question": "input", "answer": "output", "context": "sql_schema"})
    row = {"input": "And 3?", "output": "6", "sql_schema": "CREATE", "context": "left"}
    assert to_messages(row, spec)[0]["content"] == "And 3?\n\nCREATE"


def test_what_the_recipe_ignores_is_as_though_it_were_not_there():
    spec = source("question-answer", ignore=("Context", "thinking"))
    assert to_messages({**ROWS["question-answer"], "context": "x", "thinking": "y"}, spec) == TURNS
    row = {"messages": [ASKED, {**SIX, "weight": 0, "reasoning": "z"}]}
    spec = source("messages", ignore=("messages[].weight", "reasoning"))
    assert to_messages(row, spec) == to_messages({"messages": json.dumps(row["messages"])}, spec) == TURNS
    assert to_messages({"prompt": "[3]", "completion": "6"}, source("prompt-completion", ignore=("x",)))[0] == {
        "role": "user",
        "content": "[3]",
    }


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASKED], "completion": [SIX]},
        {"prompt": [ASKED], "completion": "6"},
        {"prompt": "And 3?", "completion": [SIX]},
        {"prompt": '[{"role": "user", "content": "And 3?"}]', "completion": '[{"role": "assistant", "content": "6"}]'},
    ],
)
def test_prompt_and_completion_may_be_lists_of_messages(row):
    assert to_messages(row, source("prompt-completion")) == TURNS
    system = [{"role": "system", "content": "Hi"}, *BEFORE, ASKED]
    assert to_messages({**row, "prompt": system}, source("prompt-completion")) == [*system, SIX]


def test_chosen_and_rejected_may_be_json_text():
    row = {"chosen": '[{"role": "user", "content": "And 3?"}, {"role": "assistant", "content": "6"}]', "rejected": "7"}
    assert to_messages(row, source("preference")) == TURNS


@pytest.mark.parametrize("name", ["context", "system"])
def test_a_column_that_is_read_and_holds_no_text_drops_the_row(name):
    with pytest.raises(RowDropped, match="a number in the") as dropped:
        to_messages({**ROWS["question-answer"], name: 3.5}, source("question-answer"))
    assert dropped.value.field == name
