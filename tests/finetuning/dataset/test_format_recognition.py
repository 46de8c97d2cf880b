"""A format is recognised by its columns and by what they hold; several, or a column too few, is an error."""

import json

import pytest

from finetuning.dataset.format_recognition import check_columns, format_of, recognise, recognise_all, shortened
from finetuning.dataset.formats import to_messages
from finetuning.dataset.other_formats import judgement_of
from finetuning.dataset.raw_dataset import write_raw
from finetuning.errors import FinetuningError
from finetuning.recipe.dataset import DatasetSpec, EvalSpec
from finetuning.recipe.source import SourceSpec
from tests.finetuning.dataset.recognition import ANSWERS, FROMS, ROLES, WHERE, mistake, recognised, source


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"messages": ROLES}, "messages"),
        ({"prompt": "2 + 3?", "prompt_id": "a", "messages": ROLES}, "messages"),
        ({"id": 1, "conversations": FROMS}, "sharegpt"),
        ({"instruction": "2 + 3?", "input": "", "output": "5"}, "alpaca"),
        ({"instruction": "2 + 3?", "output": "5"}, "alpaca"),
        ({"prompt": "2 + 3?", "completion": "5"}, "prompt-completion"),
        ({"question": "2 + 3?", "answer": "5", "level": 1}, "question-answer"),
        ({"prompt": "2 + 3?", "chosen": "5", "rejected": "6"}, "preference"),
        ({"prompt": "2 + 3?", "completion": "5", "label": False}, "unpaired-preference"),
        ({"prompt": ROLES, "completion": ROLES, "label": 1}, "unpaired-preference"),
        ({"messages": ROLES, "label": 0, "id": 1}, "unpaired-preference"),
        ({"conversations": FROMS, "label": "true"}, "unpaired-preference"),
        ({"messages": FROMS, "label": True}, "unpaired-preference"),
        ({"messages": json.dumps(ROLES), "conversations": FROMS, "label": True}, "unpaired-preference"),
        ({"completion": ROLES, "label": True}, "unpaired-preference"),
        ({"messages": ROLES, "label": "sums"}, "messages"),
        ({"prompt": "2 + 3?", "completion": "5", "label": "sums"}, "prompt-completion"),
        ({"instruction": "2 + 3?", "input": "", "output": "5", "text": "Below is …"}, "alpaca"),
        ({"chosen": ROLES, "rejected": ROLES, "score_chosen": 9.0}, "preference"),
        ({"prompt": "2 + 3?", "chosen": ROLES, "rejected": ROLES, "messages": ROLES}, "preference"),
        ({"messages": FROMS, "conversations": FROMS}, "sharegpt"),
        ({"messages": ROLES, "conversations": ROLES}, "messages"),
    ],
)
def test_a_format_is_recognised_by_its_columns_and_by_what_its_turns_hold(row, format):
    assert recognised(row) == format
    assert to_messages(row, source(), format)[-1] == {"role": "assistant", "content": "5"}


def test_a_conversation_is_recognised_in_json_text_whose_end_is_cut_off_and_where_it_is_null():
    for value, format in ((ROLES, "messages"), (FROMS, "sharegpt")):
        column = "messages" if format == "messages" else "conversations"
        text = json.dumps(value)
        assert recognised({"id": "1", column: text}) == recognised({column: text[:40]}) == format
        assert recognised({"id": 1, column: None}) == format


def test_columns_of_the_recipe_take_part():
    row = {"Problem": "2 + 3?", "Solution": "5", "prompt": "a", "completion": "b"}
    assert recognised(row, columns={"question": "Problem", "answer": "Solution"}) == "question-answer"
    assert recognised({"chat": FROMS, "messages": FROMS}, columns={"conversations": "chat"}) == "sharegpt"
    judged = {"chat": ROLES, "good": False, "completion": "6"}
    for name in ("messages", "completion"):
        columns = {name: "chat", "label": "good"}
        assert recognised(judged, columns=columns) == "unpaired-preference"
        named = source(format="unpaired-preference", columns=columns)
        assert format_of(list(judged), judged, named, WHERE, "kto") == "unpaired-preference"
        assert to_messages(judged, named) == ROLES and judgement_of(judged, named) is False


