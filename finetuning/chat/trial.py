"""Runs chat templates within bounds: a template is a program, and may come from anybody.

{% for i in range(99999) %}{% for j in range(99999) %}… is a few bytes, and takes days
"""

import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import FrameType

import psutil

from finetuning.errors import FinetuningError

SECONDS, MEMORY, CHARACTERS = 5, 1 << 30, 500_000  # of computing, bytes, and what is made of a few short turns
LONGEST_WAIT = 120.0  # seconds, on a busy machine
# Of rendering rows at once: seconds of computing, so many more for each of them, and bytes.
ROWS_SECONDS, ROW_SECONDS, ROWS_MEMORY = 10.0, 0.02, 4 << 30
INTERVAL = 1.0  # seconds of computing between two looks at how long it took
INSTEAD = "Use another chat template, or mend it: write base_model.chat_template."
ENDED, TOO_LONG, TOO_LARGE = 0, 10, 11


def require_bounded(render: Callable[[], int], what: str) -> None:
    """Render in a process of its own, within bounds of time, memory and length.

    Args:
        render: returns how many characters it made. What else it raises is for the caller to find once more.
        what: the template, for the message.

    Raises:
        FinetuningError: it kept to none of them.
    """
    process = os.fork()
    if process == 0:
        _render_and_exit(render)
    status = _status_of(process)
    if status is None or status == ENDED:
        return
    reasons = {
        TOO_LONG: f"makes more than {CHARACTERS:,} characters of a few short turns",
        TOO_LARGE: f"takes more than {MEMORY >> 30} GiB of memory for a few short turns",
    }
    reason = reasons.get(status, f"did not end within {SECONDS} seconds of computing, for a few short turns")
    raise FinetuningError(f"{what}: the chat template {reason}. Use another one: nothing was done with it.")


@contextmanager
def bounded(conversations: int) -> Iterator[None]:
    """Render so many conversations within the block, in bounds of time and memory.

    What a template does may depend on the row, so that a trial with a few turns proves little. Time is bound in the
    main thread alone, where signals arrive.

    Raises:
        FinetuningError: it kept to none of them.
    """
    end = time.thread_time() + ROWS_SECONDS + ROW_SECONDS * conversations

    def look(number: int, frame: FrameType | None) -> None:
        if time.thread_time() > end:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            raise FinetuningError(
                f"the chat template did not end within {ROWS_SECONDS + ROW_SECONDS * conversations:.0f} seconds of "
                f"computing, for {conversations} conversation(s). {INSTEAD}"
            )

    is_main = threading.current_thread() is threading.main_thread()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = _in_use(int(time.monotonic())) + ROWS_MEMORY
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    before = signal.signal(signal.SIGVTALRM, look) if is_main else None
    try:
        resource.setrlimit(resource.RLIMIT_AS, (min([most, *limits]), hard))
        if is_main:
            signal.setitimer(signal.ITIMER_VIRTUAL, INTERVAL, INTERVAL)
        yield
    except MemoryError as error:
        raise FinetuningError(
            f"the chat template takes more than {ROWS_MEMORY >> 30} GiB of memory for {conversations} conversation(s). "
            f"{INSTEAD}"
        ) from error
    finally:
        if is_main:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@lru_cache(maxsize=1)
def _in_use(second: int) -> int:
    """Return the bytes of address space of this process, asked once a second."""
    return psutil.Process().memory_info().vms


def _render_and_exit(render: Callable[[], int]) -> None:
    status = ENDED
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        in_use = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if render() > CHARACTERS:
            status = TOO_LONG
    except MemoryError:
        status = TOO_LARGE
    except BaseException:  # found once more by whoever renders for real
        status = ENDED
    finally:
        os._exit(status)


def _status_of(process: int) -> int | None:
    """How the process ended: its exit status, or below 0 a signal; None where it was only waiting, and for too long."""
    end = time.monotonic() + LONGEST_WAIT
    pause = 0.001
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    os.kill(process, 9)
    os.waitpid(process, 0)
    return None
