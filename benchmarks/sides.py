"""Starts a side of a benchmark: `python -m MODULE JOB.json` in a process of its own, which leaves a record.

>>> record_of("benchmarks.data_trl", sys.executable, job, "trl")
{"seconds": 58.1, "rows": 100000, …}
"""

import json
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import llamafactory_environment

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".cache/benchmarks"
NAMES = {"ours": "this project", "trl": "trl", "llamafactory": "LLaMA-Factory"}
SHOWN_OF_A_LOG = 3_000
# What would make a side faster or slower than it is by itself, or let it find what another left.
UNSET = ("TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS", "HF_DATASETS_CACHE", "HF_HUB_CACHE", "RAYON_NUM_THREADS")


class SideFailed(SystemExit):
    """A side that ended with `exit_code`; the text is the end of what it printed."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def record_of(module: str, python: str, job: Any, name: str, **environment: str) -> dict[str, Any]:
    """The record of a side, which ran with caches of its own and this process's other variables.

    Args:
        job: a NamedTuple whose `record` is the file of the record; what the side prints is in `log` beside that.

    Raises:
        SideFailed: the end of what it printed is the message.
    """
    folder = Path(job.record).parent
    (folder / "job.json").write_text(json.dumps(job._asdict()))
    variables = {
        **{name: value for name, value in os.environ.items() if name not in UNSET},
        "HF_HOME": str(folder / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        **environment,
    }
    with TemporaryDirectory(dir=folder) as temporary, (folder / "log").open("wb") as log:
        variables["TMPDIR"] = temporary
        command = [python, "-m", module, str(folder / "job.json")]
        done = subprocess.run(command, cwd=ROOT, env=variables, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SideFailed(f"{name} failed:\n{(folder / 'log').read_text()[-SHOWN_OF_A_LOG:]}", done.returncode)
    return json.loads(Path(job.record).read_text())


def peer() -> str:
    """The interpreter that has LLaMA-Factory.

    Raises:
        SystemExit: it cannot be installed.
    """
    try:
        return str(llamafactory_environment.python())
    except subprocess.CalledProcessError:
        raise SystemExit("LLaMA-Factory cannot be installed; --without-peer measures without it.") from None
