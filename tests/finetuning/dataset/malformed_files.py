"""A corpus of malformed files, each with what has to become of it: a message, or rows counted with a reason.

"a line that is cut short": Case("a.jsonl", b'…{"question": "2 +', unreadable={3: "no valid JSON: unexpected …"})
"an archive": Case("a.jsonl", b"PK\x03\x04…", refused="is a zip archive")
"""

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

GOOD = 12
ROWS = [{"question": f"{word} {n} + 1?", "answer": f"#### {n + 1}"} for n, word in enumerate("abcdefghijkl")]
TURNS = [
    [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}] for row in ROWS
]
ASKED, ANSWERED = {"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "#### 5"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
# A template that writes calls and tools, as that of a model that calls tools does.
WITH_TOOLS = (
    "{% if tools %}{{ 'TOOLS ' + tools | tojson + '\n' }}{% endif %}"
    "{% for message in messages %}{{ '[' + message['role'] + ']' + message['content'] }}"
    "{% for call in message.tool_calls or [] %}{{ '<call>' + call | tojson }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@dataclass(frozen=True)
class Case:
    """A file, and what becomes of it and of its rows; those that are not told of are in train or eval."""

    name: str
    content: bytes | Callable[[Path], object]
    refused: str = ""
    """What the message says; empty where the file is read."""
    kept: int = GOOD
    """How many rows are in train and eval."""
    unreadable: dict[int, str] = field(default_factory=dict)
    """Reasons by line."""
    dropped: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Reason and field by line."""
    said: dict[int, str] = field(default_factory=dict)
    """What the user says in rows that are kept, by line."""
    source: dict[str, Any] = field(default_factory=dict)
    """Keys of the recipe's source."""
    template: str = ""
    """A chat template other than `instruction`."""


def in_lines(*rows: Any) -> bytes:
    """JSON lines; a row in bytes is a line as it is."""
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def among(bad: Any, good: list[Any] = ROWS) -> bytes:
    """JSON lines of which the third is `bad`."""
    return in_lines(*good[:2], bad, *good[2:])


def in_csv(*lines: bytes, header: bytes = b"question,answer", end: bytes = b"\n") -> bytes:
    """A CSV file with the good rows, then `lines`."""
    good = [f"{row['question']},{row['answer']}".encode() for row in ROWS]
    return end.join([header, *good, *lines, b""])


def in_parquet(rows: list[Any] | pa.Table, **keys: Any) -> bytes:
    """A Parquet file of the rows."""
    sink = io.BytesIO()
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), sink, **keys)
    return sink.getvalue()


def nested(depth: int, start: str = '{"a":', end: str = "}") -> str:
    """JSON of that many objects, each in the one before."""
    return start * depth + "1" + end * depth


def _line(bad: bytes, reason: str) -> Case:
    return Case("a.jsonl", among(bad), unreadable={3: reason})


def _element(bad: bytes, reason: str) -> Case:
    return Case("a.json", _array(bad), unreadable={3: reason})


def _broken(content: bytes, reason: str, row: int = 12) -> Case:
    return Case("a.json", content, refused=f"cannot be read beyond row {row}: {reason}: ")


def _array(third: bytes) -> bytes:
    parts = [json.dumps(row).encode() for row in ROWS]
    return b"[" + b",".join([*parts[:2], third, *parts[2:]]) + b"]"


def _whole(name: str, content: bytes | Callable[[Path], object], refused: str, **source: Any) -> Case:
    return Case(name, content, refused=refused, source=source)


def _read(name: str, content: bytes, kept: int = GOOD, **keys: Any) -> Case:
    return Case(name, content, kept=kept, **keys)


def _bad_row(row: Any, reason: str, at: str, **source: Any) -> Case:
    return Case("a.jsonl", among(row), dropped={3: (reason, at)}, source={"format": "question-answer", **source})


def _turns(turns: Any, reason: str, at: str, **keys: Any) -> Case:
    row = turns if isinstance(turns, (dict, bytes)) else {"messages": turns}
    good = [{"messages": turns} for turns in TURNS]
    return Case("a.jsonl", among(row, good), dropped={3: (reason, at)}, source={"format": "messages"}, **keys)


def _kept_turns(turns: Any, said: str, **keys: Any) -> Case:
    row = {"messages": turns} if not isinstance(turns, dict) else turns
    content = among(row, [{"messages": turns} for turns in TURNS])
    return Case("a.jsonl", content, kept=GOOD + 1, said={3: said}, source={"format": "messages"}, **keys)


