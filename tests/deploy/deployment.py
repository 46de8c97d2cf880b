"""What `deploy/compose.yaml` starts, as processes of this machine: its commands, its environment, other ports."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
import yaml

from tests.deploy.postgres import Server, free_port
from tests.waiting import PATIENCE, until

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
RECIPE = {
    "summary": "Rows of a team",
    "base_model": {"repo": "some/model"},
    "dataset": {
        "sources": [
            {
                "generator": "linear-equations",
                "format": "question-answer",
                "columns": {"question": "Problem", "answer": "Solution"},
                "rows": 8,
            }
        ]
    },
    "hub": {"repo": "tiny", "license": "mit"},
}
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\})")


def interpolated(text: str, values: dict[str, str]) -> str:
    """`text` with its variables in place, as compose puts them there."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        given = values.get(found["name"], "")
        assert given or found["kind"] != "?", f"{found['name']}: {found['rest']}"
        return given or (found["rest"] if found["kind"] == "-" else "")

    return VARIABLE.sub(value, text)


def image_environment() -> dict[str, str]:
    """What the Dockerfile sets by ENV."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    pairs = [word.split("=", 1) for line in text.splitlines() if line.startswith("ENV ") for word in line.split()[1:]]
    return dict(pairs)


@dataclass
class Deployment:
    """The services of `deploy/compose.yaml` on this machine, with `values` in place of `deploy/.env`."""

    root: Path
    database: Server
    values: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("data", "logs", "recipes"):
            (self.root / name).mkdir()
        self.values = {**self.database.environment, **self.values}
        self.ports = {name: free_port() for name in ("code", "webserver", "viewer", "idle")}
        (self.root / "idle.yaml").write_text(
            yaml.safe_dump(
                {
                    "load_from": [
                        {"grpc_server": {"port": self.ports["idle"], "host": "127.0.0.1", "location_name": "idle"}}
                    ]
                }
            )
        )

    def local(self, text: str, service: str) -> str:
        """`text`, which speaks of the container, with the folders, hosts and ports of this machine."""
        for inside, here in {
            "0.0.0.0": "127.0.0.1",
            "/opt/finetuning": str(ROOT),
            "4000": str(self.ports["idle" if service == "idle" else "code"]),
            "3000": str(self.ports["viewer" if service == "viewer" else "webserver"]),
        }.items():
            text = text.replace(inside, here)
        return re.sub(r"(?<!\S)/(data|logs|recipes)\b", rf"{self.root}/\1", text)

    def environment(self, service: str) -> dict[str, str]:
        """All that a process of the service finds in its environment."""
        declared = COMPOSE["services"][service].get("environment", {})
        here = {name: self.local(interpolated(value, self.values), service) for name, value in declared.items()}
        image = {name: self.local(value, service) for name, value in image_environment().items()}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        reached = {"CODE_LOCATION_HOST": "127.0.0.1"} if "CODE_LOCATION_HOST" in here else {}
        return {"PATH": path, "OMP_NUM_THREADS": "1", **image, **here, **reached}

    def command(self, service: str) -> list[str]:
        """The service's command; that of `idle`, a second code location, is made from that of `code`."""
        words = COMPOSE["services"]["code" if service == "idle" else service]["command"]
        words = [self.local(interpolated(word, self.values), service) for word in words]
        if service == "idle":
            return [word.replace("pipelines.definitions", "tests.deploy.idle_jobs") for word in words]
        if "deploy/workspace.yaml" in words:
            words += ["-w", str(self.root / "idle.yaml")]
        return words

    def start(self, service: str) -> None:
        """The service starts."""
        self.processes[service] = subprocess.Popen(
            self.command(service),
            cwd=ROOT,
            env=self.environment("code" if service == "idle" else service),
            stdout=self.log(service),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def log(self, service: str) -> IO[bytes]:
        return (self.root / f"{service}.log").open("ab")

    def said(self, service: str) -> str:
        return (self.root / f"{service}.log").read_text()

    def health_check(self, service: str) -> subprocess.CompletedProcess[str]:
        """What the service's own health check answers; that of `idle` is made from that of `code`."""
        declared = "code" if service == "idle" else service
        kind, *words = COMPOSE["services"][declared]["healthcheck"]["test"]
        words = [self.local(interpolated(word, self.values), service) for word in words]
        if kind == "CMD-SHELL":
            words = ["sh", "-c", *words]
        return self.carry_out(words, declared)

    def carry_out(self, words: list[str], service: str) -> subprocess.CompletedProcess[str]:
        """What a command answers in the environment of the service, with stderr in stdout."""
        environment = self.environment(service) | (self.reached() if service == "postgres" else {})
        return subprocess.run(
            words,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )

    def follow(self, script: str, folder: Path) -> None:
        """A script of the guide was carried out in `folder`, with what it does in containers done here."""
        docker = folder / "docker"
        docker.write_text(ENGINE)
        docker.chmod(0o755)
        containers = {name: self.environment(name) for name in COMPOSE["services"]}
        containers["postgres"] |= self.reached()
        (folder / "containers.json").write_text(json.dumps(containers))
        environment = {"PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-euc", self.local(script, "code")],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout

    def reached(self) -> dict[str, str]:
        """How the database's own tools reach it; inside its container they need not be told."""
        return {"PGHOST": "127.0.0.1", "PGPORT": str(self.database.port), "PGPASSWORD": self.database.password}

    def move_to(self, database: Server) -> None:
        """The deployment, which stands still, has lost its volumes and has a new, empty database."""
        for name in ("data", "logs"):
            shutil.rmtree(self.root / name)
            (self.root / name).mkdir()
        self.database = database
        self.values |= database.environment

    def becomes_healthy(self, service: str) -> None:
        until(lambda: self.health_check(service).returncode == 0, lambda: self.said(service))

    def kill(self, service: str) -> None:
        """All processes of the service are dead, as when its container is killed."""
        process = self.processes.pop(service)
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for member in family:
            member.kill()
        process.wait()
        psutil.wait_procs(family, timeout=10)

    def stop(self) -> None:
        """No process of the deployment is left."""
        for service in list(self.processes):
            self.kill(service)

    def ask(self, query: str, service: str = "webserver", **variables: Any) -> dict[str, Any]:
        """What the UI's server answers to a query, over HTTP."""
        answer = json.loads(self.ask_raw(query, service, **variables))
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def ask_raw(self, query: str, service: str = "webserver", **variables: Any) -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[service]}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.read().decode()

    def launch(self, params: dict[str, Any], service: str = "webserver") -> dict[str, Any]:
        """What the UI's server answers to a launch."""
        return self.ask(LAUNCH, service, params=params)["launchRun"]

    def run(self, run_id: str) -> dict[str, Any]:
        return self.ask(RUN, id=run_id)["runOrError"]

    def runs(self, tag: str) -> list[dict[str, Any]]:
        """All runs with the tag `test`, those that were started again among them."""
        return self.ask(RUNS, tags=[{"key": "test", "value": tag}])["runsOrError"]["results"]

    def finished(self, run_id: str) -> dict[str, Any]:
        """The run, once it has come to an end."""
        ended = ("SUCCESS", "FAILURE", "CANCELED")
        until(lambda: self.run(run_id)["status"] in ended, lambda: str(self.run(run_id)))
        return self.run(run_id)


