import pytest

from finetuning.dataset.format_recognition import (
    check_columns,
    format_of,
    recognise,
    recognise_all,
    shortened,
    unused,
    unused_columns,
)
from finetuning.dataset.formats import to_messages
from finetuning.dataset.raw_dataset import write_raw
from finetuning.errors import FinetuningError
from finetuning.recipe.dataset import FORMAT_COLUMNS, DatasetSpec, EvalSpec, SourceSpec

WHERE = "recipes/x.yaml: dataset.sources[0]"
ROLES = [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]
FROMS = [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]
ANSWERS = [{"model": "gpt-4", "response": "5"}, {"model": "bard", "response": "6"}]


def source(**keys) -> SourceSpec:
    return SourceSpec(files=["x.jsonl"], **keys)


def recognised(row, **keys) -> str:
    return recognise(list(row), row, source(**keys), WHERE)


def mistake(row, **keys) -> str:
    with pytest.raises(FinetuningError) as error:
        recognised(row, **keys)
    return str(error.value)


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
        ({"chosen": ROLES, "rejected": ROLES, "score_chosen": 9.0}, "preference"),
        ({"prompt": "2 + 3?", "chosen": ROLES, "rejected": ROLES, "messages": ROLES}, "preference"),
        ({"messages": FROMS, "conversations": FROMS}, "sharegpt"),
        ({"messages": ROLES, "conversations": ROLES}, "messages"),
    ],
)
def test_a_format_is_recognised_by_its_columns_and_by_what_its_turns_hold(row, format):
    assert recognised(row) == format
    assert to_messages(row, source(), format)[-1] == {"role": "assistant", "content": "5"}


def test_columns_of_the_recipe_take_part():
    row = {"Problem": "2 + 3?", "Solution": "5", "prompt": "a", "completion": "b"}
    assert recognised(row, columns={"question": "Problem", "answer": "Solution"}) == "question-answer"
    assert recognised({"chat": FROMS, "messages": FROMS}, columns={"conversations": "chat"}) == "sharegpt"


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
    assert lines[-1] == "Write `format` and `columns`, which gives the format's names and then the data set's."


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
    with pytest.raises(FinetuningError, match="has no column 'chosen'; it has question, answer"):
        recognise_all(tmp_path / "raw", dataset, "x.yaml", "dpo")


def test_preferences_need_a_prompt_where_their_answers_are_texts():
    text, whole = ({"question": "2?", "chosen": a, "rejected": b} for a, b in (("2", "3"), (ROLES, ROLES)))
    named = source(format="preference")
    with pytest.raises(FinetuningError, match=r"columns\.prompt: the data set .* has no column 'prompt'"):
        format_of(list(text), text, named, WHERE)
    assert format_of(list(whole), whole, named, WHERE) == "preference"
    assert recognised(text, columns={"prompt": "question"}) == "preference"


@pytest.mark.parametrize(
    ("row", "format", "keys", "left"),
    [
        ({"question": "?", "answer": "5", "level": 1}, "question-answer", {}, ["level"]),
        ({"Problem": "?", "answer": "5"}, "question-answer", {"columns": {"question": "Problem"}}, []),
        ({"instruction": "?", "output": "5", "history": [], "system": "Hi"}, "alpaca", {}, ["history"]),
        ({"conversations": FROMS, "system": "Hi", "tools": "[]"}, "sharegpt", {}, []),
        ({"prompt": "?", "chosen": ROLES, "rejected": ROLES, "score": 1, "system": "Hi"}, "preference", {}, ["score"]),
        (
            {"messages": [{"role": "assistant", "content": "5", "reasoning_content": "…", "tool_calls": []}]},
            "messages",
            {},
            ["messages[].reasoning_content"],
        ),
    ],
)
def test_what_a_format_does_not_read_is_told(row, format, keys, left):
    assert unused(list(row), row, source(**keys), format) == left


def test_unused_columns_are_told_by_their_source(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "2 + 3?", "answer": "5", "level": "easy"}\n')
    (tmp_path / "b.jsonl").write_text('{"question": "2 + 4?", "answer": "6"}\n')
    a, b = (SourceSpec(files=[str(tmp_path / name)], format="question-answer") for name in ("a.jsonl", "b.jsonl"))
    dataset = DatasetSpec(sources=(b, a), eval=EvalSpec(fraction=0.5))
    write_raw(dataset, {"train-00": "r", "train-01": "r"}, tmp_path / "raw", api=None, file="recipes/x.yaml")
    formats = recognise_all(tmp_path / "raw", dataset, "recipes/x.yaml")
    assert unused_columns(tmp_path / "raw", dataset, formats) == {"dataset.sources[1]": ["level"]}


def test_a_row_is_shortened_in_every_direction():
    row = {"text": "x" * 1000, "list": list(range(100)), "deep": [[[[[[[[1]]]]]]]]}
    found = shortened(row)
    assert found["text"] == "x" * 200 and found["list"] == list(range(10)) and found["deep"] == [[[[["…"]]]]]
