import bz2
import csv
import datetime
import gzip
import json
import lzma
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetuning.dataset import csv_rows, json_rows, raw_rows
from finetuning.dataset.file_rows import read_files
from finetuning.dataset.raw_rows import RawRow, Unreadable
from finetuning.errors import FinetuningError

WHERE = "recipes/x.yaml: dataset.sources[0]"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"
ROWS = [{"question": f"{n} + 1? ünï€😀", "answer": f"#### {n + 1}"} for n in range(20)]


def read(*paths) -> list:
    return list(read_files(tuple(map(str, paths)), WHERE))


def rows_of(*paths) -> list[dict]:
    items = read(*paths)
    assert all(isinstance(item, RawRow) for item in items), items
    return [json.loads(item.text) for item in items]


def mistake(*paths) -> str:
    with pytest.raises(FinetuningError) as error:
        read(*paths)
    return str(error.value)


def as_jsonl(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_csv(rows, path, delimiter=",") -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def kinds(tmp_path):
    """The same rows in a file of each kind."""
    (tmp_path / "a.jsonl").write_text(as_jsonl(ROWS))
    (tmp_path / "lines.json").write_text(as_jsonl(ROWS))
    (tmp_path / "array.json").write_text(json.dumps(ROWS))
    (tmp_path / "indented.json").write_text(json.dumps(ROWS, indent=2, ensure_ascii=False))
    (tmp_path / "within.json").write_text(json.dumps({"version": [1, 2], "data": ROWS, "by": {"name": "ann"}}))
    write_csv(ROWS, tmp_path / "a.csv")
    write_csv(ROWS, tmp_path / "a.tsv", "\t")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    return tmp_path


def test_each_kind_of_file_gives_the_same_rows(kinds):
    for path in sorted(kinds.iterdir()):
        assert rows_of(path) == ROWS, path.name


def test_each_kind_of_file_may_be_compressed_in_each_way(kinds):
    def zstd(content: bytes) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        return sink.getvalue().to_pybytes()

    ways = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}
    for path in sorted(kinds.iterdir()):
        for ending, compress in ways.items():
            compressed = kinds / f"{path.name}.{ending}"
            compressed.write_bytes(compress(path.read_bytes()))
            assert rows_of(compressed) == ROWS, compressed.name


def test_compressed_data_of_several_parts_is_read_to_its_end(tmp_path):
    halves = [as_jsonl(ROWS[:10]).encode(), as_jsonl(ROWS[10:]).encode()]
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(map(gzip.compress, halves)))
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(pa.compress(half, "zstd", asbytes=True) for half in halves))
    assert rows_of(tmp_path / "a.jsonl.gz") == rows_of(tmp_path / "a.jsonl.zst") == ROWS


def test_files_come_in_the_order_of_the_patterns_and_of_their_names_whatever_their_kind(kinds):
    (kinds / "b.jsonl").write_text(as_jsonl(ROWS[:2]))
    places = [f"{item.file}:{item.line}" for item in read(kinds / "b.jsonl", kinds / "a.*")]
    assert places[:3] == [f"{kinds}/b.jsonl:1", f"{kinds}/b.jsonl:2", f"{kinds}/a.csv:2"]
    assert places[-1] == f"{kinds}/a.tsv:21" and len(places) == 82


def test_a_row_has_its_place_and_the_text_that_its_author_wrote(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"b" : 1.50,"a":"\\u00e9"}\r\n\r\n  {"a": 2}  \n{"a": 3}')
    assert read(tmp_path / "a.jsonl") == [
        RawRow(f"{tmp_path}/a.jsonl", 1, b'{"b" : 1.50,"a":"\\u00e9"}'),
        RawRow(f"{tmp_path}/a.jsonl", 3, b'{"a": 2}'),
        RawRow(f"{tmp_path}/a.jsonl", 4, b'{"a": 3}'),
    ]
    (tmp_path / "a.json").write_text('[{"b" : 1.50},\n {"a": 2}\n]')
    assert [(row.line, row.text) for row in read(tmp_path / "a.json")] == [(1, b'{"b" : 1.50}'), (2, b'{"a": 2}')]