def _pairs(turns: list[Any], reason: str, at: str) -> Case:
    good = [{"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]} for q, a in map(_qa, ROWS)]
    content = among({"conversations": turns}, good)
    return Case("a.jsonl", content, dropped={3: (reason, at)}, source={"format": "sharegpt"})


def _qa(row: dict[str, str]) -> tuple[str, str]:
    return row["question"], row["answer"]


def _alpaca(row: dict[str, Any], reason: str, at: str) -> Case:
    good = [{"instruction": q, "input": "", "output": a} for q, a in map(_qa, ROWS)]
    return Case("a.jsonl", among(row, good), dropped={3: (reason, at)}, source={"format": "alpaca"})


def _said(question: str) -> Case:
    """A question that has to survive as it is."""
    return Case("a.jsonl", among({"question": question, "answer": "x"}), kept=GOOD + 1, said={3: question})


def _csv_line(bad: bytes, reason: str) -> Case:
    return Case("a.csv", in_csv(bad), unreadable={GOOD + 2: reason})


def _with(column: pa.Array) -> pa.Table:
    """The good rows with one column more."""
    return pa.Table.from_pylist(ROWS).append_column("more", column)


def _deep(depth: int) -> pa.Array:
    column = pa.array(["x"] * GOOD)
    for _ in range(depth):
        column = pa.StructArray.from_arrays([column], names=["a"])
    return column


def _zstd(content: bytes) -> bytes:
    return pa.compress(content, "zstd", asbytes=True)


ALL = in_lines(*ROWS)
ARRAY = json.dumps(ROWS).encode()
TABLE = in_parquet(ROWS)
CUT = "no valid JSON: unexpected end of data"
HALF = "half of a surrogate pair (\\ud800 to \\udfff)"

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
CSV = {
    "too many fields": _csv_line(b"1,2,3", "3 fields, the header has 2"),
    "too few fields": _csv_line(b"1", "1 field, the header has 2"),
    "a quote that is never closed": _whole(
        "a.csv", in_csv(b'"x,y\nz,'), "cannot be read beyond line 14: a quote that is never closed"
    ),
    "text after a closing quote": _csv_line(b'"x"y,z', "text after a closing quote"),
    "quotes escaped by backslashes": _csv_line(b'"x \\"y\\" z",1', "text after a closing quote"),
    "Latin-1 in a field": _csv_line("ä,1".encode("latin-1"), "not valid UTF-8"),
    "a NUL byte in a field": _csv_line(b"x\0,1", "a NUL byte"),
    "a carriage return within a line": _csv_line(b"x\ry,1", "a carriage return within a line"),
    "a semicolon instead of a comma": _csv_line(b"x;1", "1 field, the header has 2"),
    "a field over the limit": Case(
        "a.csv",
        lambda path: path.write_bytes(in_csv(b"x" * (65 << 20) + b",1")),
        unreadable={14: "longer than 64 MiB"},
    ),
    "embedded newlines": _read("a.csv", in_csv(b'"x,\ny\r\n\nz?",1'), GOOD + 1, said={14: "x,\ny\r\n\nz?"}),
    "doubled quotes": _read("a.csv", in_csv(b'"say ""hi""?",1'), GOOD + 1, said={14: 'say "hi"?'}),
    "a byte order mark before a header": _read("a.csv", b"\xef\xbb\xbf" + in_csv()),
    "carriage returns and newlines": _read("a.csv", in_csv(end=b"\r\n")),
    "blank lines": _read("a.csv", in_csv(b"", b"   ", b"\r")),
    "a field of 200 KiB": Case("a.csv", in_csv(b"x" * 200_000 + b",1"), dropped={14: ("longer than 256 tokens", "")}),
    "a null as text": _read("a.csv", in_csv(b"NA,null"), GOOD + 1, said={14: "NA"}),
    "an empty field": Case("a.csv", in_csv(b"x,"), dropped={14: ("empty answer", "turn 1")}),
    "only a header": _whole("a.csv", b"question,answer\n", "holds no rows. Fill it, or leave it out."),
    "a header twice the same": _whole("a.csv", in_csv(header=b"answer,answer"), "its header has 'answer' twice"),
    "a column without a name": _whole("a.csv", in_csv(header=b"question,"), "column 2 of its header has no name"),
    "an empty header": _whole("a.csv", in_csv(header=b'"",""'), "column 1 of its header has no name; it has '', ''"),
    "semicolons in the header alone": _whole("a.csv", in_csv(header=b"question;answer"), "none of its lines is a row"),
    "a line break in the name of a column": _read(
        "a.csv", b'question,answer,"more\nwords"\n' + b"".join(b"%d?,5,\n" % n for n in range(GOOD))
    ),
    "semicolons": _read("a.csv", in_csv().replace(b",", b";")),
    "commas in a .tsv file": _read("a.tsv", in_csv()),
    "no header": _whole("a.csv", in_csv(header=b"x?,5"), "no format has them"),
    "a header with a quote that is never closed": _whole("a.csv", b'"question,answer\n1,2\n', "its header has a quote"),
    "carriage returns alone": _whole("a.csv", in_csv(end=b"\r"), "its header has a carriage return within a line"),
    "a header in Latin-1": _whole("a.csv", in_csv(header="question,r\u00e9ponse".encode("latin-1")), "its header"),
    "a header with spaces": _whole(
        "a.csv", in_csv(header=b"question, answer"), "has no column 'answer'; it has", format="question-answer"
    ),
    "a NUL byte in a header": _whole("a.csv", in_csv(header=b"question,ans\0wer"), "its header"),
}
FILES = {
    "an empty file": _whole("a.jsonl", b"", "is empty. Fill it, or leave it out."),
    "an empty .json file": _whole("a.json", b"", "is empty. Fill it, or leave it out."),
    "an empty .csv file": _whole("a.csv", b"", "is empty. Fill it, or leave it out."),
    "an empty table": _whole("a.parquet", b"", "is empty. Fill it, or leave it out."),
    "a file of nothing but white space": _whole("a.jsonl", b"\n \r\n\n", "holds no rows"),
    "a .json file of nothing but white space": _whole("a.json", b"\n \r\n\n", "holds no rows"),
    "a byte order mark and nothing else": _whole("a.jsonl", b"\xef\xbb\xbf", "holds no rows"),
    "an empty array": _whole("a.json", b"[]", "holds no rows"),
    "an empty object": _whole("a.json", b"{}", "holds no rows"),
    "a scalar": _whole("a.json", b'"text"', "it begins with '\"text\"', and a JSON file begins with [ or {."),
    "an array of arrays": _whole("a.json", b"[[1, 2], [3, 4]]", "row 1: a JSON list, not an object: '[1, 2]'"),
    "an object of lists": _whole(
        "a.json", b'{"question": ["x", "y"], "answer": ["1", "2"]}', "1 row was dropped: a list in the user turn"
    ),
    "several lists of rows": _whole(
        "a.json", b'{"train": ' + ARRAY + b', "test": ' + ARRAY + b"}", 'several lists of objects, "train" and "test"'
    ),
    "several lists of rows, the name of one in Latin-1": _whole(
        "a.json", b'{"train": ' + ARRAY + b', "\xe4": ' + ARRAY + b"}", "several lists of objects"
    ),
    "rows two keys deep": _whole("a.json", b'{"data": {"train": ' + ARRAY + b"}}", "and no format has them"),
    "an array on one line of a .jsonl file": _whole("a.jsonl", ARRAY, "It looks like one JSON array: name it .json."),
    "an indented array in a .jsonl file": _whole(
        "a.jsonl", json.dumps(ROWS, indent=1).encode(), "It looks like one JSON array: name it .json."
    ),
    "an indented object in a .jsonl file": _whole(
        "a.jsonl", json.dumps(ROWS[0], indent=1).encode(), "none of its lines is a row. line 1: no valid JSON: unexp"
    ),
    "carriage returns between JSON lines": _whole("a.jsonl", ALL.replace(b"\n", b"\r"), "line 1: a carriage return"),
    "a page of a web server": _whole(
        "a.jsonl", b"<!DOCTYPE html>\n<html></html>\n", "line 1: no valid JSON: unexpected character, expected a JSON"
    ),
    "UTF-16 with a mark": _whole("a.jsonl", ALL.decode().encode("utf-16"), "it is UTF-16, and UTF-8 is what is read."),
    "UTF-16, little end first": _whole("a.jsonl", ALL.decode().encode("utf-16-le"), "it is UTF-16LE"),
    "UTF-16, big end first": _whole("a.csv", in_csv().decode().encode("utf-16-be"), "it is UTF-16BE"),
    "UTF-16, big end first, with a mark": _whole("a.csv", b"\xfe\xff" + "a".encode("utf-16-be") * 9, "it is UTF-16,"),
    "UTF-32": _whole("a.json", ARRAY.decode().encode("utf-32"), "it is UTF-32,"),
    "a gzip file that is cut short": _whole(
        "a.jsonl.gz", gzip.compress(ALL)[:-9], "its gzip data is damaged or cut short"
    ),
    "a gzip file with other data behind it": _whole(
        "a.jsonl.gz", gzip.compress(ALL) + b"text", "its gzip data is damaged or cut short (Not a gzipped file"
    ),
    "a gzip file with a wrong checksum": _whole(
        "a.jsonl.gz", gzip.compress(ALL)[:-8] + b"\1" * 8, "its gzip data is damaged or cut short (CRC check failed"
    ),
    "an empty gzip file": _whole("a.jsonl.gz", gzip.compress(b""), "is empty. Fill it, or leave it out."),
    "no byte at all, named .gz": _whole("a.jsonl.gz", b"", "is empty. Fill it, or leave it out."),
    "text named .gz": _whole("a.jsonl.gz", ALL, "its name says gzip, and it begins with b'{\"questi'"),
    "a bzip2 file that is cut short": _whole("a.csv.bz2", bz2.compress(in_csv())[:-9], "its bzip2 data is damaged"),
    "an xz file that is cut short": _whole("a.json.xz", lzma.compress(ARRAY)[:-9], "its xz data is damaged"),
    "a zstd file that is damaged": _whole(
        "a.jsonl.zst", _zstd(ALL)[:20] + b"\xff" * 20, "its zstd data is damaged or cut short"
    ),
    "a zstd file that is cut short": _whole("a.jsonl.zst", _zstd(ALL)[:-9], "its zstd data is damaged or cut short"),
    "a zip archive": _whole("a.jsonl", b"PK\x03\x04" + bytes(99), "a.jsonl is a zip archive. Unpack it"),
    "another kind": _whole("a.txt", ALL, "a.txt is of no kind that can be read; its name must end in .jsonl"),
    "no file": _whole("a.jsonl", lambda path: None, "no file matches"),
    "a folder with the name of a file": _whole("a.jsonl", lambda path: path.mkdir(), "is a folder"),
    "a link to nothing": _whole("a.jsonl", lambda path: path.symlink_to("nowhere.jsonl"), "link"),
    "a link to itself": _whole("a.jsonl", lambda path: path.symlink_to(path.name), "link"),
    "a file that breaks off while it is read": _whole(
        "a.jsonl", lambda path: path.symlink_to("/proc/self/mem"), "a.jsonl cannot be read: [Errno 5] Input/output er"
    ),
    "a name that is no UTF-8": _whole("\udcff.jsonl", ALL, "UTF-8"),
    "a name with a line break": _read("a\nb.jsonl", ALL),
}
TABLES = {
    "a table that is cut short": _whole("a.parquet", TABLE[:-20], "it is no whole Parquet file"),
    "a table with another beginning": _whole("a.parquet", ALL, "it is no whole Parquet file"),
    "a table that is encrypted": _whole("a.parquet", b"PARE" + TABLE[4:-4] + b"PARE", "it is no whole Parquet file"),
    "a table with a damaged page": _whole(
        "a.parquet", TABLE[:4] + b"\xff" * 60 + TABLE[64:], "it is no whole Parquet file"
    ),
    "a table with a damaged footer": _whole(
        "a.parquet", TABLE[:-200] + b"\xff" * 150 + TABLE[-50:], "it is no whole Parquet file"
    ),
    "a table without rows": _whole("a.parquet", in_parquet(pa.table({"question": [], "answer": []})), "holds no rows"),
    "a table without columns": _whole("a.parquet", in_parquet(pa.table({})), "holds no rows"),
    "a table with a column twice": _whole(
        "a.parquet", in_parquet(pa.table([["x"], ["y"]], names=["answer", "answer"])), "has two columns 'answer'"
    ),
    "a table of nulls": _whole(
        "a.parquet", in_parquet([{"question": None, "answer": None}] * 9), "9 rows were dropped: empty user turn"
    ),
    "a null in a table": Case(
        "a.parquet", in_parquet([*ROWS, {"question": "x", "answer": None}]), dropped={13: ("empty answer", "turn 1")}
    ),
    "text that is no UTF-8 in a table": Case(
        "a.parquet",
        in_parquet(
            pa.table(
                {
                    name: pa.array([row[name].encode() for row in ROWS] + [b"\xff"], pa.binary()).view(pa.string())
                    for name in ROWS[0]
                }
            )
        ),
        unreadable={13: "not valid UTF-8"},
    ),
    "bytes that are text": _read(
        "a.parquet", in_parquet([{"question": q.encode(), "answer": a} for q, a in map(_qa, ROWS)])
    ),
    "bytes that are no text": Case(
        "a.parquet",
        in_parquet(
            [{"question": q.encode(), "answer": a} for q, a in map(_qa, ROWS)] + [{"question": b"\xff", "answer": "x"}]
        ),
        dropped={13: ("bytes", "question")},
    ),
    "a list of records": _read("a.parquet", in_parquet([{"messages": turns} for turns in TURNS])),
    "a map instead of a list of records": _whole(
        "a.parquet",
        in_parquet(pa.table({"messages": pa.array([[("user", "x")]] * 3, pa.map_(pa.string(), pa.string()))})),
        "3 rows were dropped: a list, not a record",
        format="messages",
    ),
    "numbers and dates as questions": _whole(
        "a.parquet",
        in_parquet([{"question": Decimal("1.5"), "answer": 7.5}] * 9),
        "9 rows were dropped: a number in the",
    ),
    "a date beyond the calendar": Case(
        "a.parquet",
        in_parquet(_with(pa.array([0] * 11 + [2**62], pa.timestamp("us")))),
        kept=11,
        unreadable={12: "a value that cannot be read: "},
    ),
    "a day beyond the calendar": Case(
        "a.parquet",
        in_parquet(_with(pa.array([0] * 11 + [2**31 - 1], pa.date32()))),
        kept=11,
        unreadable={12: "a value that cannot be read: "},
    ),
    "a duration beyond all bounds": Case(
        "a.parquet",
        in_parquet(_with(pa.array([0] * 11 + [2**62], pa.duration("s")))),
        kept=11,
        unreadable={12: "a value that cannot be read: "},
    ),
    "a time in nanoseconds": _read(
        "a.parquet",
        in_parquet(_with(pa.array([1] * GOOD, pa.timestamp("ns")))),
    ),
    "a time zone that nobody knows": _whole(
        "a.parquet", in_parquet(_with(pa.array([1] * GOOD, pa.timestamp("us", "Mars/X")))), "a.parquet cannot be read"
    ),
    "a time of day in nanoseconds": _read(
        "a.parquet",
        in_parquet(_with(pa.array([1] * GOOD, pa.time64("ns")))),
    ),
    "a record with a field twice": _whole(
        "a.parquet",
        in_parquet(
            pa.Table.from_pylist(ROWS).append_column(
                "more", pa.StructArray.from_arrays([pa.array(["x"] * GOOD)] * 2, names=["a", "a"])
            )
        ),
        "a.parquet",
    ),
    "a table of deep nesting": _whole("a.parquet", in_parquet(_with(_deep(300))), "schema too deeply nested"),
    "a table of some nesting": _read("a.parquet", in_parquet(_with(_deep(60)))),
    "a pointer of git in place of a table": _whole(
        "a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\n", "is a Git LFS pointer"
    ),
}

READ = {
    "a byte order mark": _read("a.jsonl", b"\xef\xbb\xbf" + ALL),
    "carriage returns before newlines": _read("a.jsonl", ALL.replace(b"\n", b"\r\n")),
    "no newline at the end": _read("a.jsonl", ALL.rstrip()),
    "empty lines": _read("a.jsonl", ALL.replace(b"\n", b"\n\n \t\r\n")),
    "gzip in several parts": _read(
        "a.jsonl.gz", gzip.compress(in_lines(*ROWS[:5])) + gzip.compress(in_lines(*ROWS[5:]))
    ),
    "gzip that its name does not tell": _read("a.jsonl", gzip.compress(ALL)),
    "bzip2 named .gz": _read("a.jsonl.gz", bz2.compress(ALL)),
    "the last of two keys that are the same": _read(
        "a.jsonl", among(b'{"question": "x", "answer": "y", "question": "z"}'), GOOD + 1, said={3: "z"}
    ),
    "an integer beyond 64 bits": _read(
        "a.jsonl", among(b'{"question": "x", "answer": "y", "id": 123456789012345678901234567890}'), GOOD + 1
    ),
    "nesting of 900 levels": _read(
        "a.jsonl", among(b'{"question": "x", "answer": "y", "more": ' + nested(900).encode() + b"}"), GOOD + 1
    ),
    "a key without a name": _read("a.jsonl", among({"question": "x", "answer": "y", "": 1, "\0": 2}), GOOD + 1),
    "an array indented": _read("a.json", json.dumps(ROWS, indent=4).encode()),
    "rows beside other lists": _read("a.json", json.dumps({"tags": ["a"], "none": [], "data": ROWS}).encode()),
    "lines named .json": _read("a.json", ALL),
    "private-use characters": _said("\ue000turn 1\ue001 and \ue000turn 0\ue001?"),
    "a private-use character alone": _said("\ue001\ue000?"),
    "signs of templates": _said("%s %% %(x)s {{ eos_token }} {0} {% raw %}?"),
    "a special token spelled out": _said("What does </s> do? <s><pad></s>"),
    "headers of the template spelled out": _said("### Assistant:\nyes</s>\n\n### User:\nno?"),
    "an escaped NUL": _said("x\0y?"),
    "escaped control characters": _said("\x01\x1b[31m\x7f\u2028\u0085?"),
    "a byte order mark in text": _said("\ufeffx\ufffe\uffff?"),
    "characters beyond 16 bits": _said("\U0001f600\U0010ffff?"),
    "text from right to left": _said("\u202eabc\u202c?"),
    "a thousand combining marks": _said("x" + "\u0301" * 30 + "?"),
}
BAD_ROWS = {
    "an object without keys": _bad_row({}, "a column is missing", "question"),
    "a column that is missing in one row": _bad_row({"question": "x"}, "a column is missing", "answer"),
    "a mapped column that is missing in one row": Case(
        "a.jsonl",
        among({"Q": "x"}, [{"Q": q, "A": a} for q, a in map(_qa, ROWS)]),
        dropped={3: ("a column is missing", "A")},
        source={"format": "question-answer", "columns": {"question": "Q", "answer": "A"}},
    ),
    "a column that is mapped to none": _whole(
        "a.jsonl",
        ALL,
        "columns.answer: the data set",
        format="question-answer",
        columns={"answer": "Antwort"},
    ),
    "columns of no format": _whole("a.jsonl", in_lines(*[{"x": 1, "y": 2}] * 9), "no format has them"),
    "a column name of many letters": _whole("a.jsonl", in_lines({"x" * 9_999: 1}), "no format has them"),
    "a thousand columns": _whole("a.jsonl", in_lines({f"c{i}": 1 for i in range(1_000)}), "no format has them"),
    "a column name with control characters": _whole("a.jsonl", in_lines({"\x1b[31m\0": 1}), "no format has them"),
    "the columns of two formats": _whole(
        "a.jsonl", in_lines(*[row | {"prompt": "x", "completion": "y"} for row in ROWS]), "as well as"
    ),
    "a question that is null": _bad_row({"question": None, "answer": "x"}, "empty user turn", "turn 0"),
    "a number as a question": _bad_row(
        {"question": 7, "answer": "x"}, "a number in the user turn, not text", "question"
    ),
    "a boolean as an answer": _bad_row(
        {"question": "x", "answer": True}, "true or false in the assistant turn, not text", "answer"
    ),
    "a list as a question": _bad_row(
        {"question": ["x"], "answer": "x"}, "a list in the user turn, not text", "question"
    ),
    "a record as an answer": _bad_row(
        {"question": "x", "answer": {"text": "x"}}, "a record in the assistant turn, not text", "answer"
    ),
    "an empty answer": _bad_row({"question": "x", "answer": ""}, "empty answer", "turn 1"),
    **{
        f"an answer of {name}": _bad_row({"question": "x", "answer": blank}, "empty answer", "turn 1")
        for name, blank in {
            "spaces": "   ",
            "line breaks": "\r\n\t\v\f",
            "wide spaces": "\u00a0\u2003\u3000\u202f",
            "line separators": "\u2028\u2029\u0085",
            "information separators": "\x1c\x1d\x1e\x1f",
            "invisible characters": "\u200b\ufeff\u2060",
        }.items()
    },
    "a row over max_length": _bad_row({"question": "long " * 300, "answer": "x"}, "longer than 256 tokens", ""),
    "a field of 3 MB": _bad_row({"question": "x" * 3_000_000, "answer": "x"}, "longer than 256 tokens", ""),
    "an answer of 1 MB of words": _bad_row(
        {"question": "x", "answer": "word " * 200_000}, "longer than 256 tokens", ""
    ),
    "the same row twice": Case("a.jsonl", in_lines(*ROWS, ROWS[0]), dropped={13: ("word for word an earlier row", "")}),
    "rows of another format": _bad_row({"messages": TURNS[0]}, "a column is missing", "question"),
    "more rows than there are": _whole("a.jsonl", ALL, "1000 rows are asked for, and", rows=1000),
}
# Python's own encoder does not nest that deep.
_DEEP = f'{{"messages": [{{"role": {nested(1000)}, "content": "x"}}]}}'.encode()
CONVERSATIONS = {
    "an unknown role": _turns([{"role": "critic", "content": "x"}, ANSWERED], "unknown role 'critic'", "messages[0]"),
    "a role of another case": _kept_turns([{"role": "User", "content": "x"}, ANSWERED], "x"),
    "a role with a space": _kept_turns([{"role": "user ", "content": "x"}, ANSWERED], "x"),
    "a role that is missing": _turns([ASKED, {"content": "x"}], "no role", "messages[1]"),
    "a role that is null": _turns([ASKED, {"role": None, "content": "x"}], "no role", "messages[1]"),
    "a role that is a number": _turns([{"role": 1, "content": "x"}, ANSWERED], "a number as the role", "messages[0]"),
    "a role that is a list": _turns([{"role": ["user"], "content": "x"}], "a list as the role", "messages[0]"),
    "a role that is called None": _turns([{"role": "None", "content": "x"}], "unknown role 'None'", "messages[0]"),
    "a role that is called 1": _turns([{"role": "1", "content": "x"}], "unknown role '1'", "messages[0]"),
    "a role of deep nesting": _turns(_DEEP, "a record as the role", "messages[0]"),
    "two users in a row": _turns([ASKED, ASKED, ANSWERED], "two user turns in a row", "turn 1"),
    "two assistants in a row": _turns([ASKED, ANSWERED, ANSWERED], "two assistant turns in a row", "turn 2"),
    "a system message in the middle": _turns(
        [ASKED, ANSWERED, {"role": "system", "content": "x"}, ASKED, ANSWERED],
        "a system message that is not the first",
        "turn 2",
    ),
    "two system messages": _turns(
        [{"role": "system", "content": "x"}] * 2 + [ASKED, ANSWERED], "a system message that is not the first", "turn 1"
    ),
    "only a system message": _turns(
        [{"role": "system", "content": "x"}], "ends with a system turn, not with an answer", "turn 0"
    ),
    "an empty system message and nothing else": _turns([{"role": "system", "content": ""}], "no turns at all", ""),
    "an answer after a system message": _turns(
        [{"role": "system", "content": "x"}, ANSWERED], "an assistant turn after the system turn", "turn 1"
    ),
    "an answer first": _turns([ANSWERED, ASKED, ANSWERED], "an assistant turn first", "turn 0"),
    "a question last": _turns([ASKED, ANSWERED, ASKED], "ends with a user turn, not with an answer", "turn 2"),
    "a tool first": _turns([{"role": "tool", "content": "x"}, ANSWERED], "a tool turn first", "turn 0"),
    "a tool last": _turns(
        [ASKED, ANSWERED | {"tool_calls": [CALL]}, {"role": "tool", "content": "x"}],
        "ends with a tool turn, not with an answer",
        "turn 2",
    ),
    "an answer that is empty": _turns([ASKED, {"role": "assistant", "content": ""}], "empty answer", "turn 1"),
    "a question of white space": _turns([{"role": "user", "content": " \n"}, ANSWERED], "empty user turn", "turn 0"),
    "content that is null": _turns([ASKED, {"role": "assistant", "content": None}], "empty answer", "turn 1"),
    "content that is missing": _turns([ASKED, {"role": "assistant"}], "empty answer", "turn 1"),
    "content that is a number": _turns(
        [ASKED, {"role": "assistant", "content": 5.5}], "a number in the assistant turn, not text", "messages[1]"
    ),
    "content that is a whole number": _kept_turns([ASKED, {"role": "assistant", "content": 17}], "2 + 3?"),
    "content that is a list of parts": _kept_turns(
        [{"role": "user", "content": [{"type": "text", "text": "x y "}, {"type": "text", "text": "z"}]}, ANSWERED],
        "x y z",
    ),
    "content with a part that is no text": _turns(
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ANSWERED],
        "a part of the type 'image_url' in the user turn, not text",
        "messages[0].content[0]",
    ),
    "content that is a record": _turns(
        [{"role": "user", "content": {"text": "x"}}, ANSWERED], "a record in the user turn, not text", "messages[0]"
    ),
    "messages that are text": _turns("user: x", "text, not a list of records", "messages"),
    "messages that are JSON text": _kept_turns(json.dumps([{"role": "user", "content": "x y"}, ANSWERED]), "x y"),
    "messages that are null": _turns({"messages": None}, "nothing, not a list of records", "messages"),
    "messages that are a record": _turns(
        {"messages": {"role": "user", "content": "x"}}, "a record, not a list of records", "messages"
    ),
    "no messages": _turns([], "no turns at all", ""),
    "messages that are missing": _turns({"text": "x"}, "a column is missing", "messages"),
    "a message that is text": _turns([ASKED, "5"], "text, not a record", "messages[1]"),
    "a message that is null": _turns([ASKED, None], "nothing, not a record", "messages[1]"),
    "a message that is a list": _turns([["user", "x"], ["assistant", "y"]], "a list, not a record", "messages[0]"),
    "a turn of sharegpt in messages": _turns(
        [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}], "no role", "messages[0]"
    ),
    "calls that are text": _turns(
        [ASKED, ANSWERED | {"tool_calls": "add(2)"}], "no JSON, which tool calls have to be", "messages[1].tool_calls"
    ),
    "calls that are a number": _turns(
        [ASKED, ANSWERED | {"tool_calls": 7}], "a number, not a list of tool calls", "messages[1].tool_calls"
    ),
    "a call that is text": _turns(
        [ASKED, ANSWERED | {"tool_calls": ["add(2)"]}],
        "no JSON, which tool calls have to be",
        "messages[1].tool_calls",
    ),
    "calls that the template does not write": _turns(
        [ASKED, ANSWERED | {"tool_calls": [CALL]}], "the chat template has no tools", ""
    ),
    "tools that the template does not write": _turns(
        {"messages": TURNS[0], "tools": [CALL]}, "the chat template has no tools", "tools"
    ),
    "tools that are no JSON": _turns(
        {"messages": TURNS[0], "tools": "add(a, b)"}, "no JSON, which tools have to be", "tools"
    ),
    "tools that are a number": _turns({"messages": TURNS[0], "tools": 7}, "a number, not a list of tools", "tools"),
    "tools that are a record": _turns({"messages": TURNS[0], "tools": CALL}, "a record, not a list of tools", "tools"),
    "a tool that is text": _turns({"messages": TURNS[0], "tools": ["add"]}, "no JSON, which tools have to be", "tools"),
    "tools of deep nesting": _turns(
        {"messages": TURNS[0], "tools": "[" * 100_000 + "]" * 100_000}, "no JSON, which tools have to be", "tools"
    ),
    "tools with a surrogate alone": _turns(
        {"messages": [ASKED, ANSWERED], "tools": '[{"name": "\\ud800"}]'},
        "no JSON, which tools have to be",
        "tools",
        template=WITH_TOOLS,
    ),
    "tools with NaN": _turns(
        {"messages": [ASKED, ANSWERED], "tools": '[{"name": NaN}]'},
        "no JSON, which tools have to be",
        "tools",
        template=WITH_TOOLS,
    ),
    "tools with an integer beyond 64 bits": _kept_turns(
        {"messages": [ASKED, ANSWERED], "tools": '[{"name": 123456789012345678901234567890}]'},
        "2 + 3?",
        template=WITH_TOOLS,
    ),
    "a name nested 300 levels": _turns(
        [ASKED, ANSWERED | {"name": json.loads(nested(300))}],
        "a record as the name, not text",
        "messages[1].name",
        template=WITH_TOOLS,
    ),
    "calls nested 300 levels": _turns(
        [ASKED, ANSWERED | {"tool_calls": [json.loads(nested(300))]}],
        "tool calls that are nested too deeply",
        "messages[1].tool_calls",
        template=WITH_TOOLS,
    ),
    "two hundred turns": _turns([ASKED, ANSWERED] * 100, "longer than 256 tokens", ""),
    "a template that refuses": _turns(
        [{"role": "system", "content": "x"}, ASKED, ANSWERED],
        "the chat template refuses it: No system turn",
        "",
        template="{% if messages[0].role == 'system' %}{{ raise_exception('No system turn') }}{% endif %}" + WITH_TOOLS,
    ),
    "an unknown sender": _pairs(
        [{"from": "alien", "value": "x"}, {"from": "gpt", "value": "y"}], "unknown role 'alien'", "conversations[0]"
    ),
    "a sender of another case": _pairs(
        [{"from": "Alien", "value": "x"}, {"from": "gpt", "value": "y"}], "unknown role 'Alien'", "conversations[0]"
    ),
    "a sender that is missing": _pairs([{"value": "x"}, {"from": "gpt", "value": "y"}], "no role", "conversations[0]"),
    "a value that is missing": _pairs([{"from": "human", "value": "x"}, {"from": "gpt"}], "empty answer", "turn 1"),
    "no output": _alpaca({"instruction": "x", "input": ""}, "a column is missing", "output"),
    "an output that is null": _alpaca({"instruction": "x", "input": "", "output": None}, "empty answer", "turn 1"),
    "an input that is a list": _alpaca(
        {"instruction": "x", "input": [1], "output": "x"}, "a list in the input, not text", "input"
    ),
}
CASES = {**LINES, **ELEMENTS, **CSV, **FILES, **TABLES, **READ, **BAD_ROWS, **CONVERSATIONS}
# Cases with one fault, which may share what is said of them.
ALIKE: list[set[str]] = [
    {
        "a line that is cut short",
        "a line without its closing brace",
        "an array that is cut short",
        "an array without its bracket",
        "an object of rows that is cut short",
        "a broken line of a .json file of lines",
    },
    {"single quotes", "no quotes around a key"},
    {"a comment", "plain text"},
    {"NaN", "Infinity", "NaN in an array"},
    {
        "a number out of range",
        "a number out of range in an array",
        "an integer of thousands of digits",
        "an integer of thousands of digits in an array",
    },
    {"a number as a row", "a number in an array"},
    {"a string as a row", "JSON within a string"},
    {"a null as a row", "a null in an array"},
    {"two objects on a line", "two objects with a comma", "a comma after the object"},
    {"a NUL byte in text", "a line of NUL bytes", "a NUL byte in a field", "a NUL byte in an array"},
    {"a control character", "a tab in text"},
    {"a leading surrogate alone", "a trailing surrogate alone", "a surrogate alone in an array"},
    {
        "UTF-8 broken in the middle",
        "UTF-8 broken at the end",
        "Latin-1",
        "an encoded surrogate",
        "an overlong encoding",
        "broken UTF-8 in an array",
        "Latin-1 in a field",
        "text that is no UTF-8 in a table",
    },
    {"deep nesting", "deep nesting of lists", "deep nesting without an end", "deep nesting in an array"},
    {"a line over the limit", "a field over the limit"},
    {"two arrays", "text after an array"},
    {"too few fields", "a semicolon instead of a comma"},
    {"text after a closing quote", "quotes escaped by backslashes"},
    {
        "a field of 200 KiB",
        "a row over max_length",
        "a field of 3 MB",
        "an answer of 1 MB of words",
        "two hundred turns",
    },
    {
        "an empty field",
        "a null in a table",
        "an empty answer",
        "an answer of spaces",
        "an answer of line breaks",
        "an answer of wide spaces",
        "an answer of line separators",
        "an answer of information separators",
        "an answer of invisible characters",
        "an answer that is empty",
        "content that is null",
        "content that is missing",
        "a value that is missing",
        "an output that is null",
    },
    {
        "only a header",
        "a file of nothing but white space",
        "a .json file of nothing but white space",
        "a byte order mark and nothing else",
        "an empty array",
        "an empty object",
        "a table without rows",
        "a table without columns",
    },
    {
        "an empty file",
        "an empty .json file",
        "an empty .csv file",
        "an empty table",
        "an empty gzip file",
        "no byte at all, named .gz",
    },
    {"several lists of rows", "several lists of rows, the name of one in Latin-1"},
    {"UTF-16 with a mark", "UTF-16, big end first, with a mark"},
    {"a zstd file that is damaged", "a zstd file that is cut short"},
    {"a link to nothing", "a link to itself"},
    {"calls that the template does not write", "tools that the template does not write"},
    {"a table that is cut short", "a table with another beginning"},
    {
        "an object without keys",
        "a column that is missing in one row",
        "a mapped column that is missing in one row",
        "rows of another format",
        "messages that are missing",
        "no output",
    },
    {"a column name of many letters", "a column name with control characters"},
    {"a question that is null", "a question of white space"},
    {"a role that is missing", "a role that is null", "a turn of sharegpt in messages", "a sender that is missing"},
    {"a system message in the middle", "two system messages"},
    {"an empty system message and nothing else", "no messages"},
    {"calls that are text", "a call that is text"},
    {
        "tools that are no JSON",
        "a tool that is text",
        "tools of deep nesting",
        "tools with a surrogate alone",
        "tools with NaN",
    },
]
