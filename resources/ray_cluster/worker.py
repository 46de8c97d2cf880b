"""What each worker of a training on a Ray cluster does: fetches what it reads, trains, and hands on what it saved.

>>> TorchTrainer(work, train_loop_config={"training": training, "board": board}, …)

What one worker trains is what a process of one machine does. Paths are those of its own node.
"""

import json
import os
import shutil
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
import ray.train
from ray.exceptions import RayError

from finetuning.errors import FAULT, FinetuningError, InfrastructureError
from finetuning.memory.fit import Placement, predicted, told
from finetuning.memory.predicted_training import of_method
from finetuning.memory.savings import with_settings
from finetuning.progress import Progress
from finetuning.recipe.recipe import Recipe
from finetuning.settings import text_of
from finetuning.training.checkpoints import complete, step_of
from finetuning.training.interruption import Interrupted, Interruption
from finetuning.training.job import TooLarge, TrainingJob, TrainingTask, allocator_settings
from resources.artifacts import Artifacts, Settings
from resources.gpu import MIB, Gpu
from resources.ray_cluster.board import LOGS, Settled
from resources.store.artifact import Artifact
from resources.store.locks import hold
from resources.store.objects import is_passing, said_by

# What is handed to Ray in the end, and the mark of it.
ADAPTER, FINISHED = "adapter", "finished"
# What a checkpoint needs that is older than it: the best weights so far, and the curves.
BESIDE = ("best.safetensors", "tensorboard")
LISTEN_EVERY = 1.0  # seconds


@dataclass(frozen=True)
class Place:
    """Where workers find what they read, and keep what those need that take their place."""

    artifacts: Settings
    """The settings of `Artifacts` that are the same everywhere."""
    checkpoints: str
    """A folder, or an address, in the artifact store."""
    fingerprint: str
    """Of the artifact; whoever trains for the same one goes on from its checkpoints."""


@dataclass(frozen=True)
class RayTraining:
    """What each worker is told."""

    recipe: Recipe
    task: TrainingTask
    inputs: Mapping[Literal["chat_dataset", "base_model"], Artifact]
    """By the job's name for it; on each node it lies where that node's store has it."""
    workers: int
    require: str
    """The setting of `Gpu`."""
    place: Place
    start: Any = None
    """The adapter that it goes on from, as a reference of Ray's to its files by name; None where it starts anew."""


class Log:
    """A worker's part of the step's log; only the first one's is heard."""

    def __init__(self, board: Any, first: bool) -> None:
        self._board, self._first = board, first

    def info(self, line: str) -> None:
        """Add a line to the step's log."""
        if self._first:
            self._board.say.remote("info", line)

    def warning(self, line: str) -> None:
        """Add a line to the step's log, as a warning."""
        if self._first:
            self._board.say.remote("warning", line)


def work(config: dict[str, Any]) -> None:
    """Train with the other workers, of which the first hands the adapter to Ray."""
    training, board, last = config["training"], config["board"], ray.train.get_checkpoint()
    if last and Path(last.path).name == ADAPTER:  # all is done, and only whoever was to take it had died
        return
    rank = ray.train.get_context().get_world_rank()
    folder = Path(tempfile.mkdtemp(prefix=f"rank-{rank}-", dir=Path.cwd()))
    try:
        step = -1
        if last:
            last.to_directory(str(folder / "checkpoints"))
            step = step_of(complete(folder / "checkpoints")[-1])
        if ray.get(board.begin.remote(step) if rank == 0 else board.may_go_on.remote()):
            with failures_told(board, Log(board, rank == 0)):
                train_here(training, board, folder, step)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def failures_told(board: Any, log: Log) -> Iterator[None]:
    """Put on the board what a further try would meet as well. A failure goes on, and ends the other workers."""
    try:
        yield
    except Interrupted:
        log.info("interrupted; the next run goes on from the last checkpoint")
    except TooLarge as error:
        ray.get(board.fail.remote(error.kind, str(error), error.size))
        raise
    except FinetuningError as error:
        ray.get(board.fail.remote(error.kind, str(error)))
        raise
    except Exception as error:
        traceback.print_exc()
        if is_passing(error) or is_of_another(error):
            ray.get(board.say.remote("warning", f"a worker failed: {said_by(error)}"))
        else:
            ray.get(board.fail.remote(FAULT, f"Training failed: {said_by(error)}. The worker's own words are {LOGS}."))
        raise


def is_of_another(error: Exception) -> bool:
    """Return whether this worker only waited for one that is gone."""
    import torch.distributed

    return isinstance(error, torch.distributed.DistError) or any(
        name in str(error) for name in ("gloo/transport", "NCCL", "Connection closed by peer", "Connection reset")
    )


