import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetuning.errors import FinetuningError
from finetuning.recipe import DatasetSpec, EvalSpec, SourceSpec
from finetuning.sources import read, write_raw
from finetuning.splits import split_conversations

WHERE = "recipes/x.yaml: dataset.sources[0]"
ROWS = [{"question": f"{n} + 1?", "answer": f"#### {n + 1}"} for n in range(20)]


def source(*paths, **keys) -> SourceSpec:
    return SourceSpec(files=[str(path) for path in paths], **{"format": "question-answer", **keys})


def rows_of(spec: SourceSpec, seed: int = 42, stream: str = "train-00") -> list[dict]:
    return read(spec, revision="any", seed=seed, stream=stream, api=None, where=WHERE).to_list()


def mistake(spec: SourceSpec) -> str:
    with pytest.raises(FinetuningError) as error:
        rows_of(spec)
    return str(error.value)


def as_jsonl(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_csv(rows, path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_each_kind_of_file_gives_the_same_rows(tmp_path):
    (tmp_path / "a.jsonl").write_text(as_jsonl(ROWS))
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    as_csv(ROWS, tmp_path / "a.csv")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    for kind in ("jsonl", "json", "csv"):
        (tmp_path / f"b.{kind}.gz").write_bytes(gzip.compress((tmp_path / f"a.{kind}").read_bytes()))
    for name in ("a.jsonl", "a.json", "a.csv", "a.parquet", "b.jsonl.gz", "b.json.gz", "b.csv.gz"):
        assert rows_of(source(tmp_path / name)) == ROWS, name


def test_files_come_in_the_order_of_the_patterns_and_of_their_names(tmp_path):
    for name, rows in (("b", ROWS[5:10]), ("a", ROWS[:5]), ("c", ROWS[10:])):
        (tmp_path / f"{name}.jsonl").write_text(as_jsonl(rows))
    assert rows_of(source(tmp_path / "*.jsonl")) == ROWS
    assert rows_of(source(tmp_path / "c.jsonl", tmp_path / "*.jsonl")) == ROWS[10:] + ROWS[:10]


def test_values_of_a_csv_file_stay_the_text_that_they_are(tmp_path):
    rows = [{"question": "NA", "answer": "05"}, {"question": "", "answer": "1.0"}, {"question": "a,\nb", "answer": "5"}]
    as_csv(rows, tmp_path / "a.csv")
    assert rows_of(source(tmp_path / "a.csv")) == rows


def test_a_changed_file_is_read_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(as_jsonl(ROWS[:3]))
    assert rows_of(source(path)) == ROWS[:3]
    path.write_text(as_jsonl(ROWS[3:7]))
    assert rows_of(source(path)) == ROWS[3:7]


def test_some_rows_are_drawn_by_the_seed_without_repetition(tmp_path):
    (tmp_path / "a.jsonl").write_text(as_jsonl(ROWS))
    drawn = rows_of(source(tmp_path / "a.jsonl", rows=8))
    questions = {row["question"] for row in drawn}
    assert len(drawn) == len(questions) == 8 and questions <= {row["question"] for row in ROWS}
    assert rows_of(source(tmp_path / "a.jsonl", rows=8)) == drawn
    assert rows_of(source(tmp_path / "a.jsonl", rows=8), seed=43) != drawn
    assert drawn != ROWS[:8]


def test_more_rows_than_there_are_is_an_error_with_both_numbers(tmp_path):
    (tmp_path / "a.jsonl").write_text(as_jsonl(ROWS))
    found = mistake(source(tmp_path / "a.jsonl", rows=21))
    assert found.startswith(f"{WHERE}.rows: 21 rows are asked for") and "has 20" in found


def test_generated_rows_follow_seed_and_stream():
    spec = SourceSpec(generator="linear-equations", rows=50, format="question-answer")
    rows = rows_of(spec)
    assert len(rows) == 50 and rows == rows_of(spec)
    assert rows[0].keys() == {"Problem", "Solution"}
    assert rows != rows_of(spec, seed=43)
    assert rows != rows_of(spec, stream="eval-00") != rows_of(spec, stream="train-01")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": 2\n{"a": 3}\n', "line 2: Expecting ',' delimiter at character 8"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n\n{"a": 2\n'), "line 3: Expecting ',' delimiter"),
        ("a.jsonl", '{"a": 1}\n7\n', "line 2: 7 is no JSON object"),
        ("a.json", '[{"a": 1},\n{"a": 2]', "line 2: Expecting ',' delimiter"),
        ("a.csv", "a,b\n1,2\n3,4,5\n", "Expected 2 fields in line 3, saw 3"),
        ("a.csv", "a,b\n", "it holds no rows"),
        ("a.jsonl", "\n \n", "it is empty"),
        ("a.jsonl", "", "is empty. Fill it, or leave it out"),
        ("a.parquet", "no parquet", "can not be read"),
        ("a.csv.gz", "no gzip", "can not be read"),
        ("a.txt", "text", "is of no kind that can be read; its name must end in .jsonl, .json, .csv, .parquet"),
    ],
)
def test_a_file_that_can_not_be_read_is_an_error_with_its_name_and_the_place_in_it(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = mistake(source(path))
    assert found.startswith(f"{WHERE}.files: {path} ") and words in found


def test_among_many_files_the_broken_one_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(as_jsonl(ROWS))
    (tmp_path / "b.jsonl").write_text('{"question": "1"\n')
    (tmp_path / "c.jsonl").write_text(as_jsonl(ROWS))
    assert f"files: {tmp_path}/b.jsonl can not be read: line 1: Expecting" in mistake(source(tmp_path / "*.jsonl"))


def test_files_with_other_columns_or_of_other_kinds_do_not_go_together(tmp_path):
    (tmp_path / "a.jsonl").write_text(as_jsonl(ROWS))
    (tmp_path / "b.jsonl").write_text('{"other": "1"}\n')
    assert "column names don't match" in mistake(source(tmp_path / "*.jsonl"))
    as_csv(ROWS, tmp_path / "c.csv")
    assert "are of several kinds" in mistake(source(tmp_path / "a.jsonl", tmp_path / "c.csv"))


def write(dataset: DatasetSpec, folder, revisions=None):
    revisions = revisions or {"train-00": "r0", "train-01": "r1", "eval-00": "e0"}
    return write_raw(dataset, revisions, folder, api=None, file="recipes/x.yaml")


def test_each_source_becomes_a_file_and_is_told_of(tmp_path):
    (tmp_path / "a.jsonl").write_text(as_jsonl(ROWS))
    generated = SourceSpec(
        generator="linear-equations",
        rows=7,
        format="question-answer",
        columns={"question": "Problem", "answer": "Solution"},
    )
    files = source(tmp_path / "a.jsonl")
    summary = write(DatasetSpec(sources=(files, generated), eval=EvalSpec(sources=(generated,))), tmp_path / "raw")
    assert summary["rows"] == 34
    assert summary["sources"] == [
        {"source": f"{tmp_path}/a.jsonl", "revision": "r0", "rows": 20, "split": "train"},
        {"source": "linear-equations", "revision": "r1", "rows": 7, "split": "train"},
        {"source": "linear-equations", "revision": "e0", "rows": 7, "split": "eval"},
    ]
    assert summary["preview"] == ROWS[:5]
    names = sorted(path.name for path in (tmp_path / "raw").iterdir())
    assert names == ["eval-00.parquet", "train-00.parquet", "train-01.parquet"]
    assert pq.read_table(tmp_path / "raw/train-00.parquet").to_pylist() == ROWS


def test_long_text_is_cut_in_the_preview_alone(tmp_path):
    rows = [{"question": "q" * 1000, "answer": "a", "list": [{"key": "v" * 1000}], "number": 7, "nothing": None}]
    (tmp_path / "a.jsonl").write_text(as_jsonl(rows))
    dataset = DatasetSpec(sources=(source(tmp_path / "a.jsonl"),))
    preview = write(dataset, tmp_path / "raw")["preview"][0]
    assert preview["question"] == "q" * 199 + "…" and len(preview["list"]) == 200
    assert preview["number"] == 7 and preview["nothing"] is None
    assert pq.read_table(tmp_path / "raw/train-00.parquet")["question"][0].as_py() == "q" * 1000


def test_a_missing_column_is_an_error_with_what_exists_and_the_nearest(tmp_path):
    (tmp_path / "a.jsonl").write_text(as_jsonl(ROWS))
    spec = source(tmp_path / "a.jsonl", columns={"question": "qustion"})
    with pytest.raises(FinetuningError) as error:
        write(DatasetSpec(sources=(spec,)), tmp_path / "raw")
    assert str(error.value) == (
        f"{WHERE}.columns.question: the data set {tmp_path}/a.jsonl has no column 'qustion'; it has question, answer; "
        "nearest is question"
    )


def test_all_missing_columns_of_a_source_are_told_at_once_and_optional_ones_may_miss(tmp_path):
    (tmp_path / "a.jsonl").write_text(as_jsonl([{"text": "a"}]))
    (tmp_path / "b.jsonl").write_text(as_jsonl([{"instruction": "a", "output": "b"}]))
    with pytest.raises(FinetuningError) as error:
        write(DatasetSpec(sources=(source(tmp_path / "a.jsonl", format="alpaca"),)), tmp_path / "raw")
    assert [line.split(":")[1].split(".")[-1] for line in str(error.value).splitlines()] == ["instruction", "output"]
    write(DatasetSpec(sources=(source(tmp_path / "b.jsonl", format="alpaca"),)), tmp_path / "raw")
    named = source(tmp_path / "b.jsonl", format="alpaca", columns={"input": "context"})
    with pytest.raises(FinetuningError, match=r"columns\.input: the data set .* has no column 'context'"):
        write(DatasetSpec(sources=(named,)), tmp_path / "raw")


def test_rows_that_differ_in_shape_come_back_as_they_were(tmp_path):
    plain = [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5", "calls": [{"a": 1}]}]
    parts = [{"role": "user", "content": [{"text": "2 + 3?"}]}, {"role": "assistant", "content": "5"}]
    (tmp_path / "a.jsonl").write_text(as_jsonl([{"messages": plain}, {"messages": parts}]))
    dataset = DatasetSpec(sources=(source(tmp_path / "a.jsonl", format="messages"),))
    write(dataset, tmp_path / "raw")
    split = split_conversations(tmp_path / "raw", dataset)
    assert [row.messages[1]["content"] for row in split.train + split.eval] == ["5"]
    assert split.dropped.records() == [
        {"reason": "the user turn is a list, not text", "rows": 1, "example": "train-00.parquet:1"}
    ]
