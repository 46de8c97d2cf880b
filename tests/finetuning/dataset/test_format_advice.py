"""Where no format is recognised, what the message advises can be written, and loses nothing that says something."""

import json
import re

import pytest
import yaml

from finetuning.dataset.format_recognition import format_of
from finetuning.dataset.raw_dataset import write_raw
from finetuning.dataset.unread import unread_in
from finetuning.errors import FinetuningError
from finetuning.recipe.columns import carries_meaning
from finetuning.recipe.dataset import DatasetSpec
from finetuning.recipe.source import FORMAT_COLUMNS, SourceSpec
from tests.finetuning.dataset.recognition import ANSWERS, FROMS, ROLES, WHERE, mistake, recognised, source


@pytest.mark.parametrize(
    ("row", "advice"),
    [
        (
            {"system_prompt": "s", "query": "q", "response": "r"},
            "`format: question-answer` with `columns: {question: query, answer: response}`",
        ),
        (
            {"Question": "q", "Complex_CoT": "t", "Response": "r"},
            "`format: question-answer` with `columns: {question: Question, answer: Response}`",
        ),
        (
            {"id": 1, "query": "q", "answers": [{"name": "f", "arguments": {}}], "tools": "[]"},
            "`format: question-answer` with `columns: {question: query, answer: answers}`",
        ),
        (
            {"instruction": "q", "context": "c", "response": "r", "category": "x"},
            "`format: alpaca` with `columns: {output: response}`",
        ),
        ({"id": "1", "system_prompt": "s", "question": "q", "response": "r"}, "`columns: {answer: response}`"),
    ],
)
def test_what_is_advised_drops_no_column_that_carries_meaning(row, advice):
    said = mistake(row)
    assert advice in said
    format = re.search(r"`format: ([a-z-]+)`", said)
    mapped = yaml.safe_load(re.search(r"`columns: (\{.*?\})`", said)[1])
    spec = source(format=format[1], columns=mapped)
    assert not [name for name in unread_in(row, spec, format[1]) if carries_meaning(name)]


@pytest.mark.parametrize(
    ("row", "advice"),
    [
        (
            {"Problem": "a", "Solution": "b"},
            "`format: question-answer` with `columns: {question: Problem, answer: Solution}`",
        ),
        ({"prompt": "a", "response": "b"}, "`format: prompt-completion` with `columns: {completion: response}`"),
        ({"question": "a", "chosen": "b", "rejected": "c"}, "`format: preference` with `columns: {prompt: question}`"),
        ({"query": "a", "answer": "b"}, "`format: question-answer` with `columns: {question: query}`"),
        ({"instruction": "a", "response": "b"}, "`format: alpaca` with `columns: {output: response}`"),
        ({"qestion": "a", "answer": "b"}, "`format: question-answer` with `columns: {question: qestion}`"),
        ({"conversations": ROLES}, "`format: messages` with `columns: {messages: conversations}`"),
        ({"messages": FROMS}, "`format: sharegpt` with `columns: {conversations: messages}`"),
        ({"dialogue": ROLES, "id": 1}, "`format: messages` with `columns: {messages: dialogue}`"),
        ({"user_question": "a", "model_answer": "b"}, "`columns: {question: user_question, answer: model_answer}`"),
    ],
)
def test_an_unknown_data_set_is_an_error_with_what_to_write(row, advice):
    lines = mistake(row).splitlines()
    assert lines[0] == f"{WHERE}.format: x.jsonl has the columns {', '.join(row)}, and no format has them:"
    assert len(lines) == len(FORMAT_COLUMNS) + 2 and advice in lines[-1]


def test_what_is_advised_is_taken():
    row = {"Problem": "2 + 3?", "Solution": "5"}
    named = source(format="question-answer", columns={"question": "Problem", "answer": "Solution"})
    assert format_of(list(row), row, named, WHERE) == "question-answer"
    assert recognised({"conversations": ROLES}, columns={"messages": "conversations"}) == "messages"


