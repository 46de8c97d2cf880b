"""Columns and keys that are not read, over all rows: those that carry meaning stop the run, others are told."""

import doctest
import json

import pytest

from finetuning.dataset import unread
from finetuning.dataset.format_recognition import recognise_all
from finetuning.dataset.raw_dataset import write_raw
from finetuning.dataset.unread import unread_by_source, unread_in
from finetuning.errors import FinetuningError
from finetuning.recipe.dataset import DatasetSpec
from finetuning.recipe.source import SourceSpec

ROLES = [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]
MOODY = [{**ROLES[0], "mood": "curious"}, ROLES[1]]
FROMS = [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]


def source(**keys) -> SourceSpec:
    return SourceSpec(files=["x.jsonl"], **keys)


def found_in(tmp_path, rows, **keys):
    """What is not read of all those rows."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = DatasetSpec(sources=(SourceSpec(files=[str(path)], **keys),))
    write_raw(dataset, {"train-00": "r"}, tmp_path / "raw", api=None, file="recipes/x.yaml")
    formats = recognise_all(tmp_path / "raw", dataset, "recipes/x.yaml")
    return unread_by_source(tmp_path / "raw", dataset, formats, "recipes/x.yaml")


def mistake(tmp_path, rows, **keys) -> str:
    with pytest.raises(FinetuningError) as error:
        found_in(tmp_path, rows, **keys)
    return str(error.value)


def test_the_examples_in_the_docstrings_are_right():
    found = doctest.testmod(unread)
    assert found.attempted >= 1 and found.failed == 0


@pytest.mark.parametrize(
    ("row", "format", "keys", "left"),
    [
        ({"question": "?", "answer": "5", "level": 1}, "question-answer", {}, ["level"]),
        ({"Problem": "?", "answer": "5"}, "question-answer", {"columns": {"question": "Problem"}}, []),
        ({"instruction": "?", "output": "5", "history": [], "system": "Hi"}, "alpaca", {}, []),
        ({"conversations": FROMS, "system": "Hi", "tools": "[]"}, "sharegpt", {}, []),
        ({"prompt": "?", "chosen": ROLES, "rejected": ROLES, "score": 1, "system": "Hi"}, "preference", {}, ["score"]),
        ({"messages": [{**ROLES[1], "reasoning_content": "…", "tool_calls": []}]}, "messages", {}, []),
        ({"messages": [{**ROLES[0], "reasoning": "…"}]}, "messages", {}, ["messages[].reasoning"]),
        ({"messages": json.dumps([{**ROLES[0], "images": ["a.png"]}])}, "messages", {}, ["messages[].images"]),
        ({"messages": [{"role": "user", "images": ["a.png"]}]}, "messages", {}, ["messages[].images"]),
        ({"conversations": [{**FROMS[1], "weight": 0.5}]}, "sharegpt", {}, ["conversations[].weight"]),
        (
            {"prompt": [ROLES[0]], "completion": [{**ROLES[1], "mood": "x"}]},
            "prompt-completion",
            {},
            ["completion[].mood"],
        ),
        ({"question": "?", "answer": "5", "context": "a", "input": "b"}, "question-answer", {}, ["input"]),
        ({"question": "?", "answer": "5", "context": "", "input": "b"}, "question-answer", {}, []),
        ({"question": "?", "answer": "5", "label": None, "images": [], "weight": " "}, "question-answer", {}, []),
        ({"question": "?", "answer": "5", "label": 1}, "question-answer", {"ignore": ("Label",)}, []),
        ({"messages": MOODY, "label": 1, "id": 3}, "unpaired-preference", {}, ["id", "messages[].mood"]),
        ({"chat": MOODY, "label": 1}, "unpaired-preference", {"columns": {"messages": "chat"}}, ["chat[].mood"]),
        ({"prompt": "?", "completion": "5", "messages": MOODY}, "unpaired-preference", {}, ["messages"]),
    ],
)
def test_what_a_format_does_not_read_is_told(row, format, keys, left):
    assert unread_in(row, source(**keys), format) == left


@pytest.mark.parametrize(
    "column",
    [
        *("label", "weight", "train", "Label", "images", "audio", "function_call", "choices", "sql_context"),
        *("deepseek_thinking_trajectory", "instruction"),
    ],
)
def test_a_column_that_carries_meaning_stops_the_run_wherever_it_first_is(tmp_path, column):
    rows = [{"question": f"{n}?", "answer": "5", "id": n, **({column: "x"} if n == 150 else {})} for n in range(160)]
    said = mistake(tmp_path, rows)
    assert said.startswith("recipes/x.yaml: dataset.sources[0]: ") and "question-answer does not read it" in said
    assert f"\n  {column}: 1 row, the first at {tmp_path}/a.jsonl:151\n" in said
    assert f"Write `ignore: [{column}]`" in said and "id:" not in said
    left = found_in(tmp_path, rows, ignore=[column])["dataset.sources[0]"]
    assert {name: count.rows for name, count in left.items()} == {"id": 160}


def test_a_weight_that_is_no_choice_stops_the_run_with_what_to_write(tmp_path):
    rows = [{"messages": [ROLES[0], {**ROLES[1], "weight": 0.5 if n > 120 else 1}]} for n in range(130)]
    said = mistake(tmp_path, rows)
    assert "messages[].weight: 9 rows" in said and "neither 0 nor 1" in said and "`ignore: [weight]`" in said
    assert found_in(tmp_path, rows, ignore=["weight"]) == {}


def test_all_sources_and_columns_are_told_at_once(tmp_path):
    first, second = ({"question": "2?", "answer": "5", column: "x"} for column in ("label", "images"))
    for name, row in (("a", first), ("b", {**second, "weight": 2})):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    sources = tuple(SourceSpec(files=[str(tmp_path / f"{name}.jsonl")]) for name in "ab")
    dataset = DatasetSpec(sources=sources)
    write_raw(dataset, {"train-00": "r", "train-01": "r"}, tmp_path / "raw", api=None, file="x.yaml")
    formats = recognise_all(tmp_path / "raw", dataset, "x.yaml")
    with pytest.raises(FinetuningError) as error:
        unread_by_source(tmp_path / "raw", dataset, formats, "x.yaml")
    said = str(error.value)
    assert all(word in said for word in ("sources[0]", "sources[1]", "[label]", "[images, weight]"))


def test_columns_without_a_meaning_are_told_and_no_more(tmp_path):
    rows = [{"question": f"{n}?", "answer": "5", "source": "web", "category": "x"} for n in range(3)]
    (left,) = found_in(tmp_path, rows).values()
    assert {name: (count.rows, count.place[-1]) for name, count in left.items()} == {
        "source": (3, "1"),
        "category": (3, "1"),
    }


@pytest.mark.parametrize(
    "column", ["document", "article", "Paragraph", "evidence", "schema", "ctx", "knowledge", "text", "documents"]
)
def test_what_a_question_is_asked_of_stops_the_run_with_where_it_is_read(tmp_path, column):
    rows = [{"question": f"{n}?", "answer": "It is 5.", column: "Oslo, 4 degrees"} for n in range(3)]
    said = mistake(tmp_path, rows)
    assert f"\n  {column}: 3 rows" in said and f"`ignore: [{column}]`" in said
    assert column == "documents" or f"`columns: {{context: {column}}}`" in said
    assert found_in(tmp_path, rows, columns={"context": column}) == {}
    assert found_in(tmp_path, rows, ignore=[column]) == {}


def test_a_text_that_was_made_of_the_other_columns_is_no_loss(tmp_path):
    rows = [{"instruction": f"{n}?", "output": "It is 5.", "text": f"Below: {n}? It is 5."} for n in range(3)]
    assert list(found_in(tmp_path, rows)["dataset.sources[0]"]) == ["text"]


@pytest.mark.parametrize("key", ["train_detail", "masked", "is_training", "tool_plan", "refusal", "loss_mask"])
def test_keys_of_other_trainers_stop_the_run(tmp_path, key):
    rows = [{"messages": [ROLES[0], {**ROLES[1], key: "x"}]}] * 2
    assert f"messages[].{key}: 2 rows" in mistake(tmp_path, rows)


def test_arguments_of_the_template_in_a_row_stop_the_run_with_where_the_recipe_has_them(tmp_path):
    said = mistake(tmp_path, [{"messages": ROLES, "chat_template_kwargs": {"enable_thinking": True}}])
    assert "chat_template_kwargs: 1 row" in said and "`chat.template_kwargs` of the recipe" in said


@pytest.mark.parametrize("value", ["on", "Off", "yes", "no", "true", "low", "medium", "HIGH", True, False])
@pytest.mark.parametrize("column", ["reasoning", "thinking", "messages[].reasoning_content"])
def test_a_setting_is_not_taken_for_a_thought(tmp_path, column, value):
    row = {"question": "2 + 3?", "answer": "5", column: value}
    if "[]" in column:
        row = {"messages": [ROLES[0], {**ROLES[1], "reasoning_content": value}]}
    said = mistake(tmp_path, [row, row])
    key = column.rpartition(".")[2]
    assert f": {column} is read as what was thought" in said and f"`ignore: [{key}]`" in said and "2 rows" in said
    assert found_in(tmp_path, [row, row], ignore=[key]) == {}


def test_one_short_thought_of_several_is_one(tmp_path):
    rows = [{"question": f"{n}?", "answer": "5", "reasoning": "Yes" if n == 1 else "2 + 3 = 5"} for n in range(3)]
    assert found_in(tmp_path, rows) == {}


@pytest.mark.parametrize(("name", "near"), [("contxt", "context"), ("wieght", "weight"), ("id", None)])
def test_what_no_row_has_cannot_be_ignored(tmp_path, name, near):
    rows = [{"messages": [ROLES[0], {**ROLES[1], "weight": 1}], "context": "c"}]
    said = mistake(tmp_path, rows, ignore=[name, "context"])
    assert said.startswith("recipes/x.yaml: dataset.sources[0].ignore: no row of ") and repr(name) in said
    assert near is None or said.endswith(f"nearest is {near}")


def test_what_a_text_has_no_place_for_is_not_offered_one(tmp_path):
    said = mistake(tmp_path, [{"text": "It rained.", "images": ["a.png"]}], format="text")
    assert "`ignore: [images]`" in said and "maps a column" not in said


def test_a_weight_of_a_part_stops_the_run_as_that_of_a_turn_does(tmp_path):
    parts = [{"type": "text", "text": "BAD ", "weight": 0}, {"type": "text", "text": "5", "weight": 1}]
    rows = [{"messages": [ROLES[0], {"role": "assistant", "content": parts}]}] * 3
    said = mistake(tmp_path, rows)
    assert "messages[].content[].weight: 3 rows" in said and "`ignore: [weight]`" in said


def test_and_is_left_out_where_the_recipe_ignores_it(tmp_path):
    parts = [{"type": "text", "text": "5", "weight": 1}]
    rows = [{"messages": [ROLES[0], {"role": "assistant", "content": parts}]}] * 3
    assert found_in(tmp_path, rows, ignore=["weight"]) == {}


@pytest.mark.parametrize(
    "column",
    [
        *("model_reasoning", "model_context", "source_image", "solution", "tool_schemas", "loss_weights"),
        *("desirable", "is_correct"),
    ],
)
def test_a_column_with_a_meaning_stops_the_run_beside_a_question_and_an_answer(tmp_path, column):
    said = mistake(tmp_path, [{"question": "2 + 3?", "answer": "5", column: "something"}] * 3)
    assert f"{column}: 3 rows" in said


@pytest.mark.parametrize(
    "column", ["reasoning_model", "context_length", "num_tools", "system_fingerprint", "tool_count"]
)
def test_a_figure_or_name_of_one_does_not(tmp_path, column):
    assert found_in(tmp_path, [{"question": "2 + 3?", "answer": "5", column: "something"}] * 3)


@pytest.mark.parametrize("key", ["train_on_turn", "no_loss"])
def test_a_key_of_turns_that_decides_what_is_learned_stops_the_run(tmp_path, key):
    assert f"messages[].{key}: 3 rows" in mistake(tmp_path, [{"messages": [ROLES[0], {**ROLES[1], key: False}]}] * 3)
