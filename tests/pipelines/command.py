"""Runs the public commands as a user does, each in a world of its own: recipes, artifacts, hub and instance."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from tests.waiting import PATIENCE
from tests.warm_server import HUBS, WarmServer, ordinary_environment

ROOT = Path(__file__).resolve().parents[2]
# Of the instance that ships: what decides how runs are started, watched and limited.
BASIC = ("telemetry", "run_launcher", "run_monitoring", "run_retries", "concurrency")
IN_PROCESS = json.dumps({"execution": {"config": {"in_process": {}}}})


def shipped_instance(root: Path) -> dict:
    """What the checkout's dagster.yaml says, with the folders of the world in `root`."""
    settings = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    compute_logs = settings["compute_logs"] | {"config": {"base_dir": str(root / "compute_logs")}}
    return {key: value for key, value in settings.items() if not key.endswith("storage")} | {
        "compute_logs": compute_logs
    }


def basic_instance() -> dict:
    """What the checkout's dagster.yaml says of runs; all that steps print is in the command's own output."""
    shipped = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    return {name: shipped[name] for name in BASIC}


def family_of(process: psutil.Process) -> list[psutil.Process]:
    """The process and all that come of it."""
    return [*process.children(recursive=True), process]


def kill(processes: list[psutil.Process]) -> None:
    """None of them is there any more."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=20)


def asset_materialize(partition: str, select: str) -> list[str]:
    """What `python -m` is told."""
    command = ["dagster", "asset", "materialize", "-m", "pipelines.definitions"]
    return [*command, "--select", select, "--partition", partition, "--config-json", IN_PROCESS]


@dataclass
class World:
    """A folder that holds all that the commands write, and the environment that points them to it."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    instance: dict = field(default_factory=basic_instance)
    """What stands in the world's dagster.yaml."""

    def __post_init__(self) -> None:
        for name in ("recipes", "dagster"):
            (self.root / name).mkdir(exist_ok=True)
        (self.root / "dagster" / "dagster.yaml").write_text(yaml.safe_dump(self.instance))
        self.environment = {
            **ordinary_environment(),
            "DAGSTER_HOME": str(self.root / "dagster"),
            "FINETUNING_RECIPES": str(self.root / "recipes"),
            "FINETUNING_ARTIFACTS": str(self.root / "artifacts"),
            "FINETUNING_HUB_STATE": str(self.root / "hub"),
            # The public Hub is out of reach of tests.
            "FINETUNING_SOURCE_HUB": "local",
            "HF_HOME": str(self.root / "cache"),
            **self.environment,
        }
        HUBS.leave_to(Path(self.environment["FINETUNING_HUB_STATE"]))

    def write_recipe(self, name: str, recipe: dict) -> None:
        """The recipe is there for the next command."""
        (self.root / "recipes" / f"{name}.yaml").write_text(yaml.safe_dump(recipe))

    def materialize(self, partition: str, select: str = "*", **environment: str) -> subprocess.CompletedProcess[str]:
        """What `dagster asset materialize` answered, with stderr in stdout, in one process for all steps."""
        return self.python("-m", *asset_materialize(partition, select), **environment)

    def materialize_warm(
        self, partition: str, select: str = "*", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """What the same command answered in a fork of a process that had imported the libraries, as its training did.

        It is the process of `materialize` after all where the environment has what libraries read only once.
        """
        return self.warm("-m", *asset_materialize(partition, select), **environment)

    def warm(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """What `python` with `-m` or `-c` answered, with stderr in stdout, in such a fork where that is possible."""
        with self.started(*arguments, stdin=subprocess.DEVNULL, **environment) as process:
            said = process.communicate(timeout=PATIENCE)[0]
        return subprocess.CompletedProcess(arguments, process.returncode, said)

    def started(self, *arguments: str, stdin: int = subprocess.PIPE, **environment: str) -> subprocess.Popen[str]:
        """Start such a fork, or a process where none is possible."""
        surroundings = {**self.environment, **environment}
        if server := WarmServer.serving(surroundings):
            return server.start(list(arguments), surroundings, stdin)
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=surroundings,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def results(self, partition: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """What `python -m pipelines.results` answered, in such a fork."""
        return self.warm("-m", "pipelines.results", partition, *options, **environment)

    def python(self, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """What a Python process answered that runs in the checkout, with stderr in stdout."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**self.environment, **environment},
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def compute_logs(self) -> str:
        """Everything that the steps of all runs and their children printed; of an instance that is the shipped one."""
        files = sorted((self.root / "compute_logs").rglob("*.out")) + sorted(
            (self.root / "compute_logs").rglob("*.err")
        )
        return "".join(file.read_text() for file in files)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[Path]:
        """The log of a Python process that runs in the checkout; neither it nor a child of it outlives the block."""
        log = self.root / "running.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, *arguments], cwd=ROOT, env=self.environment, stdout=out, stderr=subprocess.STDOUT
            )
            try:
                yield log
            finally:
                family = family_of(psutil.Process(process.pid)) if process.poll() is None else []
                process.terminate()
                kill(psutil.wait_procs(family, timeout=20)[1])

    def artifacts(self, partition: str) -> dict[str, dict]:
        """The manifest in force of each asset that has one."""
        found = {}
        for current in sorted((self.root / "artifacts").glob(f"*/{partition}/current.json")):
            fingerprint = json.loads(current.read_text())["fingerprint"]
            found[current.parts[-3]] = json.loads((current.parent / fingerprint / "artifact.json").read_text())
        return found

    def share(self, other: str, partition: str = "tiny") -> None:
        """What was trained for one partition is there for another too, whose recipe wants the same trained."""
        for asset in ("raw_dataset", "chat_dataset", "quantized_base_model", "lora_adapter"):
            home = self.folder(asset, partition).parent.with_name(other)
            shutil.copytree(home.with_name(partition), home)
            for path in home.glob("*/artifact.json"):
                path.write_text(json.dumps(json.loads(path.read_text()) | {"partition": other}))

    def folder(self, asset: str, partition: str) -> Path:
        """The folder of the artifact in force."""
        return self.root / "artifacts" / asset / partition / self.artifacts(partition)[asset]["fingerprint"]
