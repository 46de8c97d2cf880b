"""Questions of an exam that were learned elsewhere are found, however they are written."""

from datasets import Dataset

from finetuning.checks.seen_rows import seen_rows


def data_set(folder, **splits):
    """Rows of one question each, by split."""
    for split, questions in splits.items():
        rows = [
            {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": "!"}], "place": place}
            for place, asked in questions.items()
        ]
        Dataset.from_list(rows).to_parquet(str(folder / f"{split}.parquet"))
    return folder


def test_a_question_that_was_learned_is_found_in_train_and_dev(tmp_path):
    exam = data_set(tmp_path / "exam", eval={"a:1": "1 + 1?", "a:2": "Who  is it?", "a:3": "New"}, train={"a:4": "x"})
    other = data_set(tmp_path / "other", train={"b:1": "who is IT?"}, dev={"b:2": "1 + 1?"}, eval={"b:3": "New"})
    assert seen_rows(exam, other) == ["a:1", "a:2"]
    assert seen_rows(exam, exam) == []


def test_turns_are_one_question_and_texts_are_one_too(tmp_path):
    def turns(*said):
        return [{"role": role, "content": text} for role, text in said]

    one = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    rows = [
        {"messages": turns(*one), "place": "1"},
        {"messages": turns(("user", "c"), ("assistant", "d")), "place": "2"},
        {"messages": turns(("text", "A text")), "place": "3"},
    ]
    for name, kept in {"exam": rows, "other": [rows[0], rows[2]]}.items():
        (tmp_path / name).mkdir()
        for split in ("eval", "train"):
            Dataset.from_list(kept).to_parquet(str(tmp_path / name / f"{split}.parquet"))
    assert seen_rows(tmp_path / "exam", tmp_path / "other") == ["1", "3"]