DEEP = 5_000
LINES = {
    "cut short": (b'{"a": "x', "no valid JSON: unexpected end of data"),
    "cut short after a value": (b'{"a": 1', "no valid JSON: unexpected end of data"),
    "a missing comma": (b'{"a": 1 "b": 2}', "no valid JSON: "),
    "single quotes": (b"{'a': 1}", "no valid JSON: unexpected character, expected a string key"),
    "a trailing comma": (b'{"a": 1,}', "no valid JSON: trailing comma is not allowed"),
    "two objects": (b'{"a": 1}{"a": 2}', "no valid JSON: unexpected content after document"),
    "plain text": (b"hello", "no valid JSON: "),
    "a list": (b"[1, 2]", "a JSON list, not an object"),
    "a number": (b"7", "a JSON number, not an object"),
    "a string": (b'"x"', "a JSON string, not an object"),
    "null": (b"null", "a JSON null, not an object"),
    "true": (b"true", "a JSON boolean, not an object"),
    "NaN": (b'{"a": NaN}', "NaN or Infinity, which JSON does not have"),
    "-Infinity": (b'{"a": -Infinity}', "NaN or Infinity, which JSON does not have"),
    "a NUL in text": (b'{"a": "x\0y"}', "a NUL byte"),
    "a NUL outside of text": (b'{"a": \0}', "a NUL byte"),
    "a control character": (b'{"a": "x\x01y"}', "no valid JSON: unexpected control character in string"),
    "a leading surrogate alone": (b'{"a": "\\ud83d"}', "half of a surrogate pair (\\ud800 to \\udfff)"),
    "a trailing surrogate alone": (b'{"a": "\\ude00 x"}', "half of a surrogate pair (\\ud800 to \\udfff)"),
    "Latin-1": ('{"a": "é"}'.encode("latin-1"), "not valid UTF-8"),
    "a character cut in half": ('{"a": "€'.encode()[:-1] + b'"}', "not valid UTF-8"),
    "an encoded surrogate": (b'{"a": "\xed\xa0\x80"}', "not valid UTF-8"),
    "deep nesting": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "nested too deeply"),
    "a wrong escape": (b'{"a": "\\x"}', "no valid JSON: invalid escaped sequence in string"),
    "a number that is too big": (b'{"a": 1e999}', "no valid JSON: number is infinity when parsed as double"),
    "a comment": (b'// {"a": 1}', "no valid JSON: "),
}


@pytest.mark.parametrize("line,reason", LINES.values(), ids=LINES.keys())
def test_a_line_that_is_no_row_is_told_with_its_place_and_the_others_are_read(tmp_path, line, reason):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n' + line + b'\r\n{"a": 3}\n')
    first, second, third = read(tmp_path / "a.jsonl")
    assert (first.line, first.text, third.line, third.text) == (1, b'{"a": 1}', 3, b'{"a": 3}')
    assert isinstance(second, Unreadable) and second.line == 2 and second.reason.startswith(reason)
    assert second.text.startswith(line[:5].decode(errors="replace")) and len(second.text) <= 200


ELEMENTS = {name: LINES[name] for name in ("a list", "null", "NaN", "Latin-1", "a leading surrogate alone")}


@pytest.mark.parametrize("element,reason", ELEMENTS.values(), ids=ELEMENTS.keys())
def test_an_element_of_an_array_that_is_no_row_is_told_with_its_number(tmp_path, element, reason):
    (tmp_path / "a.json").write_bytes(b'[{"a": 1}, ' + element + b', {"a": 3}]')
    first, second, third = read(tmp_path / "a.json")
    assert isinstance(first, RawRow) and isinstance(third, RawRow) and third.line == 3
    assert isinstance(second, Unreadable) and (second.line, second.reason) == (2, reason)


BREAKS = {
    "within a value": (b'[{"a": 1}, {"a": "x', "no valid JSON: unexpected end of data"),
    "after a value": (b'[{"a": 1}', "no valid JSON: unexpected end of data"),
    "after a comma": (b'[{"a": 1},', "no valid JSON: unexpected end of data"),
    "no comma": (b'[{"a": 1} {"a": 2}]', "no valid JSON: , or ] expected"),
    "a second array": (b'[{"a": 1}]\n[{"a": 2}]', "text after the end of the JSON"),
    "broken within an object": (b'{"data": [{"a": 1}], "by" "ann"}', "no valid JSON: : expected"),
    "an object that is not closed": (b'{"data": [{"a": 1}]', "no valid JSON: unexpected end of data"),
}


