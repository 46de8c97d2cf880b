"""A warm process beside the tests: commands that are asked of it need not import the libraries again."""

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from resources.hub_server.local import local_hub
from tests.pipelines import warm

# What pipelines.definitions sets before any library is imported.
BEFORE_LIBRARIES = {
    "MPLCONFIGDIR": str(warm.ROOT / ".cache" / "matplotlib"),
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "TQDM_DISABLE": "1",
}
# What libraries read when they are imported; a server serves those alone for whom it is the same.
READ_ONCE = ("FINETUNING_HUB", "HF_", "MPL", "OMP_", "TOKENIZERS_", "TQDM_", "TORCH", "CUDA_", "PYTHON", "AWS_", "RAY_")


class WarmServer:
    """The one warm process of this process, which has what libraries read once from the last world that asked."""

    current: "WarmServer | None" = None

    def __init__(self, environment: dict[str, str]) -> None:
        self.read_once = self.of(environment)
        self.folder = tempfile.TemporaryDirectory(prefix="warm-")
        self.address = str(Path(self.folder.name) / "warm.socket")
        # An interpreter that is one file, as the real one is, and does not look for packages.
        self.interpreter = Path(self.folder.name) / "python"
        self.interpreter.write_text(
            f'#!/bin/sh\nif [ "$1 $2" = "-m {warm.SERVED}" ] || [ "$1 $2" = "-m dagster" ]\n'
            f'then exec {sys.executable} -S -E {warm.__file__} "$@"\nelse exec {sys.executable} "$@"\nfi\n'
        )
        self.interpreter.chmod(0o755)
        # Its address is read once too: it stays what it is as long as the warm process is there.
        self.held = ExitStack()
        hub = self.held.enter_context(local_hub(Path(environment["FINETUNING_HUB_STATE"]), grace=1.0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", warm.__name__, self.address],
            cwd=warm.ROOT,
            env=BEFORE_LIBRARIES | environment | {"HF_ENDPOINT": hub.endpoint},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout and "ready" in self.process.stdout.readline()

    @staticmethod
    def of(environment: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in environment.items() if name.startswith(READ_ONCE)}

    @classmethod
    def serving(cls, environment: dict[str, str]) -> "WarmServer":
        """Return the server; another one where libraries would read something else."""
        if cls.current and cls.current.read_once != cls.of(environment):
            cls.current.process.kill()
            cls.current.process.wait()
            cls.current.held.close()
            cls.current = None
        cls.current = cls.current or cls(environment)
        return cls.current

    def run(self, arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Return what `python -m` answered, with stderr in stdout."""
        command = [str(self.interpreter), "-m", *arguments]
        return subprocess.run(
            command,
            cwd=warm.ROOT,
            env=environment | {warm.SERVER: self.address},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=540,
            check=False,
        )
