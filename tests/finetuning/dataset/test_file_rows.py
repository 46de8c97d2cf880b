"""Files of each kind give the same rows, compressed or not, and one that cannot be read is named."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetuning.dataset import csv_rows, json_rows, raw_rows
from finetuning.dataset.raw_rows import RawRow
from tests.finetuning.dataset.read_rows import ROWS, WHERE, as_jsonl, mistake, read, rows_of, write_csv

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"


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


@pytest.mark.parametrize("line", ['[{"role": "user", "content": "2 + 3?"}]', '[{"from": "human", "value": "2 + 3?"}]'])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_bare_conversation_a_line_is_told_as_what_it_is(tmp_path, line, name):
    text = f"{line}\n{line}\n" if name == "a.jsonl" else f"[{line}, {line}]"
    (tmp_path / name).write_text(text)
    said = mistake(tmp_path / name)
    assert '{"messages": […]}' in said and "name it .json" not in said
