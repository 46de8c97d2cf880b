"""Ends a training between two computations when somebody cancels it, and ends it when it hangs or is left alone."""

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

import psutil

LOOKED_AT_EVERY = 0.5  # seconds


class Interrupted(BaseException):
    """Training was told to end. No `except Exception` on the way takes it for a fault."""


class Interruption:
    """Raises `Interrupted` at a signal: at once, or where the work of the moment must not be torn, right after it.

    Signals reach a process's main thread alone; work in another thread is asked to end by whoever runs it.
    """

    def __init__(self) -> None:
        self.requested, self._whole = False, True

    @contextmanager
    def at_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM ask for the end within the block."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def ask(self) -> None:
        """Ask the work to end before its next step. Any thread may ask."""
        self.requested = True

    def hold(self) -> None:
        """Hold signals: from now on one is only noted."""
        self._whole = True

    def release(self) -> None:
        """Let signals end the work again; one that came in between does so now."""
        self._whole = False
        if self.requested:
            self._end()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if not self._whole:
            self._end()

    def _end(self) -> None:
        self._whole = True
        raise Interrupted


class Watchdog:
    """Ends the process, with a word in `file` on where it was, when nothing was heard of it for so many seconds.

    It is a thread of the interpreter's own in C, so that a call that never returns does not stop it.
    """

    def __init__(self, file: Path, seconds: float) -> None:
        self._file, self._seconds = file, seconds
        self._stream: TextIO | None = None

    def heard(self) -> None:
        """Restart the countdown."""
        self._stream = self._stream or self._file.open("w")
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._stream)

    def rest(self) -> None:
        """Stop the countdown."""
        faulthandler.cancel_dump_traceback_later()
        if self._stream:
            self._stream.close()
            self._file.unlink(missing_ok=True)
        self._stream = None


def end_with(number: int) -> None:
    """End this process within a second of the process `number`, even if that was killed.

    An orphan would train on beside its successor, and write into the same folder.
    """
    try:
        watched = psutil.Process(number)
    except psutil.NoSuchProcess:
        os._exit(1)

    def watch() -> None:
        while _lives(watched):
            time.sleep(LOOKED_AT_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
