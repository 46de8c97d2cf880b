"""The life of a server process: its port, the announcement that it listens, and its end."""

import os
import socket
import time
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from finetuning.errors import InfrastructureError
from resources.hub_server.access import Hub
from resources.hub_server.state_folder import LOCAL_USER, Announcement, announce, withdraw
from resources.loopback import listening

FIRST_PORT = 8765
END_SECONDS = 3  # that requests under way at the end still get


class Lease:
    """Whether anybody uses the server."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.seconds = seconds
        self._file = path.open("a")
        self._last_held = time.monotonic()

    def has_run_out(self) -> bool:
        """Whether no process has held the lease for `seconds`.

        From then on this process holds it until it is gone, so that a user who comes now waits, and then starts the
        next server instead of finding one that is about to end.
        """
        try:
            flock(self._file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            self._last_held = time.monotonic()
            return False
        if time.monotonic() - self._last_held >= self.seconds:
            return True
        flock(self._file, LOCK_UN)
        return False


class AnnouncedServer(uvicorn.Server):
    """A server that is announced while it listens, and ends with its lease."""

    def __init__(self, config: uvicorn.Config, announcement: Announcement, lease: Lease | None) -> None:
        super().__init__(config)
        self.announcement = announcement
        self.lease = lease

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        announce(self.announcement)
        state = self.announcement.state
        where = f"Hub at {self.announcement.endpoint}, user {LOCAL_USER} (token in {state}/token), state folder {state}"
        print(where, flush=True)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end, asked ten times a second."""
        return await super().on_tick(counter) or (self.lease is not None and self.lease.has_run_out())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        withdraw(self.announcement)
        await super().shutdown(sockets)


def bound_socket(state: Path, port: int | None) -> socket.socket:
    """A socket that listens on loopback: at `port`, or else at that of last time, at 8765, or wherever there is room.

    Raises:
        FinetuningError: somebody else listens at the `port` that was asked for.
    """
    candidates = [port] if port is not None else [_last_port(state), FIRST_PORT, 0]
    for candidate in candidates:
        found = listening(candidate) if candidate is not None else None
        if found:
            (state / "port").write_text(str(found.getsockname()[1]))
            return found
    raise InfrastructureError(f"Port {port} is taken by another program. Leave --port out, or name a free one.")


def serve(app: Starlette, state: Path, bound: socket.socket, while_leased: float | None) -> None:
    """Serve until interrupted, or until nobody has held the folder's lease for `while_leased` seconds."""
    hub: Hub = app.state.hub
    announcement = Announcement(str(state), bound.getsockname()[1], os.getpid(), hub.instance)
    lease = Lease(state / "lease", while_leased) if while_leased is not None else None
    config = uvicorn.Config(
        app, lifespan="off", ws="none", log_level="warning", proxy_headers=False, timeout_graceful_shutdown=END_SECONDS
    )
    try:
        AnnouncedServer(config, announcement, lease).run([bound])
    finally:
        hub.store.clear_scratch()


def _last_port(state: Path) -> int | None:
    try:
        return int((state / "port").read_text())
    except (OSError, ValueError):
        return None
