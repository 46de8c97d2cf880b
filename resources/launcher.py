"""Runs training outside the step's process, and says how it died if it did."""

import json
import os
import signal
import stat
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import dagster as dg
from pydantic import JsonValue

from finetuning.errors import CrashError, FinetuningError, InfrastructureError, of_kind
from finetuning.out_of_memory import tells_of_no_memory
from finetuning.recipe.recipe import Recipe
from finetuning.settings import Settings, variable
from finetuning.training.job import (
    FAILURE,
    FAILURE_KIND,
    HANG,
    INTERRUPTED,
    SECONDS_TO_END,
    SMALLER,
    BatchSize,
    TrainingJob,
    TrainingTask,
    allocator_settings,
)
from resources.dagster_internals import DagsterPipesExecutionError
from resources.gpu import Gpu
from resources.store.artifact import Artifact
from resources.store.plan import checkpoints_of

# By which huggingface_hub finds a token, the hub resource the one for reading, and a judge its key.
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", variable("source_token"), variable("judge_key"))

ROWS, PASSES = "per_device_train_batch_size", "gradient_accumulation_steps"
LAST_BYTES, LAST_LINES = 20_000, 10  # of a child's stderr that may tell why it ended

ADVICE = "Lower training.per_device_train_batch_size or chat.max_length, or quantize the base model."


class EndedForMemory(InfrastructureError):
    """A child that a library ended because it was given no memory."""


class Launcher(dg.ConfigurableResource):
    """Starts a `finetuning` entry point as a child process, or as several that share the work of each step.

    The progress of the first one comes back through Dagster Pipes. With `kind: ray` training is left to a Ray cluster
    (`resources/ray_cluster/training.py`).
    """

    kind: str = "local"
    num_workers: str = "1"

    def is_ray(self) -> bool:
        """Return whether a Ray cluster trains.

        Raises:
            FinetuningError: `kind` is not a word that is known, or what Ray needs is not installed.
        """
        kind = Settings.of(launcher=self.kind).launcher
        if kind == "ray":
            try:
                import ray.train  # noqa: F401
            except ImportError as error:
                raise InfrastructureError(
                    f"FINETUNING_LAUNCHER: ray needs packages that are not installed ({error}). They come with "
                    ".venv/bin/pip install -c constraints.txt -e '.[cluster]', on each node of the cluster."
                ) from None
        return kind == "ray"

    def count(self, workers: int | None = None) -> int:
        """Return how many processes train together: the recipe's `workers`, or what this instance has for all recipes.

        Raises:
            FinetuningError: `num_workers` is not such a number.
        """
        if workers:
            return workers
        return Settings.of(processes=self.num_workers).processes

    def run(
        self, context: dg.AssetExecutionContext, module: str, job: Mapping[str, JsonValue], workers: int | None = None
    ) -> None:
        """Run `python -m <module> JOB.json PARENT`, with `job` in that file, until it has ended well.

        PARENT is this process's id, so that the children can end themselves when this process is killed.

        Args:
            workers: how many processes, where the recipe says it.

        Raises:
            FinetuningError: the child said what was wrong, or was killed.
        """
        processes = self.count(workers)
        client = dg.PipesSubprocessClient(
            env=child_environment(processes),
            forward_termination=True,
            termination_timeout_seconds=SECONDS_TO_END,
        )
        while smaller := self.run_once(context, client, module, job, processes):
            context.log.warning(f"out of memory: going on with {smaller['rows']} rows a pass")
            job = {**job, "batch_size": smaller}

    def run_once(
        self,
        context: dg.AssetExecutionContext,
        client: dg.PipesSubprocessClient,
        module: str,
        job: Mapping[str, JsonValue],
        processes: int,
    ) -> dict[str, JsonValue] | None:
        """Run the children once; return None if they ended well, the `batch_size` to go on with if memory ran out."""
        context.log.info(f"starting python -m {module}, {processes} time(s)")
        with TemporaryDirectory() as folder:
            path = Path(folder) / "job.json"
            path.write_text(json.dumps(job))
            begun = written()
            try:
                client.run(context=context, command=[*self.start(processes), module, str(path), str(os.getpid())])
            except DagsterPipesExecutionError as error:
                if (smaller := path.with_name(SMALLER)).exists():
                    return json.loads(smaller.read_text())
                death = reason_of_death(path.parent, str(error), str(job.get("fit") or ADVICE), said_since(begun))
                if isinstance(death, EndedForMemory) and (halves := halved(job)):
                    return halves
                raise death from None
        return None

    def start(self, processes: int) -> list[str]:
        """Return the command that starts a module so many times, up to the module's name."""
        if processes == 1:
            return [sys.executable, "-m"]
        return [sys.executable, "-m", "finetuning.training.several_processes", str(processes)]