LAUNCH = """
mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on PythonError { message }
  ... on UnauthorizedError { message }
} }
"""
# Stands in for the engine where the guide's commands need one: what is to be done in a container is done here.
ENGINE = """#!/usr/bin/env python3
import json, os, sys
from pathlib import Path
_, _, _, verb, *words = sys.argv[1:]
if verb in ("exec", "run"):
    while words[0].startswith("-"):
        words.pop(0)
    service, *command = words
    os.execvpe(command[0], command, json.loads(Path("containers.json").read_text())[service])
elif verb not in ("up", "start", "stop"):
    sys.exit(f"not known: {verb}")
"""
RUN = """
query ($id: ID!) { runOrError(runId: $id) { ... on Run { runId status } } }
"""
RUNS = """
query ($tags: [ExecutionTag!]) { runsOrError(filter: {tags: $tags}) {
  ... on Runs { results { runId status parentRunId rootRunId } }
} }
"""


def commands(heading: str) -> str:
    """The commands in the guide's section with that heading."""
    section = (ROOT / "docs" / "team.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return textwrap.dedent(re.split(r" *```(?:bash)?\n", section)[1])


def selector(location: str, job: str) -> dict[str, str]:
    return {"repositoryLocationName": location, "repositoryName": "__repository__", "pipelineName": job}
