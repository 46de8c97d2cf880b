"""What is no row in JSON is told with its place, and the rows around it are read."""

import json

import pytest

from finetuning.dataset import json_rows
from finetuning.dataset.raw_rows import RawRow, Unreadable
from tests.finetuning.dataset.read_rows import ROWS, mistake, read, rows_of

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
