"""A warm process beside the tests: commands that are asked of it need not import the libraries again.

There is one for each process that tests, whatever the number of its worlds. Of what libraries read once it is one world
after the other: its cache is a link to the world's, and the world's hub is at the address that it knows.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from finetuning.settings import LOCAL, PUBLIC_HUB
from resources.hub_server.local import local_hub
from resources.hub_server.state_folder import is_held, prepared, running_server
from tests import warm
from tests.waiting import PATIENCE, until

# What pipelines.definitions sets before any library is imported.
BEFORE_LIBRARIES = {
    "MPLCONFIGDIR": str(warm.ROOT / ".cache" / "matplotlib"),
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "TQDM_DISABLE": "1",
}
# What libraries read when they are imported; for whom it is something else, a warm process is of no use.
READ_ONCE = ("HF_", "MPL", "OMP_", "TOKENIZERS_", "TQDM_", "TORCH", "CUDA_", "PYTHON", "AWS_", "RAY_")
# Of these, what is turned to the world that asks, and what is read each time.
NOT_ONCE = ("CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_TOKEN", "PYTHONUNBUFFERED")


def ordinary_environment() -> dict[str, str]:
    """What every world's processes find, before the world itself; the warm process was started with it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("FINETUNING_", "HF_"))}
    # The instance's classes too are those of this checkout, whichever is installed.
    return own | {"PYTHONPATH": str(warm.ROOT)}


def free_port() -> int:
    """A port that is free, of those that the system gives to nobody who does not ask for them."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as candidate, suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            return port


class HubAddress:
    """The one address at which the hubs of this process's worlds are, one after the other."""

    def __init__(self) -> None:
        self.port = free_port()
        self.state: Path | None = None
        self.held, self.holding = ExitStack(), False

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def leave_to(self, state: Path) -> None:
        """The address is that of the hub in this state folder from now on, once somebody starts it."""
        state = prepared(state)
        if state == self.state:
            return
        self.held.close()
        self.holding = False
        if self.state:
            end(self.state)
        (state / "port").write_text(str(self.port))
        self.state = state

    def hold(self, state: Path) -> None:
        """The hub in this state folder is at the address, for as long as no other one is asked for."""
        self.leave_to(state)
        server = running_server(prepared(state))
        if server and server.port != self.port:
            end(prepared(state))
            (state / "port").write_text(str(self.port))
        if not (server and self.holding):
            hub = self.held.enter_context(local_hub(state, grace=1.0))
            assert hub.endpoint == self.endpoint, f"{hub.endpoint} is not {self.endpoint}"
            self.holding = True


def end(state: Path) -> None:
    """No hub serves this state folder any more."""
    server = running_server(state) if state.is_dir() else None
    if server:
        with suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGTERM)
        until(lambda: not is_held(state / "server.lock"), lambda: f"{server} goes on", pause=0.02)


HUBS = HubAddress()


class WarmServer:
    """The one warm process of this process."""

    current: "WarmServer | None" = None

    def __init__(self) -> None:
        environment = ordinary_environment()
        self.read_once = self.of(environment)
        self.folder = tempfile.TemporaryDirectory(prefix="warm-")
        self.address = str(Path(self.folder.name) / "warm.socket")
        self.cache = Path(self.folder.name) / "cache"
        self.turn_to(Path(self.folder.name) / "of nobody")  # until a world asks
        # An interpreter that is one file, as the real one is, and does not look for packages.
        self.interpreter = Path(self.folder.name) / "python"
        self.interpreter.write_text(
            f'#!/bin/sh\nif [ "$1" = -m ]; then case "$2" in {"|".join(warm.SERVED)})\n'
            f'exec {sys.executable} -S -E {warm.__file__} "$@";; esac; fi\nexec {sys.executable} "$@"\n'
        )
        self.interpreter.chmod(0o755)
        self.process = subprocess.Popen(
            [sys.executable, "-m", warm.__name__, self.address],
            cwd=warm.ROOT,
            env=BEFORE_LIBRARIES | environment | {"HF_ENDPOINT": HUBS.endpoint, "HF_HOME": str(self.cache)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout and "ready" in self.process.stdout.readline()

    @staticmethod
    def of(environment: dict[str, str]) -> dict[str, str]:
        """What the libraries of a process with this environment read, and what it cannot be turned to later."""
        return {
            name: value for name, value in environment.items() if name.startswith(READ_ONCE) and name not in NOT_ONCE
        }

    @classmethod
    def serving(cls, environment: dict[str, str]) -> "WarmServer | None":
        """Return the server, turned to the world of this environment; None where libraries would read something else.

        What is read from another hub than the world's own comes from whatever listens at `HUBS.endpoint`, if that is
        its address. Any other hub may be published to.
        """
        hub = environment.get("FINETUNING_SOURCE_HUB", PUBLIC_HUB)
        if hub not in (LOCAL, HUBS.endpoint):
            return None
        cls.current = cls.current or cls()
        if cls.current.read_once != cls.of(environment):
            return None
        cls.current.turn_to(Path(environment["HF_HOME"]))
        if hub == LOCAL:
            HUBS.hold(Path(environment["FINETUNING_HUB_STATE"]))
        return cls.current

    @classmethod
    def training(cls, environment: dict[str, str]) -> "WarmServer | None":
        """Return the server for what asks no hub; None where libraries would read something else."""
        cls.current = cls.current or cls()
        asked = {name: value for name, value in environment.items() if not name.startswith("HF_")}
        if asked.get("PYTHONPATH") == os.environ.get("PYTHONPATH"):
            asked["PYTHONPATH"] = str(warm.ROOT)
        return cls.current if cls.current.read_once == cls.of(asked) else None

    @classmethod
    def run_code(cls, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Return what the code answered in a process that has imported nothing of this project yet."""
        environment = dict(os.environ)
        server = cls.training(environment)
        if server is None:
            command = [sys.executable, "-c", code, *arguments]
            return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        with server.start(["-c", code, *arguments], environment, subprocess.DEVNULL) as process:
            said = process.communicate(timeout=PATIENCE)[0]
        return subprocess.CompletedProcess(arguments, process.returncode, said)

    def turn_to(self, cache: Path) -> None:
        """What the libraries keep lies in this folder."""
        cache.mkdir(parents=True, exist_ok=True)
        self.cache.unlink(missing_ok=True)
        self.cache.symlink_to(cache)

    def start(self, arguments: list[str], environment: dict[str, str], stdin: int) -> subprocess.Popen[str]:
        """Start `python` with these arguments, `-m` or `-c` and what belongs to it, with stderr in stdout."""
        return subprocess.Popen(
            [sys.executable, "-S", "-E", warm.__file__, *arguments],
            cwd=warm.ROOT,
            env=environment | {warm.SERVER: self.address},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