@pytest.mark.parametrize("keys", [{"input": "a", "output": "b"}, {"input": "a", "target": "b"}])
def test_input_and_output_are_taken_for_a_question_and_an_answer(keys):
    question, answer = keys
    assert f"columns: {{prompt: {question}, completion: {answer}}}" in mistake(keys) or (
        f"columns: {{question: {question}, answer: {answer}}}" in mistake(keys)
    )


def test_a_data_set_that_is_like_nothing_gets_the_formats_the_nearest_first():
    lines = mistake({"answer": "a", "picture": 1}).splitlines()
    assert lines[1] == "  question-answer lacks question"
    assert "  messages lacks messages" in lines and "  ultrafeedback lacks instruction, completions" in lines
    assert mistake({"completions": ANSWERS, "id": 1}).splitlines()[1] == "  ultrafeedback lacks instruction"
    assert lines[-1].startswith("Write `format` and `columns`, which gives the format's names and then the data set's")


def test_a_text_and_its_column_are_advised_as_question_and_answer():
    assert "`columns: {question: text, answer: summary}`" in mistake({"text": "a", "summary": "b"})
    assert "`columns: {question: prompt, answer: text}`" in mistake({"text": "a", "prompt": "b"})
    assert "one row of `messages`" in mistake({"text": "a", "role": "prompter", "parent_id": "b", "message_id": "c"})


ASKED_TURNS, SAID_TURNS = ROLES[:1], ROLES[1:]


@pytest.mark.parametrize(
    ("row", "advice"),
    [
        ({"input_text": "a", "output_text": "b"}, "question-answer` with `columns: {question: input_text, answer: out"),
        ({"source_text": "a", "target_text": "b"}, "{question: source_text, answer: target_text}"),
        ({"prompt_text": "a", "answer_text": "b"}, "{question: prompt_text, answer: answer_text}"),
        ({"inputs": "a", "targets": "b", "language": "x"}, "{question: inputs, answer: targets}"),
        ({"human": "a", "gpt": "b"}, "{question: human, answer: gpt}"),
        (
            {"input": ASKED_TURNS, "output": "b", "reasoning": "c", "system_prompt": "d", "category": "e"},
            "`format: question-answer` with `columns: {question: input, answer: output}`",
        ),
        (
            {"input": {"messages": ASKED_TURNS}, "preferred_output": SAID_TURNS, "non_preferred_output": SAID_TURNS},
            "`format: preference` with `columns: {prompt: input, chosen: preferred_output, rejected: non_preferred_ou",
        ),
        (
            {"question": "a", "chosen_answer": "b", "rejected_answer": "c"},
            "`columns: {prompt: question, chosen: chosen_answer, rejected: rejected_answer}`",
        ),
        (
            {"conversations": FROMS[:1], "chosen": FROMS[1], "rejected": FROMS[1]},
            "`format: preference` with `columns: {prompt: conversations}`",
        ),
    ],
)
def test_no_column_that_says_something_is_left_out_of_what_is_advised(row, advice):
    assert advice in mistake(row)


@pytest.mark.parametrize(
    "row",
    [
        {"content": "It rained.", "body": "It rained all day."},
        {"text_in": "It rained.", "remark": "It rained all day."},
        {"dialogue": ROLES, "summary": "A sum."},
        {"chat": FROMS, "notes": "What this chat is of."},
    ],
)
def test_one_column_is_not_advised_while_another_one_holds_text(row):
    said = mistake(row).splitlines()[-1]
    assert not re.search(r"columns: \{(text|messages|conversations):", said)


