"""The Hub of one state folder for as long as it is needed: found when it runs, started when it does not."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fcntl import LOCK_SH, flock
from pathlib import Path
from typing import IO

from finetuning.errors import InfrastructureError
from resources.hub_server.state_folder import (
    LOCAL_USER,
    RETRY_SECONDS,
    Announcement,
    exclusive,
    is_held,
    prepared,
    read_token,
    running_server,
    shared,
)

START_SECONDS = 20.0
GRACE_SECONDS = 10.0
STAYING: dict[Path, IO] = {}  # leases that end with this process


@dataclass(frozen=True)
class LocalHub:
    """A running Hub on loopback, and the account of the state folder's owner there."""

    endpoint: str
    token: str = field(repr=False)
    user: str
    pid: int


@contextmanager
def local_hub(state: Path, grace: float = GRACE_SECONDS) -> Iterator[LocalHub]:
    """Yield the Hub that keeps its state in the folder `state`; good for as long as the block lasts.

    Any number of processes may use one folder at once. The first starts the server, which ends by itself when none has
    used it for `grace` seconds, however the last one ended.

    Raises:
        FinetuningError: the server does not start, or the folder cannot be used.
    """
    state = prepared(state)
    with shared(state / "lease"):
        server = running_server(state) or _started(state, grace)
        yield LocalHub(server.endpoint, _token(state, server), LOCAL_USER, server.pid)


def stay(state: Path) -> None:
    """Keep the Hub of that folder, which runs, until this process ends, so that its address stays what it is."""
    if state not in STAYING:
        STAYING[state] = (state / "lease").open("a")
        flock(STAYING[state], LOCK_SH)


def _started(state: Path, grace: float) -> Announcement:
    try:
        with exclusive(state / "start.lock", START_SECONDS):
            # Another process may have started it while this one waited for the lock.
            return running_server(state) or _start(state, grace)
    except TimeoutError:
        raise _not_started(state) from None


def _start(state: Path, grace: float) -> Announcement:
    end = time.monotonic() + START_SECONDS
    child = _spawned(state, grace)
    while time.monotonic() < end:
        server = running_server(state)
        if server:
            # Somebody has to wait for a child that ends, or it stays in the process table until this process ends.
            threading.Thread(target=child.wait, daemon=True).start()
            return server
        # The child gives way to a server that a person started at the same moment.
        if child.poll() is not None and not is_held(state / "server.lock"):
            break
        time.sleep(RETRY_SECONDS)
    child.kill()
    child.wait()
    raise _not_started(state)


def _spawned(state: Path, grace: float) -> subprocess.Popen:
    """The server's process, in a session of its own: neither an interrupt nor the end of this one reaches it."""
    command = [sys.executable, "-m", "resources.hub_server", "--state", str(state), "--while-leased", str(grace)]
    root = Path(__file__).parents[2]  # where `-m` finds the package, whatever this process's working directory
    with (state / "server.log").open("w") as log:
        return subprocess.Popen(
            command, cwd=root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _token(state: Path, server: Announcement) -> str:
    token = read_token(state)
    if token is None:
        raise InfrastructureError(
            f"{state / 'token'} is gone, while the local Hub that knows this token still runs. "
            f"End that server (process {server.pid}); the next one makes a new token."
        )
    return token


def _not_started(state: Path) -> InfrastructureError:
    log = state / "server.log"
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    last = next((line for line in reversed(lines) if line.strip()), "(nothing)")
    return InfrastructureError(
        f"The local Hub in {state} did not start within {START_SECONDS:.0f} s. Its log {log} ends with: "
        f"{last.strip()}\n`python -m resources.hub_server --state {state}` starts it in the terminal."
    )
