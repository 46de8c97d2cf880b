"""A real PostgreSQL server of a test's own, on loopback: Debian's package, with its data in a temporary folder."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
BINARIES = INSTALLED[-1] if INSTALLED else None
MISSING = "PostgreSQL is not installed; `apt-get install postgresql` does that"


@dataclass(frozen=True)
class Server:
    """A server that answers on loopback; `password` is the one that the user `dagster` needs."""

    port: int
    password: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which `deploy/dagster.yaml` finds the server."""
        return {
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(self.port),
            "DAGSTER_PG_USER": "dagster",
            "DAGSTER_PG_PASSWORD": self.password,
            "DAGSTER_PG_DB": "dagster",
        }


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def account() -> dict[str, int]:
    """Who runs the server: this user, but for root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid}


def run(folder: Path, command: str, *arguments: str) -> None:
    """The server's command succeeded. As the server's user, who may not read the caller's folders."""
    assert BINARIES
    done = subprocess.run(
        [BINARIES / command, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **account(),
    )
    assert done.returncode == 0, done.stdout


@contextmanager
def postgres(password: str) -> Iterator[Server]:
    """A server with an empty database `dagster`, for as long as the block lasts."""
    # Not below pytest's folders, which no other user may enter.
    folder = Path(tempfile.mkdtemp(prefix="finetuning-postgres-"))
    (folder / "password").write_text(password)
    if as_user := account():
        for path in (folder, folder / "password"):
            os.chown(path, as_user["user"], as_user["group"])
    data, port = str(folder / "data"), free_port()
    run(folder, "initdb", "-D", data, "-U", "dagster", "--auth=scram-sha-256", f"--pwfile={folder}/password", "-N")
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
    run(folder, "pg_ctl", "-D", data, "-l", f"{folder}/log", "-w", "-o", options, "start")
    try:
        server = Server(port, password)
        environment = {**os.environ, "PGPASSWORD": password}
        create = ["createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "dagster", "dagster"]
        subprocess.run(create, env=environment, check=True)
        yield server
    finally:
        run(folder, "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)
