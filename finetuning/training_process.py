"""The process that trains: `python -m finetuning.training_process JOB.json`, alone or as the child of `lora_adapter`.

It says what it does before it imports what takes seconds to import; the lines reach Dagster through Pipes, and the
terminal where there is no Dagster. The job names everything by path, so the process needs no hub and no token.
"""

import json
import sys
from pathlib import Path

from dagster_pipes import open_dagster_pipes

from finetuning.errors import FinetuningError
from finetuning.progress import Progress

MISTAKE = 3


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
    sys.exit(main(Path(sys.argv[1])))
