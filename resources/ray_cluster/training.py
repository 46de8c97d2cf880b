"""One training over several hosts: Ray Train starts it in workers, and starts them again from the last checkpoint.

The step's process asks a Ray cluster for the workers, hands on what they say, and ends them when it ends. What they
read, and what they leave to those that take their place, is in the artifact store.

>>> training = RayTraining(recipe, task, inputs, workers=2, require="any", place=place_of(artifacts, folder))
>>> train_on_cluster(context, training, folder)  # `folder` holds the adapter then, and summary.json
"""

import io
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import fsspec
import pyarrow.fs
import ray
import ray.train
from fsspec.implementations.local import LocalFileSystem
from ray.exceptions import RayError
from ray.train.torch import TorchConfig, TorchTrainer

from finetuning.errors import CrashError, InfrastructureError, of_kind
from finetuning.lora.start import CONFIG, WEIGHTS
from finetuning.recipe.resources import ResourcesSpec
from finetuning.training.job import SECONDS_TO_END, BatchSize
from resources.artifacts import Artifacts
from resources.ray_cluster.board import LOGS, Board, News
from resources.ray_cluster.worker import FINISHED, LISTEN_EVERY, Place, RayTraining, work
from resources.ray_internals import limits_of_the_cluster, name_of_the_checkpoint_list
from resources.store.plan import checkpoints_of
from resources.store.store import fingerprint_in

WAITING_EVERY = 60.0  # seconds

SILENT = 5 * LISTEN_EVERY  # seconds after which nobody is at work

GB = 1e9

# Of the workers; what else they need of the environment, their nodes have.
ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "PYTHONUNBUFFERED": "1",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",  # a line for each checkpoint of each worker
    "TQDM_DISABLE": "1",
}


def train_on_cluster(
    context: dg.AssetExecutionContext, training: RayTraining, folder: Path, start: Path | None = None
) -> None:
    """Train in workers of the cluster that RAY_ADDRESS names, and leave the adapter in `folder`.

    Args:
        start: the folder with the adapter that it goes on from, which travels to the workers.

    Raises:
        FinetuningError: there is no cluster, it is too small, or a worker said what was wrong.
    """
    while smaller := train_once(context, training, folder, start):
        context.log.warning(f"out of memory: going on with {smaller.rows} rows a pass")
        training = replace(training, task=training.task.model_copy(update={"batch_size": smaller}))


def train_once(
    context: dg.AssetExecutionContext, training: RayTraining, folder: Path, start: Path | None
) -> BatchSize | None:
    """Return None once the adapter is there; the size to go on with where memory ran out."""
    with cluster():
        need = needed(training.recipe.resources)
        require_room(need, training.workers)
        context.log.info(f"asking the Ray cluster for {asked(need, training.workers)}")
        if start:
            files = {path.name: path.read_bytes() for path in (start / CONFIG, start / WEIGHTS)}
            training = replace(training, start=ray.put(files))
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        board = ray.remote(Board).options(num_cpus=0, label_selector=here).remote()
        # In a process of Ray's, so that this one keeps its signals and can be ended at any moment.
        run = ray.remote(fit).options(num_cpus=0, max_retries=0, label_selector=here)
        adapter = follow(context, board, run.remote(training, board, need), need, training.workers)
        if isinstance(adapter, BatchSize):
            return adapter
        adapter.to_directory(str(folder))
    return None


@contextmanager
def cluster() -> Iterator[None]:
    """Connect this process to the cluster that RAY_ADDRESS names; all that it starts there ends with the block.

    Raises:
        InfrastructureError: there is none.
    """
    address = os.environ.get("RAY_ADDRESS") or "auto"
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        require_listener(address)
        ray.init(address=address, logging_level=logging.WARNING, log_to_driver=True)
    except Exception as error:
        raise InfrastructureError(
            f"RAY_ADDRESS: {address!r}: no Ray cluster answers ({' '.join(str(error).split())[:300]}). Start one with "
            "`ray start --head`, or write its address, such as 10.0.0.1:6379. This step has to run on one of its nodes."
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # Ray puts its own in their place
                signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def require_listener(address: str) -> None:
    """Check that something listens at an address of host and port; Ray itself would look for it for minutes.

    Raises:
        OSError: nothing does.
    """
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def needed(resources: ResourcesSpec) -> dict[str, float]:
    """Return what one worker asks of its node, by Ray's names."""
    gpus = resources.gpus if resources.gpus is not None else int(at_most("GPU") > 0)
    memory = {"memory": resources.memory_gb * GB} if resources.memory_gb else {}
    return {"CPU": resources.cpus, **({"GPU": gpus} if gpus else {}), **memory}


def at_most(name: str) -> float:
    """Return how much of a resource the cluster's nodes have, or will have once it has grown as far as it may."""
    return max(ray.cluster_resources().get(name, 0), limits_of_the_cluster().get(name, 0))


def require_room(need: dict[str, float], workers: int) -> None:
    """Check that the cluster can hold the workers, now, once others have ended, or once it has grown.

    Raises:
        InfrastructureError: it never can.
    """
    grows = any(at_most(name) > ray.cluster_resources().get(name, 0) for name in need)
    if room(need) >= workers or (grows and all(at_most(name) >= need[name] * workers for name in need)):
        return
    raise InfrastructureError(
        f"resources: {asked(need, workers)} are more than the Ray cluster can hold: {present()}, room for {room(need)} "
        "of them. Lower resources.workers, cpus, gpus or memory_gb in the recipe (or FINETUNING_PROCESSES, where it "
        "names no workers), or add nodes."
    )


def nodes() -> list[dict[str, float]]:
    """Return what each node that is there has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def room(need: dict[str, float]) -> int:
    """Return how many such workers the nodes would hold with nothing else on them."""
    return sum(min(int(node.get(name, 0) // amount) for name, amount in need.items()) for node in nodes())


def asked(need: dict[str, float], workers: int) -> str:
    """Return what is asked for, in words."""
    return f"{workers} worker{'s' * (workers > 1)} of {amounts(need)}"


def present() -> str:
    """Return what there is, in words."""
    found = nodes()
    return f"{len(found)} node{'s' * (len(found) != 1)} of {'; '.join(map(amounts, found))}"


def amounts(resources: dict[str, float]) -> str:
    """Return resources in words: `2 CPU, 1 GPU, 16 GB`."""
    memory = [f"{resources['memory'] / GB:.0f} GB"] if "memory" in resources else []
    return ", ".join([*(f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU")), *memory])


def place_of(artifacts: Artifacts, folder: Path) -> Place:
    """Return where the workers find the store, and in it the checkpoints of the artifact that is made in `folder`."""
    checkpoints = artifacts.store().address_of(checkpoints_of(folder))
    return Place(artifacts.everywhere(), checkpoints, fingerprint_in(folder.parent.name))


class WholeFile(io.BytesIO):
    """A small file that takes the place of what is at its path when it is closed, as a whole."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        super().__init__()

    def close(self) -> None:
        """Put what was written at the path, so that whoever opens it from now on reads all of it."""
        if self.closed:
            return
        content, draft = self.getvalue(), self._path.with_name(f"{self._path.name}.writing")
        super().close()
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)