def test_columns_that_no_format_reads_are_named_beside_the_advice():
    said = mistake({"problem": "a", "solution": "b", "answer": "c"})
    assert "`columns: {question: problem}`" in said and "It does not read solution; `ignore: [solution]`" in said


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"content": "It rained."}, "`format: text` with `columns: {text: content}`"),
        ({"en": "Yes.", "fr": "Oui."}, "`columns: {question: en, answer: fr}`"),
        ({"article": "It rained.", "highlights": "Rain."}, "`columns: {question: article, answer: highlights}`"),
        ({"translation": {"en": "Yes.", "fr": "Oui."}}, "translation has records with the keys en, fr"),
        ({"conversation": [{"input": "a", "output": "b"}]}, "conversation has records with the keys input, output"),
    ],
)
def test_where_no_format_is_near_an_example_says_how_columns_are_written(row, said):
    assert said in mistake(row).splitlines()[-1]


@pytest.mark.parametrize(
    ("method", "row", "advice"),
    [
        (
            "dpo",
            {"question": "a", "chosen_answer": "c", "rejected_answer": "d"},
            "{prompt: question, chosen",
        ),
        ("kto", {"query": "a", "response": "b", "label": True}, "{prompt: query, completion: response}"),
        ("kto", {"messages": ROLES, "rating": 4}, "or add what is missing"),
        ("kto", {"chat": ROLES, "label": True}, "`format: unpaired-preference` with `columns: {messages: chat}`"),
        ("kto", {"dialog": FROMS, "kto_tag": True}, "{conversations: dialog, label: kto_tag}"),
    ],
)
def test_a_method_that_learns_from_one_format_says_what_that_one_lacks(tmp_path, method, row, advice):
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    dataset = DatasetSpec(sources=(SourceSpec(files=[str(tmp_path / "a.jsonl")]),))
    with pytest.raises(FinetuningError, match=f"training.method: {method} learns from ") as error:
        write_raw(dataset, {"train-00": "r"}, tmp_path / "raw", api=None, file="x.yaml", method=method)
    assert advice in str(error.value) and len(str(error.value).splitlines()) == 3


def advised(row) -> dict:
    """What the message advises, read as a recipe is."""
    return {
        key: yaml.safe_load(found) for key, found in re.findall(r"(columns|ignore): ([{\[].*?[}\]])`", mistake(row))
    }


LONG = "answer " + "as it was given by who knows " * 4


@pytest.mark.parametrize(
    "answer", [" answer", "#answer", "answer: text", "answer, en", "[answer]", LONG.strip(), "answer'"]
)
def test_a_strange_name_is_advised_as_yaml_reads_it(answer):
    found = advised({"Problem": "2 + 3 = ?", answer: "It is 5."})
    assert found["columns"] == {"question": "Problem", "answer": answer}


SQUAD = {
    "id": "1",
    "title": "Oslo",
    "context": "Oslo is cold.",
    "question": "How is it?",
    "answers": {"text": ["cold"]},
}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (SQUAD, "answers holds records or a list"),
        ({"prompt": "2 + 3?", "answers": [{"answer": "5"}], "turns": 1}, "answers holds records or a list"),
        ({"system": "Be kind.", "chat": "USER: 2 + 3? ASSISTANT: 5 USER: Sure? ASSISTANT: Yes"}, "go into `ignore`"),
        ({"custom_id": "r-1", "method": "POST", "url": "/v1", "body": {"messages": []}}, "`columns`"),
        ({"Timestamp": "1 May", "Where?": "At home", "When?": "In May", "Who?": "A friend"}, "go into `ignore`"),
    ],
)
def test_no_example_pairs_what_is_no_question_and_answer(row, told):
    said = mistake(row)
    assert told in said and "such as" not in said


@pytest.mark.parametrize(
    "text",
    [
        "[{'role': 'user', 'content': '2 + 3?'}, {'role': 'assistant', 'content': '5'}]",
        "[{'from': 'human', 'value': '2 + 3?'}\n {'from': 'gpt', 'value': '5'}]",
        "{'messages': []}",
    ],
)
def test_a_list_as_python_shows_it_is_told_and_never_learned_as_it_is(text):
    said = mistake({"messages": text})
    assert "no JSON" in said and "json.dumps" in said and "format: text" not in said
