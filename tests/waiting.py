"""Waiting in tests: long enough for a slow machine that others use too, so that only what hangs is given up."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 600.0  # seconds
T = TypeVar("T")


def until(found: Callable[[], T], said: Callable[[], str] = str, seconds: float = PATIENCE, pause: float = 0.1) -> T:
    """What `found` returns once it is something; it is asked every `pause` seconds.

    Raises:
        AssertionError: nothing came within `seconds`; the message is the end of what `said` returns.
    """
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, f"nothing came of it in {seconds:.0f} s: {said()[-4000:]}"
        time.sleep(pause)
    return result
