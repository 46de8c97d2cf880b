"""Lines that tell a person, every few seconds, how far a long piece of work is."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

# Seconds between two lines: at first, and in the end. Each line is an event that is kept, and a training may take days.
SHORTEST, LONGEST = 5.0, 60.0


class Progress:
    """Calls `log` with the newest state every few seconds, from a thread, for as long as the block lasts.

    The lines come `every` seconds, and less often as hours pass. A step that itself takes longer than that (a large
    model, a long answer) is not silent either.
    """

    def __init__(self, log: Callable[[str], None], state: str, every: float = SHORTEST) -> None:
        self._log, self._state, self._every = log, state, every
        self._started, self._ended = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Progress":
        self._log(self._state)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._ended.set()
        self._thread.join()

    def log(self, line: str) -> None:
        """Log a line about something that happens once."""
        self._log(line)

    def update(self, state: str) -> None:
        """Set what the next line says."""
        self._state = state

    def _run(self) -> None:
        while not self._ended.wait(pause(time.monotonic() - self._started, self._every)):
            self._log(f"{self._state} · {time.monotonic() - self._started:.0f} s")


def pause(elapsed: float, shortest: float = SHORTEST) -> float:
    """Return the seconds until the next line of something that has taken `elapsed` seconds."""
    return max(shortest, min(elapsed / 60, LONGEST))
