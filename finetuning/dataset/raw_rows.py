"""A raw row as it is read and kept: one JSON object, and its place.

data/train.jsonl, line 7: {"question": "2 + 3?", "answer": "5"}
-> RawRow("data/train.jsonl", 7, b'{"question": "2 + 3?", "answer": "5"}')
data/train.jsonl, line 8: {"question": "2 +
-> Unreadable("data/train.jsonl", 8, "no valid JSON: unexpected end of data", '{"question": "2 +')
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import orjson
from pydantic import JsonValue

from finetuning.secrets import find_secret

MOST_BYTES = 64 << 20  # of one line or row
TOO_LONG = "longer than 64 MiB"
EXCERPT_CHARACTERS = 200
BOM = b"\xef\xbb\xbf"


class RawRow(NamedTuple):
    """A row as one JSON object in UTF-8, and its place: the line, or the number of the row, from 1."""

    file: str
    line: int
    text: bytes


class Unreadable(NamedTuple):
    """A line that no row could be read from; the reason is the same for all lines with that fault."""

    file: str
    line: int
    reason: str
    text: str


Item = RawRow | Unreadable


def json_item(name: str, number: int, text: bytes) -> Item:
    """The row that `text` is, or why it is none."""
    if len(text) > MOST_BYTES:
        return Unreadable(name, number, TOO_LONG, excerpt(text))
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return Unreadable(name, number, json_fault(error.msg, text), excerpt(text))
    if type(value) is dict:
        return RawRow(name, number, text)
    kind = {list: "list", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")
    return Unreadable(name, number, f"a JSON {kind}, not an object", excerpt(text))


def json_fault(said: str, text: bytes) -> str:
    """What is wrong with a JSON text, in words that are the same wherever in the text it is."""
    if text.startswith(BOM) or BOM in text[:16]:
        return "a byte order mark within the file"
    if "UTF-8" in said:
        return "not valid UTF-8"
    if b"\0" in text:
        return "a NUL byte"
    if "surrogate" in said:
        return "half of a surrogate pair (\\ud800 to \\udfff)"
    if "depth" in said:
        return "nested too deeply"
    if said.endswith(("expected a JSON value", "no digit after sign")) and re.search(rb"\b(NaN|Infinity)\b", text):
        return "NaN or Infinity, which JSON does not have"
    if b"\r" in text.strip():
        return "a carriage return, where lines end with a line feed"
    return f"no valid JSON: {said}"


def excerpt(text: bytes | str) -> str:
    """The beginning of a line, for a person to recognise it by."""
    start = text[: 4 * EXCERPT_CHARACTERS]
    shown = start.decode(errors="replace") if isinstance(start, bytes) else start
    # It is written to tables, logs and messages, where nobody looks for secrets.
    return "" if find_secret(shown) else shown[:EXCERPT_CHARACTERS].strip()


def row_item(name: str, number: int, row: Mapping[str, object] | str) -> Item:
    """The row as JSON, or why it cannot be; a text is the reason why there is no row."""
    try:
        if isinstance(row, str):
            return Unreadable(name, number, row, "")
        text = orjson.dumps(row, default=_plain, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        reasons = {"UTF-8": "not valid UTF-8", "64-bit": "a whole number of more than 64 bits"}
        reason = next((reason for word, reason in reasons.items() if word in str(error)), "nested too deeply")
        return Unreadable(name, number, reason, excerpt(str(row)[:1000]))
    return RawRow(name, number, text) if len(text) <= MOST_BYTES else Unreadable(name, number, TOO_LONG, excerpt(text))


def _plain(value: object) -> JsonValue:
    """A value that JSON has no kind for, as text; bytes that are no text as their number, which no format takes."""
    if isinstance(value, (bytes, bytearray)):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"bytes": len(value)}
    return str(value)
