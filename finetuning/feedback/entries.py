"""Keeps what people say of answers: one line of JSON for each, in a folder for each name.

feedback/maths/2026-11.jsonl: {"id": "5f0c…", "messages": […], "answers": […], "correction": "#### 4", …}

An entry is on the disk before whoever gave it is told so, and a process that is killed loses none of them.
"""

import fcntl
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import PydanticSerializationError

from finetuning.durable import sync, write_bytes
from finetuning.errors import FinetuningError
from finetuning.secrets import find_secret
from finetuning.settings import Settings

MOST_ENTRY, MOST_FOLDER = 256 << 10, 64 << 20  # bytes
TOO_DEEP = "it cannot be read again: there are too many lists or objects, one in another"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class FeedbackRefused(FinetuningError):
    """It is not kept: what it says is not sound, or is a secret."""


class FeedbackFull(FinetuningError):
    """It is not kept: there is no room for more."""


class Said(BaseModel):
    """One of the answers that were shown."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: Annotated[str, Field(min_length=1, max_length=200)]
    content: str


class Feedback(BaseModel):
    """What somebody says of the answers to a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    messages: Annotated[list[dict[str, JsonValue]], Field(min_length=1, max_length=1000)]
    """The conversation up to the question."""
    answers: Annotated[list[Said], Field(min_length=1, max_length=8)]
    rating: Literal["good", "bad"] | None = None
    """Of the answer of the model `of`."""
    of: str | None = None
    preferred: str | None = None
    """The model whose answer is the better one."""
    correction: str | None = None
    """What the model `of` should have said."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    who: Annotated[str, Field(max_length=200)] = ""

    @model_validator(mode="after")
    def _require_sense(self) -> Self:
        models = [said.model for said in self.answers]
        if len(set(models)) < len(models):
            raise ValueError("answers: two of one model")
        for key in ("of", "preferred"):
            if (value := getattr(self, key)) is not None and value not in models:
                raise ValueError(f"{key}: {value!r} gave none of the answers ({', '.join(models)})")
        if (self.rating or self.correction is not None) and self.of is None:
            raise ValueError("of: missing; a rating or correction is of one model's answer")
        if self.correction is not None and not self.correction.strip():
            raise ValueError("correction: empty")
        if self.rating is None and self.correction is None and self.preferred is None:
            raise ValueError("it says nothing: write rating, preferred or correction")
        for message in self.messages:
            if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
                raise ValueError("messages: each has a role and a content that is text")
        if self.messages[-1]["role"] not in ("user", "tool"):
            raise ValueError("messages: the last one is what was answered, of user or tool")
        return self

    def answer_of(self, model: str | None) -> str | None:
        """Return what that model answered."""
        return next((said.content for said in self.answers if said.model == model), None)


class Entry(Feedback):
    """Feedback that was kept: when, and about which version of the model."""

    id: str
    time: str
    version: str


def folder_of(name: str) -> Path:
    """Return the folder of a name's entries, which need not be there.

    Raises:
        FinetuningError: it is no name of a folder.
    """
    if not NAME.fullmatch(name):
        raise FinetuningError(f"feedback: {name!r} is no name: letters, digits, '.', '_' and '-', at most 96")
    return Path(Settings.read("feedback").feedback) / name


def parsed(data: Any) -> Feedback:
    """Return what was sent as feedback.

    Raises:
        FeedbackRefused: it is none; the text says what is wrong.
    """
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise FeedbackRefused("the text has half of a character in it, such as \\ud800; send the whole one") from None
    except RecursionError:
        raise FeedbackRefused(TOO_DEEP) from None
    try:
        return Feedback.model_validate(data)
    except ValidationError as error:
        told = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}".removeprefix(": ") for each in error.errors()[:5]]
        raise FeedbackRefused("; ".join(text.replace("Value error, ", "") for text in told)) from None


def keep(folder: Path, feedback: Feedback, version: str) -> Entry:
    """Write the feedback to the disk, and return the entry.

    Raises:
        FeedbackRefused: it holds what looks like a secret, or is too long; the kind of secret is named, and no more.
        FeedbackFull: the folder holds as much as it may.
    """
    now = datetime.now(UTC)
    entry = Entry(**feedback.model_dump(), id=uuid.uuid4().hex, time=now.isoformat(timespec="seconds"), version=version)
    line = _line(entry)
    if len(line) > MOST_ENTRY:
        raise FeedbackRefused(f"{len(line):,} bytes, and an entry may have {MOST_ENTRY:,}")
    if secret := find_secret(line.decode()):
        raise FeedbackRefused(
            f"it seems to hold a secret ({secret}), and was not kept: take that out and send it again"
        )
    with _locked(folder):
        size = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
        if size + len(line) > MOST_FOLDER:
            raise FeedbackFull(
                f"{folder} holds {size:,} bytes, and may hold {MOST_FOLDER:,}: export them and delete what was learned"
            )
        path = folder / f"{now:%Y-%m}.jsonl"
        is_new = not path.exists()
        with path.open("ab+") as file:
            # What a machine that lost its power left of a line ends there, and is no part of the next one.
            file.write((b"" if _ends_in_a_line(file) else b"\n") + line)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync(folder)
    return entry


def _line(entry: Entry) -> bytes:
    """The entry as a line that can be read again.

    Raises:
        FeedbackRefused: it could not be.
    """
    try:
        line = entry.model_dump_json().encode()
        Entry.model_validate_json(line)
    except (PydanticSerializationError, ValidationError):
        raise FeedbackRefused(TOO_DEEP) from None
    return line + b"\n"


def entries(folder: Path) -> list[Entry]:
    """Return all that is kept, in the order in which it came; a line that is none is left out."""
    return [entry for entry in arrived(folder) if entry]


def arrived(folder: Path) -> list[Entry | None]:
    """Return all that ever came, in its order, with None in place of what was deleted: that left an empty line."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            try:
                found.append(Entry.model_validate_json(line) if line else None)
            except ValidationError:
                continue
    return found


def delete(folder: Path, ids: set[str] | None = None, who: str | None = None) -> int:
    """Take entries off the disk, by their id or by who gave them; return how many they were.

    An empty line stays of each, so that those after it are still in the batches that they came in.
    """
    if not folder.is_dir():
        return 0
    deleted = 0
    with _locked(folder):
        for path in sorted(folder.glob("*.jsonl")):
            lines = path.read_bytes().splitlines(keepends=True)
            left = [b"\n" if _is_among(line, ids, who) else line for line in lines]
            if left != lines:
                deleted += sum(line != before for line, before in zip(left, lines, strict=True))
                # Where a link leads: a new file in place of the link would leave the entries in the old one.
                write_bytes(path.resolve(), b"".join(left))
    return deleted


def _is_among(line: bytes, ids: set[str] | None, who: str | None) -> bool:
    try:
        entry = Entry.model_validate_json(line)
    except ValidationError:
        return False
    return (ids is not None and entry.id in ids) or (who is not None and entry.who == who)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other writers out."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ends_in_a_line(file: Any) -> bool:
    """Whether the file is empty, or its last byte is a line feed."""
    if not file.seek(0, os.SEEK_END):
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
