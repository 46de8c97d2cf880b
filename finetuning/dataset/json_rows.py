"""Reads JSON rows out of a stream of any size: an object a line, an array of objects, or an object that holds one.

{"version": 1, "data": [{"question": "2 + 3?"}, {"question": "3 + 4?"}]}
-> row 1: {"question": "2 + 3?"}
   row 2: {"question": "3 + 4?"}
"""

import codecs
import io
import json
from collections.abc import Iterator
from typing import BinaryIO, cast

import orjson

from finetuning.dataset.raw_rows import MOST_BYTES, TOO_LONG, Item, RawRow, excerpt, json_item
from finetuning.errors import FinetuningError
from finetuning.secrets import masked

CHUNK_BYTES = 1 << 20
JSON_SPACE = " \t\r\n"
# Keys of a message. A list of such objects is a conversation in a row, not a list of rows.
TURNS = ({"role", "content"}, {"from", "value"})
# A number is read again from its text; here it may be longer than Python takes for a whole number.
DECODER = json.JSONDecoder(parse_int=float)


def json_lines(stream: BinaryIO, name: str) -> Iterator[Item]:
    """Yield a row for each line that is not empty, numbered by lines."""
    for number, line in lines(stream):
        text = line.strip(JSON_SPACE.encode())
        if text:
            yield json_item(name, number, text)


def lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number from 1; of a line longer than MOST_BYTES only the first MOST_BYTES + 1."""
    number = 0
    while line := stream.readline(MOST_BYTES + 1):
        number += 1
        yield number, line
        while len(line) > MOST_BYTES and not line.endswith(b"\n"):
            line = stream.readline(MOST_BYTES + 1)


def json_items(stream: BinaryIO, name: str, where: str) -> Iterator[Item]:
    """Yield the rows of a JSON file, numbered from 1; where it holds an object a line, numbered by lines.

    Raises:
        FinetuningError: the file begins with neither an object nor an array, holds several lists of objects, or breaks
            off being JSON: what follows cannot be told into rows, and is too much to lose.
    """
    if _is_lines(cast(io.BufferedReader, stream).peek()):
        yield from json_lines(stream, name)
        return
    text, number = _JsonText(stream), 0
    try:
        for value in _row_texts(text, name, where):
            number += 1
            yield json_item(name, number, value.encode(errors="surrogateescape"))
        if text.next_sign():
            raise _Break("text after the end of the JSON")
    except _Break as error:
        shown = excerpt(text.ahead().encode(errors="surrogateescape"))
        raise FinetuningError(
            f"{where}: {name} cannot be read beyond row {number}: {error}: {shown[:80]!r}. Mend it, or write an "
            "object a line into a .jsonl file, where a fault costs one row."
        ) from error


def _is_lines(start: bytes) -> bool:
    """Whether a file that starts like that holds an object a line, and more than one."""
    found = [line for line in start.split(b"\n") if line.strip()][:20]
    return len(found) > 1 and (_is_object(found[0]) or sum(map(_is_object, found)) > 1) and start.lstrip()[:1] == b"{"


def _is_object(line: bytes) -> bool:
    return isinstance(json_item("", 0, line.strip()), RawRow)


def _row_texts(text: "_JsonText", name: str, where: str) -> Iterator[str]:
    sign = text.next_sign()
    if sign == "[":
        text.skip()
        yield from text.value_texts()
    elif sign == "{":
        text.skip()
        yield from _rows_within(text, name, where)
    elif sign:
        raise FinetuningError(
            f"{where}: {name} cannot be read: it begins with {masked(text.ahead())[:40]!r}, and a JSON file "
            "begins with [ or {."
        )


def _rows_within(text: "_JsonText", name: str, where: str) -> Iterator[str]:
    """Yield the rows of the one list of objects in an object that has begun; without such a list, the object itself."""
    list_key, fields = None, []
    for key in text.key_texts():
        if sum(map(len, fields)) > MOST_BYTES:
            raise _Break(TOO_LONG)
        if text.next_sign() != "[":
            fields.append(f"{key}:{text.value_text()}")
            continue
        text.skip()
        values = text.value_texts()
        first = next(values, None)
        if first is None or not _is_row(first):
            fields.append(f"{key}:[{','.join([*([first] if first else []), *values])}]")
            continue
        if list_key:
            both = f"{list_key} and {key}".encode(errors="replace").decode()
            raise FinetuningError(
                f"{where}: {name} cannot be read: it holds several lists of objects, {both}. Keep the one that "
                "is the rows."
            )
        list_key = key
        yield first
        yield from values
    if not list_key and fields:
        yield "{" + ",".join(fields) + "}"


def _is_row(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        keys = orjson.loads(text).keys()
    except orjson.JSONDecodeError:
        return True
    return not any(turn <= keys for turn in TURNS)


class _Break(Exception):
    """Where a text stops being JSON, and why."""


class _JsonText:
    """JSON text of which no more is held than the value that comes next."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._ended = stream, False
        # What is no UTF-8 stays recognisable, so that it is a fault of its row alone.
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text, self._at = "", 0

    def ahead(self) -> str:
        """Return what was read and not taken yet."""
        return self._text[self._at :]

    def skip(self) -> None:
        """Pass over the next sign."""
        self._at += 1

    def next_sign(self) -> str:
        """Return the next character that is not white space, without taking it; an empty text at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in JSON_SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more(CHUNK_BYTES):
                return ""

    def value_texts(self) -> Iterator[str]:
        """Yield the text of each value of an array that has begun.

        Raises:
            _Break: the array does not go on as one.
        """
        if self.next_sign() == "]":
            self.skip()
            return
        while True:
            yield self.value_text()
            if self._follows(",", "]") == "]":
                return

    def key_texts(self) -> Iterator[str]:
        """Yield each key of an object that has begun, as JSON; its value is taken before the next one is asked for.

        Raises:
            _Break: the object does not go on as one.
        """
        if self.next_sign() == "}":
            self.skip()
            return
        while True:
            if self.next_sign() != '"':
                raise self._unexpected("a key in quotes")
            key = self.value_text()
            self._follows(":")
            yield key
            if self._follows(",", "}") == "}":
                return

    def value_text(self) -> str:
        """Take the next value and return its text.

        Raises:
            _Break: it is not JSON, or longer than MOST_BYTES.
        """
        self.next_sign()
        size = CHUNK_BYTES
        while True:
            try:
                _, end = DECODER.raw_decode(self._text, self._at)
                # A number at the end of what was read may go on.
                if end < len(self._text) or self._ended:
                    text, self._at = self._text[self._at : end], end
                    return text
                reason = ""
            except json.JSONDecodeError as error:
                at_end = error.pos >= len(self._text.rstrip()) or error.msg.startswith("Unterminated")
                reason = f"no valid JSON: {'unexpected end of data' if at_end else error.msg}"
                if self._text[error.pos : error.pos + 1] == "\0":
                    reason = "a NUL byte"
            except RecursionError:
                raise _Break("nested too deeply") from None
            if len(self._text) - self._at > MOST_BYTES:
                raise _Break(TOO_LONG)
            if not self._more(size) and reason:
                raise _Break(reason)
            size *= 2

    def _follows(self, *signs: str) -> str:
        sign = self.next_sign()
        if sign not in signs or not sign:
            raise self._unexpected(" or ".join(signs))
        self.skip()
        return sign

    def _unexpected(self, wanted: str) -> _Break:
        return _Break(f"no valid JSON: {f'{wanted} expected' if self.next_sign() else 'unexpected end of data'}")

    def _more(self, size: int) -> bool:
        """Read on; return whether there was more."""
        if self._ended:
            return False
        piece = self._stream.read(size)
        self._ended = not piece
        self._text = self._text[self._at :] + self._decode(piece, final=self._ended)
        self._at = 0
        return True
