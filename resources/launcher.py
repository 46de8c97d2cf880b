"""Runs training outside the step's process, and tells how it died when it did."""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError

from finetuning.errors import FinetuningError

# Beside the job: what a child writes before it exits because of a mistake that the user can mend.
FAILURE = "failure.txt"


class Launcher(dg.ConfigurableResource):
    """Starts a `finetuning` entry point as one child process; its progress comes back through Dagster Pipes."""

    def run(self, context: dg.AssetExecutionContext, module: str, job: Mapping[str, Any]) -> None:
        """Nothing, once `python -m <module> JOB.json PARENT`, with `job` in that file, has ended well.

        PARENT is this process's id, so that the child can end itself when this process is killed.

        Raises:
            FinetuningError: the child said what was wrong, or was killed.
        """
        context.log.info(f"starting python -m {module}")
        client = dg.PipesSubprocessClient(env=child_environment(), forward_termination=True)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "job.json"
            path.write_text(json.dumps(job))
            try:
                client.run(context=context, command=[sys.executable, "-m", module, str(path), str(os.getpid())])
            except DagsterPipesExecutionError as error:
                raise FinetuningError(reason_of_death(path.with_name(FAILURE), str(error))) from None


def child_environment() -> dict[str, str]:
    """This process's environment, with the number of threads set to the cores that it may use.

    Two processes whose OpenMP threads together outnumber the cores slow each other tenfold.
    """
    cores = str(len(os.sched_getaffinity(0)))
    return {"OMP_NUM_THREADS": cores, "PYTHONUNBUFFERED": "1", **os.environ}


def reason_of_death(failure: Path, message: str) -> str:
    """What the child wrote into the file `failure` before it ended, or what its exit code means."""
    if failure.exists():
        return failure.read_text()
    if f"code {-signal.SIGKILL}" in message:
        return (
            "Training was killed by the system (signal 9), most often because memory ran out. Lower "
            "training.per_device_train_batch_size or chat.max_length, or quantize the base model."
        )
    return f"Training failed: {message} The child's own words are in this step's stderr, in the run's compute logs."
