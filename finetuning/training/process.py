"""The process that trains: `python -m finetuning.training.process JOB.json`.

The asset `lora_adapter` starts it as `finetuning.memory.predicted_training`, which predicts its memory first.
It says what it does before it imports what takes seconds to import; the lines reach Dagster through Pipes, and the
terminal where there is no Dagster. The job names everything by path, so the process needs no hub and no token.
"""

import json
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dagster_pipes import PipesEnvVarParamsLoader, open_dagster_pipes

from finetuning.errors import FinetuningError
from finetuning.garbage import importing, look_rarely
from finetuning.progress import Progress
from finetuning.training.interruption import Interrupted, end_with
from finetuning.training.job import (
    FAILURE,
    FAILURE_KIND,
    HANG,
    INTERRUPTED,
    MISTAKE,
    SMALLER,
    TOO_LARGE,
    TooLarge,
    TrainingJob,
)

Settle = Callable[[TrainingJob, Path, Any], tuple[TrainingJob, dict[str, Any]]]


class Lines:
    """The part of a logger that is used here, where there is none: all lines are told alike."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.info = self.warning = tell


def as_it_is(job: TrainingJob, path: Path, log: Any) -> tuple[TrainingJob, dict[str, Any]]:
    """Return the job, and nothing that its summary would not have."""
    return job, {}


def main(path: Path, settle: Settle = as_it_is, of_method: Callable[[TrainingJob], Any] = lambda job: None) -> int:
    """Train as the job in that file says, write `summary.json` into its output folder, and return the exit code.

    `settle` may change the job before, and add to its summary; it gets the job, its file and a log. `of_method` says
    what a training of the job's method is made of (`Kind`), where it is none that learns from rows alone.

    The code is 0; 3 for a mistake of the user, which `failure.txt` beside the job then explains; 4 for an end that was
    asked for; 5 where the job goes on with the `batch_size` in `batch_size.json` beside it.
    """
    # Of several processes, the first one speaks for all.
    is_first = os.environ.get("RANK", "0") == "0"
    look_rarely()
    in_dagster = is_first and PipesEnvVarParamsLoader().is_dagster_pipes_process()
    with open_dagster_pipes() if in_dagster else nullcontext() as pipes:
        log = pipes.log if pipes else Lines(say if is_first else lambda line: None)
        return _train(path, settle, of_method, log, is_first)


def _train(path: Path, settle: Settle, of_method: Callable[[TrainingJob], Any], log: Any, is_first: bool) -> int:
    with Progress(log.info, "loading libraries") as progress:
        try:
            with importing():
                from finetuning.training.lora_adapter import train

            job, known = settle(TrainingJob.model_validate_json(path.read_text()), path, log)
            summary = train(job, progress, path.with_name(HANG), kind=of_method(job)) | known
        except TooLarge as error:
            path.with_name(SMALLER).write_text(json.dumps(asdict(error.size)))
            progress.log(str(error))
            return TOO_LARGE
        except FinetuningError as error:
            path.with_name(FAILURE_KIND).write_text(error.kind)
            path.with_name(FAILURE).write_text(str(error))
            print(error, file=sys.stderr)
            return MISTAKE
        except (Interrupted, KeyboardInterrupt):
            progress.log("interrupted; the next run goes on from the last checkpoint")
            return INTERRUPTED
    if is_first:
        (job.output / "summary.json").write_text(json.dumps(summary))
    return 0


def say(line: str) -> None:
    """Print the line at once."""
    print(line, flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        end_with(int(sys.argv[2]))
    sys.exit(main(Path(sys.argv[1])))
