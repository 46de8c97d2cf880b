"""Rows of each format give the same turns, pairs and tools, as the recipe names their columns."""

import doctest
import json

import pytest

from finetuning.dataset import formats, other_formats
from finetuning.dataset.formats import FORMATS, to_messages, to_pair, tools_of
from finetuning.dataset.other_formats import looks_like_turns
from finetuning.dataset.row_faults import NotChosen, RowDropped
from finetuning.recipe.source import FORMAT_COLUMNS, SourceSpec
from tests.finetuning.dataset.turns import ASKED, CALLS, FIVE, SIX, source, turns


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


BRIEF, QUESTION = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 3?"}
WRONG, SURE = {"role": "assistant", "content": "6"}, {"role": "user", "content": "Sure?"}
GOOD, BAD = {"role": "assistant", "content": "5"}, {"role": "assistant", "content": "7"}


@pytest.mark.parametrize(
    ("prompt", "before"),
    [
        ([BRIEF, QUESTION], [BRIEF, QUESTION]),
        ([QUESTION, WRONG, SURE], [QUESTION, WRONG, SURE]),
        ([QUESTION, WRONG], [QUESTION, WRONG, SURE]),
        ([BRIEF], [BRIEF, SURE]),
        ("Sure?", [SURE]),
        (" Sure?\n", [SURE]),
        ("Human: Sure?\n\nAssistant:", [SURE]),
    ],
)
def test_no_turn_of_a_prompt_is_lost_beside_a_whole_conversation(prompt, before):
    last = before[-1]
    row = {"prompt": prompt, "chosen": [last, GOOD], "rejected": [last, BAD]}
    chosen, rejected = to_pair(row, source("preference"))
    assert (chosen, rejected) == ([*before, GOOD], [*before, BAD])
    judged = {"prompt": prompt, "completion": [last, GOOD], "label": True}
    assert to_messages(judged, source("unpaired-preference")) == [*before, GOOD]


def test_a_text_that_nobody_says_in_the_conversation_is_a_reason_to_drop_it():
    row = {"prompt": "Document: a long one", "completion": [SURE, GOOD], "label": True}
    with pytest.raises(RowDropped, match="a whole conversation that the prompt is not in"):
        to_messages(row, source("unpaired-preference"))


@pytest.mark.parametrize("instruction", ["", " \n"])
def test_an_input_without_an_instruction_is_the_question(instruction):
    row = {"instruction": instruction, "input": "2 + 3?", "output": "5"}
    assert to_messages(row, source("alpaca")) == [QUESTION, GOOD]
