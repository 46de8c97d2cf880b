import json
import subprocess
import sys
from collections import Counter

import pyarrow.parquet as pq
import pytest

from finetuning.dataset import raw_dataset as sources
from finetuning.dataset import raw_folder
from finetuning.dataset.raw_dataset import write_raw
from finetuning.dataset.raw_summary import RawSummary, UnreadableLine
from finetuning.errors import FinetuningError
from finetuning.recipe.dataset import DatasetSpec, EvalSpec
from finetuning.recipe.source import SourceSpec

WHERE = "recipes/x.yaml: dataset.sources[0]"
ROWS = [{"question": f"{n} + 1?", "answer": f"#### {n + 1}"} for n in range(20)]
GENERATED = SourceSpec(
    generator="linear-equations",
    rows=7,
    format="question-answer",
    columns={"question": "Problem", "answer": "Solution"},
)


@pytest.fixture
def path(tmp_path):
    """A file with ROWS."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def source(*paths, **keys) -> SourceSpec:
    return SourceSpec(files=[str(path) for path in paths], **{"format": "question-answer", **keys})


def write(folder, *trained, evaluated=None, seed=42):
    dataset = DatasetSpec(
        sources=trained, seed=seed, eval=EvalSpec(sources=evaluated) if evaluated else EvalSpec(fraction=0.1)
    )
    revisions = {"train-00": "r0", "train-01": "r1", "eval-00": "e0"}
    return write_raw(dataset, revisions, folder, api=None, file="recipes/x.yaml")


def table(path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def lines_of(folder, stem="train-00") -> list[int]:
    return [row["line"] for row in table(folder / f"{stem}.parquet")]


def test_each_source_becomes_a_file_and_is_told_of(tmp_path, path):
    summary = write(tmp_path / "raw", source(path), GENERATED, evaluated=(GENERATED,))
    names = sorted(file.name for file in (tmp_path / "raw").iterdir())
    assert names == ["eval-00.parquet", "sources.json", "train-00.parquet", "train-01.parquet", "unreadable.parquet"]
    assert summary.as_json()["sources"] == json.loads((tmp_path / "raw/sources.json").read_text())
    assert RawSummary.of(json.loads(json.dumps(summary.as_json())), "artifact.json") == summary
    told = ("stem", "split", "source", "revision", "columns", "rows", "lines", "unreadable")
    assert [tuple(getattr(record, key) for key in told) for record in summary.sources] == [
        ("train-00", "train", str(path), "r0", ["question", "answer"], 20, 20, 0),
        ("train-01", "train", "linear-equations", "r1", ["Problem", "Solution"], 7, 7, 0),
        ("eval-00", "eval", "linear-equations", "e0", ["Problem", "Solution"], 7, 7, 0),
    ]
    assert summary.rows == 34 and summary.unreadable == 0 and summary.preview == ROWS[:5]


def test_a_raw_row_is_kept_as_its_author_wrote_it_with_its_place(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n {"question" : "é\\u00e9", "answer": "5" }\n')
    write(tmp_path / "raw", source(tmp_path / "a.jsonl"), GENERATED)
    assert table(tmp_path / "raw/train-00.parquet") == [
        {"file": f"{tmp_path}/a.jsonl", "line": 2, "row": '{"question" : "é\\u00e9", "answer": "5" }'}
    ]
    generated = table(tmp_path / "raw/train-01.parquet")
    assert [(row["file"], row["line"]) for row in generated] == [("linear-equations", n) for n in range(1, 8)]
    schema = pq.read_schema(tmp_path / "raw/train-00.parquet")
    assert [(field.name, str(field.type)) for field in schema] == [
        ("file", "string"),
        ("line", "int64"),
        ("row", "string"),
    ]


def test_lines_that_are_no_rows_are_kept_apart_with_the_reason_and_counted(tmp_path, path):
    path.write_text(path.read_text() + '{"question": "1"\n[]\n' + '{"question": "2"\n' * 10)
    summary = write(tmp_path / "raw", source(path), source(path))
    assert (summary.rows, summary.unreadable) == (40, 24)
    assert [(r.rows, r.lines, r.unreadable) for r in summary.sources] == [(20, 32, 12), (20, 32, 12)]
    unreadable = table(tmp_path / "raw/unreadable.parquet")
    assert unreadable[1] == {"file": str(path), "line": 22, "reason": "a JSON list, not an object", "text": "[]"}
    assert Counter(row["reason"] for row in unreadable) == {
        "no valid JSON: unexpected end of data": 22,
        "a JSON list, not an object": 2,
    }
    assert len(summary.unreadable_examples) == 10
    assert summary.unreadable_examples[0] == UnreadableLine(
        f"{path}:21", "no valid JSON: unexpected end of data", '{"question": "1"'
    )


def test_a_changed_file_is_read_anew(tmp_path, path):
    write(tmp_path / "raw", source(path))
    path.write_text('{"question": "1", "answer": "2"}\n')
    write(tmp_path / "again", source(path))
    assert (len(lines_of(tmp_path / "raw")), len(lines_of(tmp_path / "again"))) == (20, 1)


def test_some_rows_are_drawn_by_the_seed_without_repetition(tmp_path, path):
    drawn = source(path, rows=8)
    for folder, seed in (("a", 42), ("b", 42), ("c", 43)):
        summary = write(tmp_path / folder, drawn, drawn, seed=seed)
        assert [(record.rows, record.lines) for record in summary.sources] == [(8, 20)] * 2
    lines = lines_of(tmp_path / "a")
    assert len(set(lines)) == 8 and lines == sorted(lines) and lines != list(range(1, 9))
    assert lines == lines_of(tmp_path / "b") != lines_of(tmp_path / "c")
    assert lines != lines_of(tmp_path / "a", "train-01")
    rows = [json.loads(row["row"]) for row in table(tmp_path / "a/train-00.parquet")]
    assert rows == [ROWS[line - 1] for line in lines]
    assert not [file for file in (tmp_path / "a").iterdir() if file.suffix not in (".parquet", ".json")]


def test_every_row_is_drawn_as_often_as_any_other(tmp_path, path):
    counts = Counter()
    for seed in range(100):
        write(tmp_path / "raw", source(path, rows=5), seed=seed)
        counts.update(lines_of(tmp_path / "raw"))
    assert len(counts) == 20 and min(counts.values()) >= 10 and max(counts.values()) <= 42


def test_lines_that_are_no_rows_are_never_drawn_and_still_counted(tmp_path, path):
    path.write_text("x\n" * 20 + path.read_text())
    summary = write(tmp_path / "raw", source(path, rows=20))
    assert lines_of(tmp_path / "raw") == list(range(21, 41))
    assert (summary.rows, summary.unreadable, summary.sources[0].lines) == (20, 20, 40)


def test_more_rows_than_there_are_is_an_error_with_both_numbers(tmp_path, path):
    with pytest.raises(FinetuningError) as error:
        write(tmp_path / "raw", source(path, rows=21))
    assert str(error.value) == (
        f"{WHERE}.rows: 21 rows are asked for, and {path} has 20. Ask for at most that many, write `at_most: true`, "
        "or leave `rows` out to take them all."
    )


def test_more_rows_than_there_are_will_do_where_the_recipe_says_so(tmp_path, path):
    summary = write(tmp_path / "raw", source(path, rows=21, at_most=True))
    assert lines_of(tmp_path / "raw") == list(range(1, 21))
    assert summary.rows == summary.sources[0].rows == 20


def test_generated_rows_follow_seed_and_stream(tmp_path):
    for folder, seed in (("a", 42), ("b", 42), ("c", 43)):
        write(tmp_path / folder, GENERATED, GENERATED, evaluated=(GENERATED,), seed=seed)
    rows = {(f, s): table(tmp_path / f"{f}/{s}.parquet") for f in "abc" for s in ("train-00", "train-01", "eval-00")}
    assert json.loads(rows["a", "train-00"][0]["row"]).keys() == {"Problem", "Solution"}
    assert rows["a", "train-00"] == rows["b", "train-00"] != rows["c", "train-00"]
    assert rows["a", "train-00"] != rows["a", "train-01"] != rows["a", "eval-00"]


def test_long_text_is_cut_in_preview_and_record_alone(tmp_path):
    row = {"question": "q" * 1000, "answer": "a", "list": [{"key": "v" * 1000}], "number": 7, "nothing": None}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    summary = write(tmp_path / "raw", source(tmp_path / "a.jsonl"))
    (preview,) = summary.preview
    assert preview["question"] == "q" * 199 + "…" and len(preview["list"]) == 200
    assert preview["number"] == 7 and preview["nothing"] is None
    assert summary.sources[0].first_row["question"] == "q" * 200
    assert json.loads(table(tmp_path / "raw/train-00.parquet")[0]["row"]) == row


def test_the_preview_is_of_the_rows_that_were_drawn(tmp_path, path):
    summary = write(tmp_path / "raw", source(path, rows=3))
    assert summary.preview == [ROWS[line - 1] for line in lines_of(tmp_path / "raw")]


def test_a_format_that_does_not_fit_is_an_error_before_all_rows_are_read(tmp_path, path, monkeypatch):
    monkeypatch.setattr(sources, "FIRST_ROWS", 10)
    path.write_text('{"Problem": "1", "Solution": "2"}\n' * 10 + "x\n" * 5)
    with pytest.raises(FinetuningError, match=r"dataset\.sources\[0\]\.columns\.question: .* has no column 'question'"):
        write(tmp_path / "raw", source(path))
    with pytest.raises(FinetuningError, match=r"`columns: {question: Problem, answer: Solution}`"):
        write(tmp_path / "raw", source(path, format=None))
    assert pq.ParquetFile(tmp_path / "raw/unreadable.parquet").metadata.num_rows == 0


def test_columns_are_those_of_all_first_rows(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "1"}\n{"answer": "2", "question": "3"}\n')
    assert write(tmp_path / "raw", source(tmp_path / "a.jsonl")).sources[0].columns == ["question", "answer"]


def test_rows_that_differ_in_shape_and_very_deep_ones_are_kept_as_they_are(tmp_path):
    rows = [{"question": "a", "answer": {"b": [1, "x"]}}, {"question": ["a"], "answer": None, "more": 1.0}]
    deep = '{"question": "a", "answer": ' + "[" * 1000 + "]" * 1000 + "}"
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + deep)
    write(tmp_path / "raw", source(tmp_path / "a.jsonl"))
    kept = [row["row"] for row in table(tmp_path / "raw/train-00.parquet")]
    assert [json.loads(text) for text in kept[:2]] == rows and kept[2] == deep


def test_row_groups_are_bounded_in_rows_and_in_bytes(tmp_path, path, monkeypatch):
    monkeypatch.setattr(raw_folder, "GROUP_ROWS", 6)
    write(tmp_path / "raw", source(path))
    groups = pq.ParquetFile(tmp_path / "raw/train-00.parquet").metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [6, 6, 6, 2]
    monkeypatch.setattr(raw_folder, "GROUP_BYTES", 100)
    write(tmp_path / "raw", source(path))
    groups = pq.ParquetFile(tmp_path / "raw/train-00.parquet").metadata
    assert max(groups.row_group(i).num_rows for i in range(groups.num_row_groups)) == 3
    assert lines_of(tmp_path / "raw") == list(range(1, 21))


def test_datasets_is_not_imported_to_read_files_and_generators(tmp_path, path):
    code = f"""