@pytest.mark.parametrize("content,reason", BREAKS.values(), ids=BREAKS.keys())
def test_a_break_in_a_json_file_is_an_error_that_tells_after_which_row(tmp_path, content, reason):
    (tmp_path / "a.json").write_bytes(content)
    assert f"a.json cannot be read beyond row 1: {reason}: " in mistake(tmp_path / "a.json")


def test_an_object_with_turns_is_one_row_and_one_with_rows_is_all_of_them(tmp_path):
    turns = [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]
    (tmp_path / "a.json").write_text(json.dumps({"messages": turns, "tags": ["a", "b"], "empty": []}, indent=1))
    assert rows_of(tmp_path / "a.json") == [{"messages": turns, "tags": ["a", "b"], "empty": []}]
    (tmp_path / "b.json").write_text(json.dumps({"train": [{"messages": turns}] * 3}))
    assert rows_of(tmp_path / "b.json") == [{"messages": turns}] * 3


def test_a_json_file_with_an_object_a_line_may_have_a_broken_line(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1\n{"a": 2}\n{"a": 3}\n')
    assert [(item.line, type(item)) for item in read(tmp_path / "a.json")] == [
        (1, Unreadable),
        (2, RawRow),
        (3, RawRow),
    ]


def test_json_is_read_in_pieces_that_may_end_anywhere(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text(json.dumps({"n": 12345, "data": [*ROWS, {"a": [1, {"b": ']}\\"'}]}]}))
    whole = read(tmp_path / "a.json")
    assert len(whole) == 21
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr(json_rows, "CHUNK_BYTES", size)
        assert read(tmp_path / "a.json") == whole


def test_a_row_that_is_too_long_is_unreadable_and_the_next_one_is_read(tmp_path, monkeypatch):
    for module in (raw_rows, json_rows, csv_rows):
        monkeypatch.setattr(module, "MOST_BYTES", 1000)
    monkeypatch.setattr(json_rows, "CHUNK_BYTES", 10)
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": "' + "x" * 5000 + '"}\n{"a": 3}\n')
    (tmp_path / "a.csv").write_text("a,b\n1,1\n" + "x" * 5000 + ",1\n3,1\n")
    (tmp_path / "b.csv").write_text("a,b\n" + "x" * 800 + "," + "y" * 800 + "\n3,1\n")
    table = pa.table({"a": ["1", "x" * 5000, "3"]})
    pq.write_table(table, tmp_path / "a.parquet")
    found = {path: [(i.line, getattr(i, "reason", "")) for i in read(path)] for path in sorted(tmp_path.iterdir())}
    long = "longer than 64 MiB"
    assert found[tmp_path / "a.jsonl"] == [(1, ""), (2, long), (3, "")]
    assert found[tmp_path / "a.csv"] == [(2, ""), (3, long), (4, "")]
    assert found[tmp_path / "b.csv"] == [(2, long), (3, "")]
    assert found[tmp_path / "a.parquet"] == [(1, ""), (2, long), (3, "")]


def test_a_value_that_is_too_long_and_would_take_the_rest_of_the_file_with_it_is_an_error(tmp_path, monkeypatch):
    for module in (raw_rows, json_rows, csv_rows):
        monkeypatch.setattr(module, "MOST_BYTES", 1000)
    monkeypatch.setattr(json_rows, "CHUNK_BYTES", 10)
    (tmp_path / "a.json").write_text('[{"a": 1}, {"a": "' + "x" * 5000 + '"}]')
    assert "cannot be read beyond row 1: longer than 64 MiB" in mistake(tmp_path / "a.json")
    (tmp_path / "a.csv").write_text('a,b\n3,1\n4,"' + "y\n" * 800 + '"\n5,1\n')
    assert "cannot be read beyond line 3: a quote that is never closed" in mistake(tmp_path / "a.csv")


CSV_LINES = {
    "too many fields": (b"1,2,3", "3 fields, the header has 2"),
    "too few fields": (b"1", "1 field, the header has 2"),
    "text after a quote": (b'"1"x,2', "text after a closing quote"),
    "Latin-1": ("é,2".encode("latin-1"), "not valid UTF-8"),
    "a NUL": (b"\0,2", "a NUL byte"),
    "a carriage return": (b"a\rb,2", "a carriage return within a line"),
}


@pytest.mark.parametrize("line,reason", CSV_LINES.values(), ids=CSV_LINES.keys())
def test_a_line_of_csv_that_is_no_row_is_told_with_its_place_and_the_others_are_read(tmp_path, line, reason):
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n" + line + b"\n5,6\n")
    first, second, third = read(tmp_path / "a.csv")
    assert (first.text, third.text, third.line) == (b'{"a":"1","b":"2"}', b'{"a":"5","b":"6"}', 4)
    assert isinstance(second, Unreadable) and (second.line, second.reason) == (3, reason)
    assert second.text == line.decode(errors="replace").strip()


def test_a_quote_that_is_never_closed_is_told_with_the_line_that_it_begins_on(tmp_path):
    (tmp_path / "a.csv").write_text('a,b\n1,2\n3,"4\n5,6\n7,8\n')
    assert "beyond line 3: a quote that is never closed takes in the lines after it: '3,\"4'" in mistake(
        tmp_path / "a.csv"
    )


def test_values_of_a_csv_file_stay_the_text_that_they_are_over_several_lines(tmp_path):
    rows = [
        {"question": "NA", "answer": "05"},
        {"question": "", "answer": "1.0"},
        {"question": 'a,\n"b"\r\n\nc', "answer": "5"},
        {"question": "\\u0000", "answer": " x "},
    ]
    write_csv(rows, tmp_path / "a.csv")
    assert rows_of(tmp_path / "a.csv") == rows
    assert [item.line for item in read(tmp_path / "a.csv")] == [2, 3, 4, 8]


def test_blank_lines_of_a_csv_file_are_no_rows(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf\r\na,b\r\n\r\n1,2\r\n   \r\n3,4\r\n\r\n")
    assert [(item.line, item.text) for item in read(tmp_path / "a.csv")] == [
        (4, b'{"a":"1","b":"2"}'),
        (6, b'{"a":"3","b":"4"}'),
    ]


HEADERS = {
    "twice": ("a,b,a\n1,2,3\n", "its header has 'a' twice; it has 'a', 'b', 'a'"),
    "no name": (",a,b\n0,1,2\n", "column 1 of its header has no name; it has '', 'a', 'b'"),
    "an open quote": ('"a,b\n1,2\n', "its header has a quote that is never closed"),
}


@pytest.mark.parametrize("content,words", HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_can_not_be_right_is_an_error(tmp_path, content, words):
    (tmp_path / "a.csv").write_text(content)
    assert words in mistake(tmp_path / "a.csv")


def test_a_column_of_a_table_that_is_null_at_first_is_read(tmp_path):
    pq.write_table(pa.table({"a": ["x"], "b": pa.nulls(1)}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": ["y"], "b": ["z"]}), tmp_path / "1.parquet")
    assert rows_of(tmp_path / "0.parquet", tmp_path / "1.parquet") == [{"a": "x", "b": None}, {"a": "y", "b": "z"}]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_columns_are_separated_by_what_separates_the_header(tmp_path, name, sign):
    (tmp_path / name).write_text(f'"que,stion"{sign}answer{sign}"more"\n2 + 3{sign}"5{sign}0"{sign}"1,5"\n')
    (found,) = rows_of(tmp_path / name)
    assert found == {"que,stion": "2 + 3", "answer": f"5{sign}0", "more": "1,5"}


def test_a_header_of_one_column_is_one(tmp_path):
    (tmp_path / "a.csv").write_text("text\nyes; or no\n")
    assert rows_of(tmp_path / "a.csv") == [{"text": "yes; or no"}]


def test_lines_in_another_encoding_are_told_with_how_to_convert_them(tmp_path):
    (tmp_path / "a.csv").write_bytes("question,answer\nwie groß?,größer\n".encode("latin-1"))
    assert "`iconv -f cp1252 -t UTF-8 OLD > NEW`" in mistake(tmp_path / "a.csv")


def test_values_of_parquet_that_json_does_not_have_become_text(tmp_path):
    row = {
        "when": datetime.datetime(2026, 1, 2, 3, 4, 5),
        "day": datetime.date(2026, 1, 2),
        "wait": datetime.timedelta(seconds=5),
        "text": b"as bytes",
        "picture": b"\xff\xd8",
        "nothing": None,
        "list": [{"a": 1.5}],
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (found,) = rows_of(tmp_path / "a.parquet")
    assert found.pop("when").startswith("2026-01-02T03:04:05") and found.pop("wait") == "0:00:05"
    assert found == {
        "day": "2026-01-02",
        "text": "as bytes",
        "picture": {"bytes": 2},
        "nothing": None,
        "list": [{"a": 1.5}],
    }


def test_text_in_parquet_that_is_no_utf_8_is_unreadable_and_the_rows_around_it_are_read(tmp_path):
    texts = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    assert [(item.line, getattr(item, "reason", "")) for item in read(tmp_path / "a.parquet")] == [
        (1, ""),
        (2, "not valid UTF-8"),
        (3, ""),
    ]


def test_a_parquet_file_of_several_row_groups_is_read_to_its_end(tmp_path):
    empty, one = (pa.table({"a": pa.array(values, pa.int64())}) for values in ([], [1]))
    with pq.ParquetWriter(tmp_path / "a.parquet", one.schema) as writer:
        for table in (one, empty, one):
            writer.write_table(table)
    assert [item.line for item in read(tmp_path / "a.parquet")] == [1, 2]


FILES = {
    "empty": ("a.jsonl", b"", "is empty. Fill it, or leave it out"),
    "an empty table": ("a.parquet", b"", "is empty. Fill it, or leave it out"),
    "empty when unpacked": ("a.jsonl.gz", gzip.compress(b""), "is empty. Fill it"),
    "only white space": ("a.jsonl", b"\n \n", "holds no rows"),
    "only a mark": ("a.jsonl", b"\xef\xbb\xbf", "holds no rows"),
    "only a header": ("a.csv", b"a,b\n", "holds no rows"),
    "an empty array": ("a.json", b"[]", "holds no rows"),
    "an empty object": ("a.json", b"{}", "holds no rows"),
    "an empty list within": ("a.json", b'{"data": [{}], "more": [{}]}', 'several lists of objects, "data" and "more"'),
    "nothing but broken lines": ("a.jsonl", b"a\nb\n", "none of its lines is a row. line 1: no valid JSON: "),
    "an array named .jsonl": ("a.jsonl", b'[\n{"a": 1},\n{"a": 2},\n]', "It looks like one JSON array: name it .json."),
    "text named .json": ("a.json", b"hello", "it begins with 'hello', and a JSON file begins with [ or {"),
    "nothing but broken rows": ("a.csv", b"a,b\n1\n", "line 2: 1 field, the header has 2: '1'"),
    "UTF-16 with a mark": (
        "a.jsonl",
        '{"a": 1}'.encode("utf-16"),
        "it is UTF-16, and UTF-8 is what is read. Convert it",
    ),
    "UTF-16 without a mark": ("a.csv", "a,b".encode("utf-16-le"), "`iconv -f UTF-16LE -t UTF-8 OLD > NEW`"),
    "UTF-16, big end first": ("a.csv", "a,b".encode("utf-16-be"), "it is UTF-16BE"),
    "UTF-32 with a mark": ("a.json", "[]".encode("utf-32"), "it is UTF-32,"),
    "no Parquet": ("a.parquet", b"no parquet at all", "it is no whole Parquet file"),
    "no gzip": ("a.csv.gz", b"no gzip", "its name says gzip, and it begins with b'no gzip', which is no gzip data"),
    "gzip cut short": ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99)[:-9], "its gzip data is damaged or cut short"),
    "damaged bzip2": ("a.jsonl.bz2", b"BZh9" + b"\0" * 50, "its bzip2 data is damaged or cut short"),
    "xz cut short": ("a.jsonl.xz", lzma.compress(b'{"a": 1}\n' * 99)[:-9], "its xz data is damaged or cut short"),
    "damaged zstd": ("a.jsonl.zst", b"\x28\xb5\x2f\xfd" + b"\1" * 50, "its zstd data is damaged or cut short"),
    "zip": ("a.jsonl.zip", b"PK\x03\x04", "is of no kind that can be read"),
    "pointer of Git": ("a.jsonl", LFS, "is a Git LFS pointer, and not the file itself. Run `git lfs pull`"),
    "pointer of Git for a table": ("a.parquet", LFS, "is a Git LFS pointer"),
    "pointer of Git for compressed lines": ("a.csv.gz", LFS, "is a Git LFS pointer"),
    "zip inside": ("a.jsonl", b"PK\x03\x04....", "is a zip archive. Unpack it, or write `zip://*::"),
    "another kind": (
        "a.txt",
        b"text",
        "its name must end in .jsonl, .ndjson, .json, .csv, .tsv, .parquet, or in one of",
    ),
}


@pytest.mark.parametrize("name,content,words", FILES.values(), ids=FILES.keys())
def test_a_file_that_can_not_be_read_at_all_is_an_error_with_its_name(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    found = mistake(tmp_path / name)
    assert found.startswith(f"{WHERE}.files: {tmp_path}/{name} ") and words in found


def test_a_table_of_very_many_columns_is_read_in_seconds(tmp_path):
    pq.write_table(pa.table({f"column {n}": ["1"] for n in range(8_000)}), tmp_path / "a.parquet")
    began = time.process_time()
    (row,) = rows_of(tmp_path / "a.parquet")
    assert len(row) == 8_000 and time.process_time() - began < 5


def test_a_damaged_table_is_an_error_with_its_name(kinds):
    content = (kinds / "a.parquet").read_bytes()
    (kinds / "a.parquet").write_bytes(content[:-20])
    assert "a.parquet cannot be read: it is no whole Parquet file" in mistake(kinds / "a.parquet")
    (kinds / "a.parquet").write_bytes(content[:4] + bytes(len(content) - 600) + content[-596:])
    assert "a.parquet cannot be read: it is no whole Parquet file" in mistake(kinds / "a.parquet")


def test_a_file_that_is_compressed_without_its_name_saying_so_is_read(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(as_jsonl(ROWS).encode()))
    assert rows_of(tmp_path / "a.jsonl") == ROWS
    (tmp_path / "b.jsonl.gz").write_bytes(bz2.compress(as_jsonl(ROWS).encode()))
    assert rows_of(tmp_path / "b.jsonl.gz") == ROWS


def test_among_many_files_the_one_without_a_row_is_named(kinds):
    (kinds / "b.jsonl").write_text('{"question": "1"\n')
    assert mistake(kinds / "a.jsonl", kinds / "b.jsonl").startswith(f"{WHERE}.files: {kinds}/b.jsonl cannot be read")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("Москва да", "cp1251"), ("東京ソ", "shift_jis"), ("grün “x”", "cp1252"), ("żółw", "cp1250"), ("grün", "cp850")],
)
@pytest.mark.parametrize("place", ["header", "rows"])
def test_an_encoding_that_is_not_sure_is_not_named(tmp_path, text, encoding, place):
    lines = f"question,{text}\na,b\n" if place == "header" else f"question,answer\n{text},a\n"
    (tmp_path / "a.csv").write_bytes(lines.encode(encoding))
    said = mistake(tmp_path / "a.csv")
    assert "`iconv -f ENCODING -t UTF-8 OLD > NEW`" in said and "latin1" not in said


@pytest.mark.parametrize("encoding", ["latin1", "cp1252", "cp1250"])
def test_an_encoding_that_is_sure_is_named(tmp_path, encoding):
    (tmp_path / "a.csv").write_bytes("question,answer\nZürich,grüßt Öl\n".encode(encoding))
    assert "`iconv -f cp1252 -t UTF-8 OLD > NEW`" in mistake(tmp_path / "a.csv")