def child_environment(processes: int = 1) -> dict[str, str]:
    """Return this process's environment, with the number of threads set to the cores that each child may use.

    Processes whose OpenMP threads together outnumber the cores slow each other tenfold. One process gets one GPU, of
    several the first: transformers would spread each batch over all that it sees. The hub's token is left empty:
    training asks no hub.
    """
    cores = str(max(1, len(os.sched_getaffinity(0)) // processes))
    devices = {}
    if processes == 1:
        devices = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()}
    secrets = {name: "" for name in TOKENS if name in os.environ}  # Dagster adds what is not named here
    return {
        "OMP_NUM_THREADS": cores,
        "PYTHONUNBUFFERED": "1",
        **allocator_settings(),
        **os.environ,
        **devices,
        **secrets,
    }


def written() -> int | None:
    """Return how many bytes are in the file that this process's stderr, which a child shares, goes to, if it is one."""
    status = os.fstat(2)
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def said_since(begun: int | None) -> str:
    """Return the last lines that were written to stderr after its first `begun` bytes; none where it is no file.

    bitsandbytes ends a process that it lacks memory for by itself, with a line there and no exception.
    """
    if begun is None:
        return ""
    try:
        with Path("/dev/fd/2").open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(begun, end - LAST_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-LAST_LINES:])
    except OSError:  # a file that may be written and not be read
        return ""


def halved(job: Mapping[str, Any]) -> dict[str, JsonValue] | None:
    """Return the `batch_size` of half as many rows in a pass; None where the job allows none, or has one row."""
    training = job.get("training", {})
    if training.get("on_oom") != "halve-batch":
        return None
    size = BatchSize(**(job.get("batch_size") or {"rows": training[ROWS], "accumulation": training[PASSES]}))
    return None if size.rows == 1 else asdict(size.halved())


def reason_of_death(folder: Path, message: str, advice: str = ADVICE, last_words: str = "") -> FinetuningError:
    """Return the error that the child wrote beside its job before it ended, or that its exit code means.

    Args:
        advice: what to change where memory ran out.
        last_words: of the child, on its stderr.
    """
    if (folder / FAILURE).exists():
        return of_kind((folder / FAILURE_KIND).read_text(), (folder / FAILURE).read_text())
    if (folder / HANG).exists() and (doing := (folder / HANG).read_text()):
        return InfrastructureError(
            "Training hung: nothing went on for training.step_timeout_minutes, and the process ended itself. Raise "
            "the limit if a step may take that long. The next run goes on from the last checkpoint. It was in:\n"
            f"{doing}"
        )
    if message.endswith((f"code {-signal.SIGKILL}", f"code {128 + signal.SIGKILL}")):
        return InfrastructureError(
            f"Training was killed by the system (signal 9), most often because memory ran out. {advice}"
        )
    if message.endswith((f"code {INTERRUPTED}", f"code {-signal.SIGTERM}")):
        return InfrastructureError("Training was asked to end. The next run goes on from the last checkpoint.")
    if lack := next((line for line in reversed(last_words.splitlines()) if tells_of_no_memory(line)), None):
        return EndedForMemory(f"Training ran out of memory ({lack.strip()}). {advice}")
    return CrashError(
        f"Training failed: {message} The child's own words are in this step's stderr, in the run's compute logs."
    )


@dataclass(frozen=True)
class OnThisMachine:
    """Trains in child processes of this machine, for a step of Dagster's."""

    context: dg.AssetExecutionContext
    gpu: Gpu
    launcher: Launcher

    def train(
        self,
        recipe: Recipe,
        inputs: Mapping[Literal["chat_dataset", "base_model"], Artifact],
        folder: Path,
        until: float | None = None,
    ) -> dict[str, JsonValue]:
        """Leave the adapter in `folder`, or what it has come to after a share of its steps (`until`).

        Returns:
            The kernels passed over and the number format, which the summary in that folder does not know.
        """
        gpu, log = self.gpu, self.context.log.info
        attention = gpu.attention(recipe.base_model)
        for kernel, reason in attention.passed_over.items():
            log(f"attention: {kernel} passed over: {reason}")
        if (dtype := gpu.dtype(recipe.base_model)) != recipe.base_model.dtype:
            log(f"base_model.dtype: computing in {dtype}, as bfloat16 is slow on {gpu.machine().name}")
        workers = recipe.resources.workers
        with gpu.exclusive(log):
            job = TrainingJob(
                **dict(TrainingTask.of(recipe)),
                recipe=gpu.adapted(recipe, self.launcher.count(workers)),
                chat_dataset=inputs["chat_dataset"].path,
                base_model=inputs["base_model"].path,
                model_kwargs=gpu.model_kwargs(recipe.base_model),
                output=folder,
                until=until,
                checkpoints=checkpoints_of(folder),
            )
            module = "finetuning.memory.predicted_training"
            self.launcher.run(self.context, module, job.model_dump(mode="json"), workers)
        return {"passed_over": {**attention.passed_over}, "dtype": dtype}
