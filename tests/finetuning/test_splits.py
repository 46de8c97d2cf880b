import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetuning.recipe import DatasetSpec, EvalSpec, SourceSpec
from finetuning.splits import Split, split_conversations

FILES = SourceSpec(files=["rows.jsonl"], format="question-answer")


def raw(folder: Path, **files: list[tuple[str, str]]) -> Path:
    """A folder of raw files with those questions and answers."""
    folder.mkdir(exist_ok=True)
    for stem, pairs in files.items():
        rows = [{"question": question, "answer": answer} for question, answer in pairs]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{stem.replace('_', '-')}.parquet")
    return folder


def numbered(count: int, start: int = 0) -> list[tuple[str, str]]:
    return [(f"question {n}", f"answer {n}") for n in range(start, start + count)]


def by_fraction(fraction: float, seed: int = 42, sources: int = 1) -> DatasetSpec:
    return DatasetSpec(sources=(FILES,) * sources, eval=EvalSpec(fraction=fraction), seed=seed)


def prompts(rows) -> list[str]:
    return [json.dumps(row.messages[:-1]) for row in rows]


def places(split: Split) -> tuple[list[str], list[str]]:
    return [row.place for row in split.train], [row.place for row in split.eval]


@pytest.mark.parametrize(("fraction", "rows"), [(0.05, 10), (0.1, 20), (0.5, 100), (0.001, 1)])
def test_eval_has_its_fraction_of_the_rows_and_one_at_least(tmp_path, fraction, rows):
    split = split_conversations(raw(tmp_path, train_00=numbered(200)), by_fraction(fraction))
    assert (len(split.train), len(split.eval)) == (200 - rows, rows)


def test_a_prompt_with_several_answers_is_in_one_split_alone(tmp_path):
    pairs = [(f"question {n % 20}", f"answer {n}") for n in range(200)]
    split = split_conversations(raw(tmp_path, train_00=pairs), by_fraction(0.1))
    assert not set(prompts(split.train)) & set(prompts(split.eval))
    assert len(split.eval) == 20 and len(set(prompts(split.eval))) == 2
    assert len(split.train) + len(split.eval) == 200


def test_the_same_question_under_another_system_prompt_is_another_prompt(tmp_path):
    other = FILES.model_copy(update={"system": "Be brief."})
    dataset = DatasetSpec(sources=(FILES, other), eval=EvalSpec(fraction=0.5))
    split = split_conversations(raw(tmp_path, train_00=numbered(1), train_01=numbered(1)), dataset)
    assert len(split.train) == len(split.eval) == 1


def test_a_train_row_whose_prompt_is_in_the_eval_sources_is_dropped(tmp_path):
    folder = raw(tmp_path, train_00=numbered(10), eval_00=[("question 3", "told otherwise"), ("question 99", "a")])
    split = split_conversations(folder, DatasetSpec(sources=(FILES,), eval=EvalSpec(sources=(FILES,))))
    assert sorted(place for place in places(split)[1]) == ["eval-00.parquet:0", "eval-00.parquet:1"]
    assert "train-00.parquet:3" not in places(split)[0] and len(split.train) == 9
    assert split.dropped.records() == [{"reason": "also in eval", "rows": 1, "example": "train-00.parquet:3"}]


def test_the_seed_decides_split_and_order(tmp_path):
    folder = raw(tmp_path, train_00=numbered(100))
    first = places(split_conversations(folder, by_fraction(0.2)))
    assert places(split_conversations(folder, by_fraction(0.2))) == first
    other = places(split_conversations(folder, by_fraction(0.2, seed=43)))
    assert set(other[1]) != set(first[1])
    assert other[0] != first[0]


def test_sources_are_mixed(tmp_path):
    folder = raw(tmp_path, train_00=numbered(100), train_01=numbered(100, start=500))
    order, _ = places(split_conversations(folder, by_fraction(0.05, sources=2)))
    second = [place.startswith("train-01") for place in order]
    assert 20 < sum(second[:95]) < 75
    assert order != sorted(order)


def test_a_few_more_rows_leave_the_split_of_the_others_nearly_as_it_was(tmp_path):
    before = split_conversations(raw(tmp_path / "a", train_00=numbered(200)), by_fraction(0.1))
    after = split_conversations(raw(tmp_path / "b", train_00=numbered(210)), by_fraction(0.1))
    assert len(set(prompts(before.eval)) & set(prompts(after.eval))) >= 17


def test_every_row_is_in_train_in_eval_or_dropped_with_its_reason_and_first_place(tmp_path):
    pairs = numbered(1500)
    for number in (5, 1200, 1300):
        pairs[number] = (f"question {number}", " ")
    pairs[7] = ("", "answer")
    split = split_conversations(raw(tmp_path, train_00=pairs), by_fraction(0.1))
    assert split.dropped.records() == [
        {"reason": "empty answer", "rows": 3, "example": "train-00.parquet:5"},
        {"reason": "empty user turn", "rows": 1, "example": "train-00.parquet:7"},
    ]
    assert len(split.train) + len(split.eval) == 1496
    found = {row.place: row.messages for row in split.train + split.eval}
    assert len(found) == 1496
    assert found["train-00.parquet:1400"][0]["content"] == "question 1400"
