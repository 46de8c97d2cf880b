"""Keeps every judgement that was paid for, on the disk before the next one is asked: none is asked twice.

asked.jsonl: {"asked": "5f0c…", "choice": "A", "tokens": [412, 1]}
"""

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from finetuning.judge.protocol import Choice
from finetuning.progress import Progress

FILE, LOCK = "asked.jsonl", ".lock"


class Judgement(BaseModel):
    """One question that was answered."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    asked: str
    """The sha256 of the question, and of how it was asked."""
    choice: Choice
    tokens: tuple[int, int]
    """Read and written, as the endpoint counted them; 0 where it did not."""
    reply: str = ""
    """The beginning of a reply that was no choice."""


class Ledger:
    """The judgements in a folder. One process at a time asks, so that two do not pay for the same one."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self._progress = folder / FILE, progress
        self._writing = threading.Lock()
        self._lock, self.known = FileLock(folder / LOCK), dict[str, Judgement]()

    def __enter__(self) -> Self:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._progress.log(f"waiting for another run that asks the same judge ({self._lock.lock_file})")
            self._lock.acquire()
        for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
            try:
                found = Judgement.model_validate_json(line)
            except ValidationError:  # the last line of a process that was killed
                continue
            self.known[found.asked] = found
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._lock.release()

    def keep(self, judgement: Judgement) -> None:
        """Write a judgement to the disk; several threads may."""
        # What a process that was killed left of a line ends there.
        with self._writing, self.path.open("ab") as file:
            file.write(b"\n" + judgement.model_dump_json(exclude_defaults=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.known[judgement.asked] = judgement
