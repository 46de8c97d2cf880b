"""Lines and elements of arrays that are no JSON, or no rows."""

import json

from tests.finetuning.dataset.malformed_case import ARRAY, CUT, HALF, ROWS, Case, among, nested


def _line(bad: bytes, reason: str) -> Case:
    return Case("a.jsonl", among(bad), unreadable={3: reason})


def _element(bad: bytes, reason: str) -> Case:
    return Case("a.json", _array(bad), unreadable={3: reason})


def _broken(content: bytes, reason: str, row: int = 12) -> Case:
    return Case("a.json", content, refused=f"cannot be read beyond row {row}: {reason}: ")


def _array(third: bytes) -> bytes:
    parts = [json.dumps(row).encode() for row in ROWS]
    return b"[" + b",".join([*parts[:2], third, *parts[2:]]) + b"]"


LINES = {
    "a line that is cut short": _line(b'{"question": "2 +', CUT),
    "a line without its closing brace": _line(b'{"question": "2 + 3?", "answer": "5"', CUT),
    "a trailing comma": _line(b'{"question": "x", "answer": "y",}', "no valid JSON: trailing comma is not allowed"),
    "single quotes": _line(b"{'question': 'x'}", "no valid JSON: unexpected character, expected a string key"),
    "no quotes around a key": _line(b"{question: 1}", "no valid JSON: unexpected character, expected a string key"),
    "a missing comma": _line(
        b'{"question": "x" "answer": "y"}', "no valid JSON: unexpected character, expected ',' or '}'"
    ),
    "a missing colon": _line(b'{"question" "x"}', "no valid JSON: unexpected character, expected ':' after key"),
    "a comment": _line(b'// {"question": "x"}', "no valid JSON: unexpected character, expected a JSON value"),
    "plain text": _line(b"hello", "no valid JSON: unexpected character, expected a JSON value"),
    "NaN": _line(b'{"question": NaN}', "NaN or Infinity, which JSON does not have"),
    "Infinity": _line(b'{"question": -Infinity}', "NaN or Infinity, which JSON does not have"),
    "a number out of range": _line(b'{"question": 1e400}', "no valid JSON: number is infinity when parsed as double"),
    "a leading zero": _line(b'{"question": 05}', "no valid JSON: number with leading zero is not allowed"),
    "a list as a row": _line(b'["x", "y"]', "a JSON list, not an object"),
    "a number as a row": _line(b"7", "a JSON number, not an object"),
    "a string as a row": _line(b'"x"', "a JSON string, not an object"),
    "a null as a row": _line(b"null", "a JSON null, not an object"),
    "a boolean as a row": _line(b"true", "a JSON boolean, not an object"),
    "JSON within a string": _line(json.dumps(json.dumps(ROWS[0])).encode(), "a JSON string, not an object"),
    "two objects on a line": _line(b'{"a": 1}{"a": 2}', "no valid JSON: unexpected content after document"),
    "two objects with a comma": _line(b'{"a": 1}, {"a": 2}', "no valid JSON: unexpected content after document"),
    "a comma after the object": _line(b'{"a": 1},', "no valid JSON: unexpected content after document"),
    "a NUL byte in text": _line(b'{"question": "x\0y"}', "a NUL byte"),
    "a line of NUL bytes": _line(b"\0" * 512, "a NUL byte"),
    "a control character": _line(b'{"question": "x\x07"}', "no valid JSON: unexpected control character in string"),
    "a tab in text": _line(b'{"question": "x\ty"}', "no valid JSON: unexpected control character in string"),
    "a wrong escape": _line(b'{"question": "\\x41"}', "no valid JSON: invalid escaped sequence in string"),
    "a leading surrogate alone": _line(b'{"question": "\\ud83d"}', HALF),
    "a trailing surrogate alone": _line(b'{"question": "\\ude00!"}', HALF),
    "UTF-8 broken in the middle": _line(b'{"question": "\xff\xfe?"}', "not valid UTF-8"),
    "UTF-8 broken at the end": _line('{"question": "€'.encode()[:-1], "not valid UTF-8"),
    "Latin-1": _line('{"question": "ä"}'.encode("latin-1"), "not valid UTF-8"),
    "an encoded surrogate": _line(b'{"question": "\xed\xa0\x80"}', "not valid UTF-8"),
    "an overlong encoding": _line(b'{"question": "\xc0\x80"}', "not valid UTF-8"),
    "deep nesting": _line(nested(100_000).encode(), "nested too deeply"),
    "deep nesting of lists": _line(b'{"a":' + nested(100_000, "[", "]").encode() + b"}", "nested too deeply"),
    "deep nesting without an end": _line(b'{"a":' * 100_000, "nested too deeply"),
    "a line over the limit": Case(
        "a.jsonl",
        lambda path: path.write_bytes(among(b'{"question": "' + b"x" * (64 << 20) + b'"}')),
        unreadable={3: "longer than 64 MiB"},
    ),
    "an integer of thousands of digits": _line(
        b'{"question": ' + b"1" * 5000 + b"}", "no valid JSON: number is infinity when parsed as double"
    ),
    "a byte order mark within the file": _line(b'\xef\xbb\xbf{"question": "x"}', "a byte order mark"),
}
ELEMENTS = {
    "a null in an array": _element(b"null", "a JSON null, not an object"),
    "a number in an array": _element(b"7", "a JSON number, not an object"),
    "NaN in an array": _element(b'{"question": NaN}', "NaN or Infinity, which JSON does not have"),
    "broken UTF-8 in an array": _element(b'{"question": "\xff"}', "not valid UTF-8"),
    "a surrogate alone in an array": _element(b'{"question": "\\ud800"}', HALF),
    "a number out of range in an array": _element(
        b'{"question": 1e400}', "no valid JSON: number is infinity when parsed as double"
    ),
    "a trailing comma in an array": _broken(_array(b""), "no valid JSON: Expecting value", 2),
    "an array that is cut short": _broken(ARRAY[:-1] + b', {"question": "2 +', CUT),
    "an array without its bracket": _broken(ARRAY[:-1], CUT),
    "two arrays": _broken(ARRAY + b"\n" + ARRAY, "text after the end of the JSON"),
    "text after an array": _broken(ARRAY + b" thanks", "text after the end of the JSON"),
    "deep nesting in an array": _broken(_array(nested(100_000).encode()), "nested too deeply", 2),
    "a control character in an array": _broken(
        _array(b'{"a": "\x01"}'), "no valid JSON: Invalid control character at", 2
    ),
    "a NUL byte in an array": _broken(_array(b'{"a": \0}'), "a NUL byte", 2),
    "single quotes in an array": _broken(
        _array(b"{'a': 1}"), "no valid JSON: Expecting property name enclosed in double quotes", 2
    ),
    "an object of rows that is cut short": _broken(b'{"data": ' + ARRAY, CUT),
    "an integer of thousands of digits in an array": _element(
        b'{"question": ' + b"1" * 5000 + b"}", "no valid JSON: number is infinity when parsed as double"
    ),
    "a broken line of a .json file of lines": Case("a.json", among(b'{"question": "2 +'), unreadable={3: CUT}),
}
