"""Every row with a fault is in the table, some are examples, and no secret is repeated."""

import pyarrow.parquet as pq

from finetuning.checks import findings
from finetuning.checks.counted import Dropped, Example
from finetuning.checks.findings import SHOWN_CHARACTERS, Finding, FindingsTable
from finetuning.checks.judgement import EXAMPLES


def test_all_rows_are_in_the_table_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "WRITTEN_TOGETHER", 4)
    with FindingsTable(tmp_path / "found.parquet") as table:
        for n in range(11):
            table.add(f"a.jsonl:{n}", "bad_rows", "empty answer", "turn 1", f"text {n}")
    rows = pq.read_table(tmp_path / "found.parquet").to_pylist()
    assert rows == [
        Finding(f"a.jsonl:{n}", "bad_rows", "empty answer", "turn 1", f"text {n}")._asdict() for n in range(11)
    ]


def test_a_table_of_nothing_has_its_columns(tmp_path):
    with FindingsTable(tmp_path / "found.parquet") as table:
        assert table.by_reason() == []
    read = pq.read_table(tmp_path / "found.parquet")
    assert read.num_rows == 0 and read.column_names == list(Finding._fields)


def test_reasons_are_counted_the_most_frequent_first_with_the_place_of_the_first(tmp_path):
    with FindingsTable(tmp_path / "found.parquet") as table:
        for n in range(5):
            table.add(f"a:{n}", "bad_rows", "rare" if n == 0 else "frequent")
        table.add("a:9", "", "not chosen")
    assert table.by_reason() == [
        Dropped("frequent", 4, "a:1"),
        Dropped("rare", 1, "a:0"),
        Dropped("not chosen", 1, "a:9"),
    ]


def test_checks_are_counted_with_their_first_places_and_reasons(tmp_path):
    with FindingsTable(tmp_path / "found.parquet") as table:
        for n in range(EXAMPLES + 3):
            table.add(f"a:{n}", "secrets", f"kind {n % 2}", f"turn {n}", "text")
        table.add("b:1", "bad_rows", "empty answer")
    assert (table.checks["secrets"].rows, table.checks["bad_rows"].rows) == (EXAMPLES + 3, 1)
    assert table.checks["secrets"].examples == [
        Example(f"a:{n}", f"turn {n}", f"kind {n % 2}") for n in range(EXAMPLES)
    ]


def test_only_the_beginning_of_a_text_is_shown(tmp_path):
    with FindingsTable(tmp_path / "found.parquet") as table:
        table.add("a:1", "bad_rows", "reason", "", "é" * 1000)
    assert pq.read_table(tmp_path / "found.parquet")["text"].to_pylist() == ["é" * SHOWN_CHARACTERS]


def test_a_text_with_a_secret_is_not_shown(tmp_path):
    secret = "AKIA" + "IOSFODNN7" + "QRSTUVW"
    with FindingsTable(tmp_path / "found.parquet") as table:
        table.add("a:1", "bad_rows", "reason", "", f"my key is {secret}")
        table.add("a:2", "bad_rows", "reason", "", "x" * (SHOWN_CHARACTERS - 10) + f" {secret}")
    assert pq.read_table(tmp_path / "found.parquet")["text"].to_pylist() == ["", ""]


def test_what_was_found_before_a_failure_is_written(tmp_path):
    try:
        with FindingsTable(tmp_path / "found.parquet") as table:
            table.add("a:1", "bad_rows", "reason")
            raise KeyError
    except KeyError:
        pass
    assert pq.read_table(tmp_path / "found.parquet").num_rows == 1