import sys
from pathlib import Path
from finetuning.recipe.dataset import DatasetSpec
from finetuning.recipe.source import SourceSpec
from finetuning.dataset.raw_dataset import write_raw
dataset = DatasetSpec(sources=(SourceSpec(files=[{str(path)!r}]),))
write_raw(dataset, {{"train-00": "r"}}, Path({str(tmp_path / "raw")!r}), api=None, file="x.yaml")
print({{"datasets", "huggingface_hub", "torch"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_memory_stays_bounded_however_long_the_file_is(tmp_path):
    code = """
import resource, sys
from pathlib import Path
from finetuning.recipe.dataset import DatasetSpec
from finetuning.recipe.source import SourceSpec
from finetuning.dataset.raw_dataset import write_raw
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for name in ("short", "long"):
    dataset = DatasetSpec(sources=(SourceSpec(files=[f"{sys.argv[1]}/{name}.jsonl"], rows=1000),))
    write_raw(dataset, {"train-00": "r"}, Path(sys.argv[1]) / name, api=None, file="x.yaml")
    print(peak())
"""
    row = json.dumps({"question": "q" * 300, "answer": "a" * 300}) + "\n"
    for name, rows in (("short", 50_000), ("long", 250_000)):
        (tmp_path / f"{name}.jsonl").write_text(row * rows)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    short, long = map(float, done.stdout.split())
    assert long < short + 60  # MB; the long file alone has 160


@pytest.mark.parametrize(
    "text",
    [
        '{"question": "\\u0041KIA%s", "answer": "b"}' % ("IOSFODNN7" + "QRSTUVW"),
        '{"question": "https:\\/\\/anna:s3cr3tpass@example.com\\/x", "answer": "b"}',
        '{"question": "a\\nhf_%s", "answer": "b"}' % ("aBcDeFgHiJkLmNoPq" * 2),
        '{"question": "a", "answer": "b", "meta": {"AKIA%s": 1}}' % ("IOSFODNN7" + "QRSTUVW"),
        json.dumps({"question": json.dumps({"k": "https://anna:s3cr3tpass@example.com/x"}), "answer": "b"}),
    ],
)
def test_a_row_with_a_secret_however_it_is_written_is_not_in_the_preview(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text + '\n{"question": "c", "answer": "d"}\n')
    assert write(tmp_path / "raw", source(tmp_path / "a.jsonl")).preview == [{"question": "c", "answer": "d"}]