def test_ultrafeedback_is_recognised_with_a_model_and_without_one_the_models_are_told():
    row = {"instruction": "2 + 3?", "completions": ANSWERS}
    assert recognised(row, model="gpt-4") == "ultrafeedback"
    found = mistake(row)
    assert found.startswith(f"{WHERE}.model: missing; x.jsonl is ultrafeedback")
    assert found.endswith("The first row has gpt-4, bard.")


def test_several_formats_are_an_error_that_names_them():
    found = mistake({"question": "a", "answer": "b", "prompt": "c", "completion": "d"})
    assert found == (
        f"{WHERE}.format: x.jsonl has the columns question, answer, prompt, completion, which make it "
        "prompt-completion as well as question-answer. Write which it is, such as `format: prompt-completion`."
    )


def test_a_missing_column_of_a_named_format_is_an_error_with_what_exists_and_the_nearest():
    with pytest.raises(FinetuningError) as error:
        check_columns(["question", "answer"], source(format="question-answer", columns={"question": "qustion"}), WHERE)
    assert str(error.value) == (
        f"{WHERE}.columns.question: the data set x.jsonl has no column 'qustion'; it has question, answer; "
        "nearest is question"
    )


def test_all_missing_columns_are_told_at_once_and_optional_ones_may_miss():
    with pytest.raises(FinetuningError) as error:
        check_columns(["text"], source(format="alpaca"), WHERE)
    assert [line.split(":")[1].split(".")[-1] for line in str(error.value).splitlines()] == ["instruction", "output"]
    check_columns(["instruction", "output"], source(format="alpaca"), WHERE)
    with pytest.raises(FinetuningError, match=r"columns\.input: the data set .* has no column 'context'"):
        check_columns(["instruction", "output"], source(format="alpaca", columns={"input": "context"}), WHERE)


def test_the_formats_of_a_folder_of_raw_rows_are_told_by_the_recipe_of_today(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "2 + 3?", "answer": "5", "prompt": "2 + 4?"}\n')
    files = SourceSpec(files=[str(tmp_path / "a.jsonl")])
    dataset = DatasetSpec(sources=(files,), eval=EvalSpec(sources=(files,)))
    write_raw(dataset, {"train-00": "r", "eval-00": "r"}, tmp_path / "raw", api=None, file="recipes/x.yaml")
    formats = recognise_all(tmp_path / "raw", dataset, "recipes/x.yaml")
    assert formats == {"train-00": "question-answer", "eval-00": "question-answer"}
    today = files.model_copy(update={"format": "prompt-completion"})
    with pytest.raises(FinetuningError, match=r"^recipes/x.yaml: dataset.eval.sources\[0\].columns.completion"):
        recognise_all(
            tmp_path / "raw", DatasetSpec(sources=(files,), eval=EvalSpec(sources=(today,))), "recipes/x.yaml"
        )


def test_dpo_reads_preferences_and_nothing_else(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "2 + 3?", "answer": "5"}\n')
    dataset = DatasetSpec(sources=(SourceSpec(files=[str(tmp_path / "a.jsonl")]),))
    write_raw(dataset, {"train-00": "r"}, tmp_path / "raw", api=None, file="x.yaml")
    assert recognise_all(tmp_path / "raw", dataset, "x.yaml") == {"train-00": "question-answer"}
    with pytest.raises(FinetuningError, match=r"learns from preference, and .* has the columns question, answer:"):
        recognise_all(tmp_path / "raw", dataset, "x.yaml", "dpo")