class Folder(LocalFileSystem):
    """A folder whose list of checkpoints, which Ray keeps, is never seen half written, as on object storage.

    After a crash that came while it was written, no training could go on from them.
    """

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **settings: Any) -> Any:
        if mode == "wb" and Path(path).name == name_of_the_checkpoint_list():
            return WholeFile(path)
        return super()._open(path, mode, block_size, **settings)


def files_at(place: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return the file system of a folder or an address, and the path that it knows it by."""
    files, path = Folder(), place
    if "://" in place:
        files, path = fsspec.core.url_to_fs(place, use_listings_cache=False)
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(files)), path


def fit(training: RayTraining, board: Any, need: dict[str, float]) -> ray.train.Checkpoint | None:
    """Start the workers; return the adapter, where it lies in the store, or None if they ended before it was there."""
    files, path = files_at(training.place.checkpoints)
    result = TorchTrainer(
        work,
        train_loop_config={"training": training, "board": board},
        torch_config=TorchConfig(backend="nccl" if "GPU" in need else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=training.workers, use_gpu="GPU" in need, resources_per_worker=need
        ),
        run_config=ray.train.RunConfig(
            name=training.place.fingerprint,
            storage_path=path,
            storage_filesystem=files,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=training.recipe.training.save_total_limit),
            # Whether it is of any use to start once more, the board decides.
            failure_config=ray.train.FailureConfig(max_failures=-1),
            worker_runtime_env={"env_vars": {**ENVIRONMENT, "OMP_NUM_THREADS": str(int(need["CPU"]))}},
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    ).fit()
    return result.checkpoint if (result.metrics or {}).get(FINISHED) else None


def follow(
    context: dg.AssetExecutionContext, board: Any, run: ray.ObjectRef, need: dict[str, float], workers: int
) -> ray.train.Checkpoint | BatchSize:
    """Return the adapter, once the workers have ended well; the size to go on with where memory ran out.

    Raises:
        FinetuningError: a worker said what was wrong.
    """
    told = time.monotonic()
    try:
        while True:
            done, _ = ray.wait([run], timeout=LISTEN_EVERY)
            silent = hear(context, board)
            if isinstance(silent, BatchSize):
                return silent
            if done:
                return adapter_of(run)
            if min(silent, time.monotonic() - told) > WAITING_EVERY:
                told = time.monotonic()
                context.log.warning(f"waiting for the Ray cluster to start {asked(need, workers)}: it has {present()}")
    except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
        end(context, board, run)
        raise


def hear(context: dg.AssetExecutionContext, board: Any) -> float | BatchSize:
    """Log what the workers said; return for how many seconds nobody was at work, or the size to go on with.

    Raises:
        FinetuningError: a worker said what was wrong.
    """
    news: News = ray.get(board.news.remote())
    for level, line in news.lines:
        getattr(context.log, level)(line)
    failure = news.failure
    if failure and failure.smaller:
        return failure.smaller
    if failure:
        raise of_kind(failure.kind, failure.text)
    return news.silent


def adapter_of(run: ray.ObjectRef) -> ray.train.Checkpoint:
    """Return the adapter of a run that has ended, in the artifact store."""
    try:
        adapter = ray.get(run)
    except RayError as error:
        raise CrashError(
            f"Training on the Ray cluster failed: {str(error).strip()[-1000:]}\nAll that was said is {LOGS}. Each node "
            "needs this project with its extra, '.[cluster]'."
        ) from None
    if adapter is None:
        raise InfrastructureError("Training was asked to end. The next run goes on from the last checkpoint.")
    return adapter


def end(context: dg.AssetExecutionContext, board: Any, run: ray.ObjectRef) -> None:
    """Tell the workers to end, and wait while they save what they did, if they are at work and have done anything."""
    training: Any = ray.get(board.is_training.remote())
    board.end.remote()
    deadline, done, silent = time.monotonic() + SECONDS_TO_END, [], 0.0
    while training and not done and time.monotonic() < deadline and isinstance(silent, float) and silent < SILENT:
        done, _ = ray.wait([run], timeout=LISTEN_EVERY)
        silent = hear(context, board)
