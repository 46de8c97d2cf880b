"""A real MLflow server on loopback, in an environment of its own: its packages are not those of this project."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from tests.waiting import until
from tests.warm_server import free_port


class MLflowServer:
    """Answers at an address."""

    def __init__(self, address: str) -> None:
        self.address = address

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def runs(self, experiment: str) -> list[dict[str, Any]]:
        """Every run of an experiment: `info` and `data`, as MLflow's REST API has them."""
        found = self._ask(f"experiments/get-by-name?experiment_name={experiment}")
        ids = [found["experiment"]["experiment_id"]]
        return self._ask("runs/search", {"experiment_ids": ids}).get("runs", [])

    def history(self, run: str, metric: str) -> dict[int, float]:
        """The values of a metric in a run, by step."""
        found = self._ask(f"metrics/get-history?run_id={run}&metric_key={metric}")
        return {int(point["step"]): point["value"] for point in found["metrics"]}

    def _ask(self, what: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        data = json.dumps(content).encode() if content else None
        request = urllib.request.Request(
            f"{self.address}/api/2.0/mlflow/{what}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[MLflowServer]:
    """A server of the release that the client here is of; all that it writes is in `folder`."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pip = [folder / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"mlflow=={version('mlflow-skinny')}"], check=True)
    port = free_port()
    command = [folder / "venv/bin/mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", folder / "files"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        try:
            server = MLflowServer(f"http://127.0.0.1:{port}")
            until(server.is_up, (folder / "log").read_text)
            yield server
        finally:
            family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
            for one in family:
                one.terminate()
            for one in psutil.wait_procs(family, timeout=20)[1]:
                one.kill()
