"""Files that cannot be read at all, and odd ones that are read to their end."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa

from tests.finetuning.dataset.malformed_case import (
    ALL,
    ARRAY,
    GOOD,
    ROWS,
    Case,
    among,
    in_csv,
    in_lines,
    nested,
    read,
    whole,
)


def _said(question: str) -> Case:
    """A question that has to survive as it is."""
    return Case("a.jsonl", among({"question": question, "answer": "x"}), kept=GOOD + 1, said={3: question})


def _zstd(content: bytes) -> bytes:
    return pa.compress(content, "zstd", asbytes=True)


FILES = {
    "an empty file": whole("a.jsonl", b"", "is empty. Fill it, or leave it out."),
    "an empty .json file": whole("a.json", b"", "is empty. Fill it, or leave it out."),
    "an empty .csv file": whole("a.csv", b"", "is empty. Fill it, or leave it out."),
    "an empty table": whole("a.parquet", b"", "is empty. Fill it, or leave it out."),
    "a file of nothing but white space": whole("a.jsonl", b"\n \r\n\n", "holds no rows"),
    "a .json file of nothing but white space": whole("a.json", b"\n \r\n\n", "holds no rows"),
    "a byte order mark and nothing else": whole("a.jsonl", b"\xef\xbb\xbf", "holds no rows"),
    "an empty array": whole("a.json", b"[]", "holds no rows"),
    "an empty object": whole("a.json", b"{}", "holds no rows"),
    "a scalar": whole("a.json", b'"text"', "it begins with '\"text\"', and a JSON file begins with [ or {."),
    "an array of arrays": whole("a.json", b"[[1, 2], [3, 4]]", "row 1: a JSON list, not an object: '[1, 2]'"),
    "an object of lists": whole(
        "a.json", b'{"question": ["x", "y"], "answer": ["1", "2"]}', "1 row was dropped: a list in the user turn"
    ),
    "several lists of rows": whole(
        "a.json", b'{"train": ' + ARRAY + b', "test": ' + ARRAY + b"}", 'several lists of objects, "train" and "test"'
    ),
    "several lists of rows, the name of one in Latin-1": whole(
        "a.json", b'{"train": ' + ARRAY + b', "\xe4": ' + ARRAY + b"}", "several lists of objects"
    ),
    "rows two keys deep": whole("a.json", b'{"data": {"train": ' + ARRAY + b"}}", "and no format has them"),
    "an array on one line of a .jsonl file": whole("a.jsonl", ARRAY, "It looks like one JSON array: name it .json."),
    "an indented array in a .jsonl file": whole(
        "a.jsonl", json.dumps(ROWS, indent=1).encode(), "It looks like one JSON array: name it .json."
    ),
    "an indented object in a .jsonl file": whole(
        "a.jsonl", json.dumps(ROWS[0], indent=1).encode(), "none of its lines is a row. line 1: no valid JSON: unexp"
    ),
    "carriage returns between JSON lines": whole("a.jsonl", ALL.replace(b"\n", b"\r"), "line 1: a carriage return"),
    "a page of a web server": whole(
        "a.jsonl", b"<!DOCTYPE html>\n<html></html>\n", "line 1: no valid JSON: unexpected character, expected a JSON"
    ),
    "UTF-16 with a mark": whole("a.jsonl", ALL.decode().encode("utf-16"), "it is UTF-16, and UTF-8 is what is read."),
    "UTF-16, little end first": whole("a.jsonl", ALL.decode().encode("utf-16-le"), "it is UTF-16LE"),
    "UTF-16, big end first": whole("a.csv", in_csv().decode().encode("utf-16-be"), "it is UTF-16BE"),
    "UTF-16, big end first, with a mark": whole("a.csv", b"\xfe\xff" + "a".encode("utf-16-be") * 9, "it is UTF-16,"),
    "UTF-32": whole("a.json", ARRAY.decode().encode("utf-32"), "it is UTF-32,"),
    "a gzip file that is cut short": whole(
        "a.jsonl.gz", gzip.compress(ALL)[:-9], "its gzip data is damaged or cut short"
    ),
    "a gzip file with other data behind it": whole(
        "a.jsonl.gz", gzip.compress(ALL) + b"text", "its gzip data is damaged or cut short (Not a gzipped file"
    ),
    "a gzip file with a wrong checksum": whole(
        "a.jsonl.gz", gzip.compress(ALL)[:-8] + b"\1" * 8, "its gzip data is damaged or cut short (CRC check failed"
    ),
    "an empty gzip file": whole("a.jsonl.gz", gzip.compress(b""), "is empty. Fill it, or leave it out."),
    "no byte at all, named .gz": whole("a.jsonl.gz", b"", "is empty. Fill it, or leave it out."),
    "text named .gz": whole("a.jsonl.gz", ALL, "its name says gzip, and it begins with b'{\"questi'"),
    "a bzip2 file that is cut short": whole("a.csv.bz2", bz2.compress(in_csv())[:-9], "its bzip2 data is damaged"),
    "an xz file that is cut short": whole("a.json.xz", lzma.compress(ARRAY)[:-9], "its xz data is damaged"),
    "a zstd file that is damaged": whole(
        "a.jsonl.zst", _zstd(ALL)[:20] + b"\xff" * 20, "its zstd data is damaged or cut short"
    ),
    "a zstd file that is cut short": whole("a.jsonl.zst", _zstd(ALL)[:-9], "its zstd data is damaged or cut short"),
    "a zip archive": whole("a.jsonl", b"PK\x03\x04" + bytes(99), "a.jsonl is a zip archive. Unpack it"),
    "another kind": whole("a.txt", ALL, "a.txt is of no kind that can be read; its name must end in .jsonl"),
    "no file": whole("a.jsonl", lambda path: None, "no file matches"),
    "a folder with the name of a file": whole("a.jsonl", lambda path: path.mkdir(), "is a folder"),
    "a link to nothing": whole("a.jsonl", lambda path: path.symlink_to("nowhere.jsonl"), "link"),
    "a link to itself": whole("a.jsonl", lambda path: path.symlink_to(path.name), "link"),
    "a file that breaks off while it is read": whole(
        "a.jsonl", lambda path: path.symlink_to("/proc/self/mem"), "a.jsonl cannot be read: [Errno 5] Input/output er"
    ),
    "a name that is no UTF-8": whole("\udcff.jsonl", ALL, "UTF-8"),
    "a name with a line break": read("a\nb.jsonl", ALL),
}
READ = {
    "a byte order mark": read("a.jsonl", b"\xef\xbb\xbf" + ALL),
    "carriage returns before newlines": read("a.jsonl", ALL.replace(b"\n", b"\r\n")),
    "no newline at the end": read("a.jsonl", ALL.rstrip()),
    "empty lines": read("a.jsonl", ALL.replace(b"\n", b"\n\n \t\r\n")),
    "gzip in several parts": read(
        "a.jsonl.gz", gzip.compress(in_lines(*ROWS[:5])) + gzip.compress(in_lines(*ROWS[5:]))
    ),
    "gzip that its name does not tell": read("a.jsonl", gzip.compress(ALL)),
    "bzip2 named .gz": read("a.jsonl.gz", bz2.compress(ALL)),
    "the last of two keys that are the same": read(
        "a.jsonl", among(b'{"question": "x", "answer": "y", "question": "z"}'), GOOD + 1, said={3: "z"}
    ),
    "an integer beyond 64 bits": read(
        "a.jsonl", among(b'{"question": "x", "answer": "y", "id": 123456789012345678901234567890}'), GOOD + 1
    ),
    "nesting of 900 levels": read(
        "a.jsonl", among(b'{"question": "x", "answer": "y", "more": ' + nested(900).encode() + b"}"), GOOD + 1
    ),
    "a key without a name": read("a.jsonl", among({"question": "x", "answer": "y", "": 1, "\0": 2}), GOOD + 1),
    "an array indented": read("a.json", json.dumps(ROWS, indent=4).encode()),
    "rows beside other lists": read("a.json", json.dumps({"tags": ["a"], "none": [], "data": ROWS}).encode()),
    "lines named .json": read("a.json", ALL),
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
