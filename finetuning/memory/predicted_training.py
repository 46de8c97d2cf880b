"""The process that predicts what its training needs, and trains.

python -m finetuning.memory.predicted_training JOB.json PARENT

Both need the same libraries, which take seconds to import and a part of the memory; so both are here, and the step that
started this process needs none of them.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from finetuning.durable import write_json
from finetuning.memory.fit import MIB, Placement, predicted, told
from finetuning.memory.savings import with_settings
from finetuning.training.interruption import end_with
from finetuning.training.job import SETTLED, TrainingJob
from finetuning.training.process import main

ASK_EVERY = 0.1  # seconds


def settle(job: TrainingJob, path: Path, log: Any) -> tuple[TrainingJob, dict[str, Any]]:
    """Return the job as the prediction has it, the same in all processes, and what the summary says of it."""
    from finetuning.memory.exam import require_exam_fits
    from finetuning.training.settings import on_cpu, processes

    if job.recipe is None:
        return job, {}
    recipe, size = job.recipe, job.batch_size
    if size:
        smaller = {"per_device_train_batch_size": size.rows, "gradient_accumulation_steps": size.accumulation}
        recipe = with_settings(recipe, {f"training.{key}": number for key, number in smaller.items()})
    settled = path.with_name(SETTLED)
    if os.environ.get("RANK", "0") == "0":
        place = Placement("cpu" if on_cpu(job) else "cuda", processes())
        fit = predicted(log, recipe, job.chat_dataset, job.base_model, place)
        require_exam_fits(log, recipe, job.chat_dataset, job.base_model, place.device)
        found = {"job": told(job, fit).model_dump(mode="json"), "mib": fit and fit.prediction.total // MIB}
        write_json(settled, found)
    while not settled.exists():  # whoever started these processes ends them where the first one fails
        time.sleep(ASK_EVERY)
    found = json.loads(settled.read_text())
    return TrainingJob.model_validate(found["job"]), {"predicted_memory_mb": found["mib"]}


def of_method(job: TrainingJob) -> Any:
    """Return what a training of the job's method is made of."""
    if job.training.method != "grpo":
        return None
    from finetuning.reinforcement.kind import any_kind_of

    return any_kind_of(job)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        end_with(int(sys.argv[2]))
    sys.exit(main(Path(sys.argv[1]), settle, of_method))
