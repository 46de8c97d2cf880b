"""The process that trains: `python -m finetuning.training_process JOB.json`, alone or as the child of `lora_adapter`.

It says what it does before it imports what takes seconds to import; the lines reach Dagster through Pipes, and the
terminal where there is no Dagster. The job names everything by path, so the process needs no hub and no token.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

from dagster_pipes import open_dagster_pipes

from finetuning.errors import FinetuningError
from finetuning.progress import Progress

MISTAKE = 3


def end_with(parent: int) -> None:
    """Nothing; this process ends within a second of `parent`, even when that was killed and could not say so.

    An orphan would train on beside its successor, and write into the same folder.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(path: Path) -> int:
    """The exit code: 0, or 3 for a mistake of the user, which `failure.txt` beside the job then explains.

    The summary of the training goes to `summary.json` in the job's output folder.
    """
    with open_dagster_pipes() as pipes, Progress(pipes.log.info, "loading libraries") as progress:
        try:
            from finetuning.training import TrainingJob, train

            job = TrainingJob.model_validate_json(path.read_text())
            summary = train(job, progress)
        except FinetuningError as error:
            path.with_name("failure.txt").write_text(str(error))
            print(error, file=sys.stderr)
            return MISTAKE
    (job.output / "summary.json").write_text(json.dumps(summary))
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 2:
        end_with(int(sys.argv[2]))
    sys.exit(main(Path(sys.argv[1])))