def test_preferences_need_a_prompt_where_their_answers_are_texts():
    text, whole = ({"question": "2?", "chosen": a, "rejected": b} for a, b in (("2", "3"), (ROLES, ROLES)))
    named = source(format="preference")
    with pytest.raises(FinetuningError, match=r"columns\.prompt: the data set .* has no column 'prompt'"):
        format_of(list(text), text, named, WHERE)
    assert format_of(list(whole), whole, named, WHERE) == "preference"
    assert recognised(text, columns={"prompt": "question"}) == "preference"


def test_a_row_is_shortened_in_every_direction():
    row = {"text": "x" * 1000, "list": list(range(100)), "deep": [[[[[[[[1]]]]]]]]}
    found = shortened(row)
    assert found["text"] == "x" * 200 and found["list"] == list(range(10)) and found["deep"] == [[[[["…"]]]]]


def test_a_text_is_recognised_by_its_column_unless_a_conversation_is_there_too():
    row = {"text": "It rained.", "url": "a"}
    assert recognise(list(row), row, source(), WHERE) == "text"
    row = {"instruction": "2 + 3?", "output": "5", "text": "Below is an instruction: 2 + 3? 5"}
    assert recognise(list(row), row, source(), WHERE) == "alpaca"


@pytest.mark.parametrize(
    ("row", "plain"),
    [
        ({"prompt": "2 + 3?", "completion": "6"}, "prompt-completion"),
        ({"messages": ROLES}, "messages"),
        ({"conversations": FROMS}, "sharegpt"),
    ],
)
def test_judged_answers_are_learned_by_kto_alone(tmp_path, row, plain):
    (tmp_path / "a.jsonl").write_text(json.dumps(row | {"label": False}) + "\n")
    dataset = DatasetSpec(sources=(SourceSpec(files=[str(tmp_path / "a.jsonl")]),))
    write_raw(dataset, {"train-00": "r"}, tmp_path / "raw", api=None, file="x.yaml")
    assert recognise_all(tmp_path / "raw", dataset, "x.yaml", "kto") == {"train-00": "unpaired-preference"}
    for named in ({}, {"format": plain}):
        sources = (dataset.sources[0].model_copy(update=named),)
        with pytest.raises(
            FinetuningError, match=r"says in 'label' which answers are good .* Write training.method: kto"
        ):
            recognise_all(tmp_path / "raw", dataset.model_copy(update={"sources": sources}), "x.yaml")
    ignoring = dataset.model_copy(update={"sources": (dataset.sources[0].model_copy(update={"ignore": ("label",)}),)})
    assert recognise_all(tmp_path / "raw", ignoring, "x.yaml") == {"train-00": plain}
    (tmp_path / "a.jsonl").write_text('{"question": "2 + 3?", "answer": "5"}\n')
    write_raw(dataset, {"train-00": "r"}, tmp_path / "other", api=None, file="x.yaml")
    with pytest.raises(FinetuningError, match=r"unpaired-preference, and .* has the columns question, answer:"):
        recognise_all(tmp_path / "other", dataset, "x.yaml", "kto")


@pytest.mark.parametrize(
    "column",
    [
        *("summary", "target", "output", "answer", "sentiment", "response", "translation", "question", "instruction"),
        *("prompt", "label", "role", "parent_id", "system", "final_answer", "Summary", "tgt_text", "highlights"),
    ],
)
def test_a_text_is_not_learned_without_the_column_beside_it_unless_the_recipe_says_so(column):
    row = {"text": "It rained.", column: "x", "id": 1, "url": "a", "language": "en", "target_id": 3}
    said = mistake(row)
    assert f"would lose {column}. " in said and f"`format: text` and `ignore: [{column}]`" in said
    assert recognised(row, ignore=[column]) == "text"
    assert format_of(list(row), row, source(format="text", ignore=[column]), WHERE) == "text"
    del row[column]
    assert recognised(row) == "text"


def test_an_ignored_column_makes_no_format():
    row = {"question": "a", "answer": "b", "prompt": "c", "completion": "d"}
    assert recognised(row, ignore=["Prompt"]) == "question-answer"
