"""What a server and its users agree on through the state folder.

    server.json    where the running server is; written once it listens, removed when it ends
    server.lock    held by the one process that serves the folder
    start.lock     held while a user starts the server
    lease          held, shared, by every user for as long as it needs the server
    port           the port of last time, so that addresses stay good
    token          the token of the user `local`, readable by the owner alone

The locks are `flock`s: the system drops them when a process ends, however it ends.
"""

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from finetuning.errors import InfrastructureError

LOCAL_USER = "local"
ANSWER_SECONDS = 2.0  # how long a running server may take to say which one it is
RETRY_SECONDS = 0.05


@dataclass(frozen=True)
class Announcement:
    """A running server: the folder that it serves, where, and a number that no other server has."""

    state: str
    port: int
    pid: int
    instance: str

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def prepared(state: Path) -> Path:
    """The state folder's absolute path; a folder that is made here is open to its owner alone.

    Raises:
        FinetuningError: it cannot be made or written to.
    """
    try:
        state = state.expanduser().resolve()
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        (state / "lease").touch()
    except OSError as error:
        raise InfrastructureError(
            f"{state} cannot be the state folder of the local Hub: {error.strerror}. Name one that you may write to."
        ) from error
    return state


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold the lock at `path` together with others."""
    with path.open("a") as file:
        flock(file, LOCK_SH)
        try:
            yield
        finally:
            flock(file, LOCK_UN)


@contextmanager
def exclusive(path: Path, seconds: float) -> Iterator[None]:
    """Hold the lock at `path` alone.

    Raises:
        TimeoutError: somebody else has held it for `seconds`.
    """
    end = time.monotonic() + seconds
    with path.open("a") as file:
        while not _taken(file.fileno()):
            if time.monotonic() > end:
                raise TimeoutError(f"{path} is held by another process")
            time.sleep(RETRY_SECONDS)
        try:
            yield
        finally:
            flock(file, LOCK_UN)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock at `path`, this moment."""
    with path.open("a") as file:
        return not _taken(file.fileno())


def announce(announcement: Announcement) -> None:
    """Make the server known to the users of its folder."""
    _write(Path(announcement.state) / "server.json", json.dumps(asdict(announcement)))


def withdraw(announcement: Announcement) -> None:
    """Undo `announce`, unless another server has been announced meanwhile."""
    state = Path(announcement.state)
    if announced(state) == announcement:
        (state / "server.json").unlink(missing_ok=True)


def announced(state: Path) -> Announcement | None:
    """The server that `server.json` names, running or not."""
    try:
        return Announcement(**json.loads((state / "server.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def running_server(state: Path) -> Announcement | None:
    """The server of exactly this folder, if it answers; what a dead, foreign or copied `server.json` names does not."""
    server = announced(state)
    if server and server.state == str(state) and is_held(state / "server.lock") and _answers(server):
        return server
    return None


def read_token(state: Path) -> str | None:
    """The token of the user `local`, None before the folder's first server."""
    try:
        return (state / "token").read_text().strip() or None
    except FileNotFoundError:
        return None


def make_token(state: Path) -> str:
    """The token of the user `local`, made up when there is none yet."""
    token = read_token(state) or f"hf_{secrets.token_hex(20)}"
    _write(state / "token", token)
    return token


def _answers(server: Announcement) -> bool:
    # No general client: those send even this through the proxy that the environment may name.
    connection = HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/_server")
        return json.loads(connection.getresponse().read()) == {"instance": server.instance}
    except (OSError, HTTPException, ValueError):
        return False
    finally:
        connection.close()


def _taken(file: int) -> bool:
    try:
        flock(file, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(path: Path, text: str) -> None:
    """Put a file, readable by the owner alone, in place as a whole."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    scratch.replace(path)