def train_here(training: RayTraining, board: Any, folder: Path, step: int) -> None:
    """Train; the first worker hands the adapter to Ray.

    Args:
        folder: this worker's, in which `checkpoints` has what training goes on from.
        step: that of the newest checkpoint there, -1 for none.
    """
    os.environ.update(allocator_settings())  # before torch asks a GPU for memory
    context = ray.train.get_context()
    first = context.get_world_rank() == 0
    log, gpu = Log(board, first), Gpu(require=training.require)
    interruption, reports = Interruption(), Reports(folder / "report", step, first)
    with listening(board, interruption, reports), Progress(log.info, "loading libraries") as progress:
        from finetuning.training.lora_adapter import train

        found = {name: lies_at(training, artifact, log) for name, artifact in training.inputs.items()}
        if first:
            settle(training, board, log, gpu, found["chat_dataset"], found["base_model"])
        settings = settled(board)
        job = TrainingJob(
            **dict(with_start(settings.task, training.start, folder / "start")),
            chat_dataset=found["chat_dataset"],
            base_model=found["base_model"],
            model_kwargs=gpu.model_kwargs(training.recipe.base_model),
            output=folder / ADAPTER,
            checkpoints=folder / "checkpoints",
        )
        hang = Path.cwd() / f"hang-{context.get_world_rank()}.txt"
        if hang.exists() and (doing := hang.read_text()):
            board.say.remote(
                "warning", f"{socket.gethostname()}: a worker had hung, and ended itself. It was in:\n{doing}"
            )
        summary = train(job, progress, hang, interruption, reports, of_method(job))
    if first:
        (job.output / "summary.json").write_text(json.dumps(summary | dict(settings.summary)))
    adapter = ray.train.Checkpoint.from_directory(job.output) if first else None
    ray.train.report({FINISHED: True}, checkpoint=adapter, checkpoint_dir_name=ADAPTER)


def with_start(task: TrainingTask, start: Any, folder: Path) -> TrainingTask:
    """Return the task with the adapter that it goes on from in that folder, on this node."""
    if start is None:
        return task
    files: Any = ray.get(start)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return task.model_copy(update={"lora": task.lora.model_copy(update={"start_from": str(folder)})})


def lies_at(training: RayTraining, artifact: Artifact, log: Log) -> Path:
    """Return where this node has the artifact; what is on object storage is fetched once for all workers of a node.

    Raises:
        InfrastructureError: this node does not see the artifact.
    """
    store = Artifacts(**training.place.artifacts, cache=text_of("artifacts_cache")).store(log.info)
    folder = store.home(artifact.asset, artifact.partition) / artifact.fingerprint
    found = store.fetch(folder)
    if found and hold(found.path):
        return found.path
    raise InfrastructureError(
        f"{socket.gethostname()}: {store.address_of(folder)}: {artifact.asset} is not there. "
        "FINETUNING_ARTIFACTS has to be a folder that all nodes of the cluster share, or an address such as "
        "s3://bucket/name."
    )


def settle(training: RayTraining, board: Any, log: Log, gpu: Gpu, chat: Path, base: Path) -> None:
    """Find out what depends on the machine and must be the same for all workers, and put it on the board."""
    if ray.get(board.settled.remote()):  # by those in whose place these are
        return
    recipe = with_settings(training.recipe, {"resources.workers": training.workers})
    place = Placement(gpu.machine().device, ray.train.get_context().get_local_world_size())
    fit = predicted(log, gpu.adapted(recipe, place.processes), chat, base, place)
    summary = {
        "passed_over": gpu.attention(training.recipe.base_model).passed_over,
        "dtype": gpu.dtype(training.recipe.base_model),
        "predicted_memory_mb": fit and fit.prediction.total // MIB,
    }
    ray.get(board.settle.remote(Settled(told(training.task, fit), summary)))


def settled(board: Any) -> Settled:
    """Wait for what the first worker settles, and return it."""
    found: Settled | None = None
    while not found:
        time.sleep(LISTEN_EVERY / 5)
        found = ray.get(board.settled.remote())
    return found


@contextmanager
def listening(board: Any, interruption: Interruption, reports: "Reports") -> Iterator[None]:
    """Within the block, let the first worker show that it lives, and ask for the end when it is told to."""
    ended = threading.Event()

    def listen() -> None:
        with suppress(RayError):  # the step is gone, and so will be this process
            while not ended.wait(LISTEN_EVERY):
                if ray.get(board.is_ending.remote(reports.begun)):
                    interruption.ask()

    if reports.first:
        threading.Thread(target=listen, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


class Reports:
    """Hands each checkpoint to Ray once, which keeps it in the artifact store. `newest` is a step."""

    def __init__(self, folder: Path, newest: int, first: bool) -> None:
        self._folder, self._newest, self.first = folder, newest, first
        self.begun = False

    def __call__(self, checkpoint: Path) -> None:
        self.begun = True  # with the first one, which is that of the start
        step = step_of(checkpoint)
        if step <= self._newest:
            return
        self._newest = step
        report = ray.train.Checkpoint.from_directory(self._gathered(checkpoint)) if self.first else None
        ray.train.report({"step": step}, checkpoint=report, checkpoint_dir_name=checkpoint.name)

    def _gathered(self, checkpoint: Path) -> Path:
        """A folder of the checkpoint and of what it needs, as a training finds them that goes on from there."""
        shutil.rmtree(self._folder, ignore_errors=True)
        for source in (checkpoint, *(checkpoint.with_name(name) for name in BESIDE)):
            if source.is_dir():
                shutil.copytree(source, self._folder / source.name, copy_function=os.link)
            elif source.exists():
                os.link(source, self._folder / source.name)
        return self._folder
