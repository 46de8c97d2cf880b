"""A hub in a process of its own, and publishers to it, each in a process of its own."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certifi
from huggingface_hub import HfApi

from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
ACCOUNTS = ("hf_alice=alice,lab", "hf_reader=alice:read", "hf_bob=bob")


@dataclass(frozen=True)
class Server:
    endpoint: str
    state: Path
    process: subprocess.Popen

    def api(self, token: str | bool = "hf_alice") -> HfApi:
        return HfApi(endpoint=self.endpoint, token=token)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Status and body of a bare request."""
        request = urllib.request.Request(self.endpoint + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def faults(self, *faults: dict[str, Any]) -> None:
        """From now on these are what `resources.hub_server.faults` describes."""
        self.ask("POST", "/_test/faults", json.dumps(faults).encode())

    def log(self) -> list[list[str]]:
        """Method and path of each request so far."""
        return json.loads(self.ask("GET", "/_test/log")[1])

    def repo(self, repo_id: str) -> dict[str, Any] | None:
        """A model repo as the state folder has it, None where there is none."""
        path = self.state / "repos" / "models" / f"{repo_id}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def client(self, home: Path, code: str, **environment: str) -> str:
        """What a Python process prints that has this server for its Hub, and `home` for its caches."""
        settings = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_TOKEN": "hf_alice"}
        quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        env = {**os.environ, **settings, **quiet, **environment}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def serving(state: Path, *options: str) -> Iterator[Server]:
    accounts = [part for account in ACCOUNTS for part in ("--token", account)]
    command = [sys.executable, "-m", "resources.hub_server", "--state", str(state), *accounts, *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield Server(process.stdout.readline().split()[2].rstrip(","), state, process)
        finally:
            process.terminate()


@dataclass(frozen=True)
class Publisher:
    """A process that publishes what it is asked to; `folder` is where it writes its files."""

    process: subprocess.Popen
    folder: Path

    def ask(self, repo_id: str, *, seed: int, tag: str, **waits: float) -> None:
        """It begins."""
        asked = {"repo_id": repo_id, "seed": seed, "tag": tag, "timeout": 0.3, "deadline": 20, "pause": 0.02, **waits}
        assert self.process.stdin
        self.process.stdin.write(json.dumps({**asked, "folder": str(self.folder)}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """What came of it."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def publish(self, repo_id: str, *, seed: int, tag: str, **waits: float) -> dict[str, Any]:
        self.ask(repo_id, seed=seed, tag=tag, **waits)
        return self.answer()


@contextmanager
def publisher(server: Server, folder: Path, **environment: str) -> Iterator[Publisher]:
    """A publisher to that hub; Xet's own client, too, gives up soon and comes back at once."""
    xet = {"RETRY_BASE_DELAY": "10ms", "RETRY_MAX_ATTEMPTS": "1", "READ_TIMEOUT": "100ms", "CONNECT_TIMEOUT": "300ms"}
    settings = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(folder / "home"), "HF_TOKEN": "hf_alice"}
    settings |= {"HF_XET_TELEMETRY_ENABLED": "false", "SSL_CERT_FILE": str(folder / "authority.pem")}
    env = {**os.environ, **settings, **{f"HF_XET_CLIENT_{key}": value for key, value in xet.items()}, **environment}
    folder.mkdir()
    # One authority, since reading all that the system trusts takes longer than a publication.
    first, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----\n")
    (folder / "authority.pem").write_text(first + end)
    command = [sys.executable, "-m", "tests.resources.publisher"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=env, text=True, **pipes) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "ready\n"
        yield Publisher(process, folder)
        process.stdin.close()
