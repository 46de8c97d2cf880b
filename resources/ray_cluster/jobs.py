"""The jobs of a Ray cluster that are steps: what each asks for and is told, and those of runs that have ended.

>>> asked_for(recipe.resources, trains=False, uses_gpu=True, gpus=True)
Amounts(cpus=4, gpus=1, memory=32000000000)
"""

import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, cast

import dagster as dg
from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util.state import list_nodes

from finetuning.errors import InfrastructureError
from finetuning.recipe.resources import ResourcesSpec
from finetuning.settings import Kind, names_of, text_of, variable
from finetuning.training.job import SECONDS_TO_END
from resources.dagster_internals import PARTITION_NAME_TAG

GB = 1e9
SECONDS_TO_STOP = SECONDS_TO_END + 15
# Of the driver's environment, what every step has to be told, and what nobody has to hide: Ray's dashboard shows it.
# Secrets, and folders that may be others on each node, are in the nodes' own environment.
TOLD = tuple(variable(name) for name in names_of(Kind.RUN))
PATHS = tuple(variable(name) for name in names_of(Kind.RUN, Kind.FOLDERS))


class Amounts(NamedTuple):
    """What a step asks the cluster for, or a node has; memory in bytes."""

    cpus: int
    gpus: int
    memory: int

    def __str__(self) -> str:
        memory = f", {self.memory / GB:.1f} GB of memory" if self.memory else ""
        return f"{self.cpus} CPU, {self.gpus} GPU{memory}"


class Node(NamedTuple):
    """A node of the cluster: its address, what it has when nobody uses it, and whether others like it may be added."""

    address: str
    has: Amounts
    grows: bool


def asked_for(resources: ResourcesSpec, trains: bool, uses_gpu: bool, gpus: bool) -> Amounts:
    """What a step asks a cluster for that has GPUs, or has none.

    The processes that train together do so in one step, on one node; unless they are Ray's own workers, which ask for
    themselves: the step that waits for them holds nothing, so that steps cannot keep each other's workers waiting.
    """
    if trains and text_of("launcher") == "ray":
        return Amounts(0, 0, 0)
    processes = text_of("processes")  # where it is no number, the step says so
    workers = resources.workers or (int(processes) if processes.isdecimal() else 1) if trains else 1
    each = (int(gpus) if resources.gpus is None else resources.gpus) if uses_gpu else 0
    return Amounts(workers * resources.cpus, workers * each, int(workers * (resources.memory_gb or 0) * GB))


def connected() -> JobSubmissionClient:
    """The cluster's job API.

    Raises:
        InfrastructureError: none answers, or not to this token.
    """
    address = os.environ.get("RAY_ADDRESS") or "auto"
    try:
        return JobSubmissionClient(address)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise InfrastructureError(
            f"RAY_ADDRESS: {address}: no Ray cluster answers there ({' '.join(str(error).split())}). Start one with "
            "`ray start --head`, or set RAY_ADDRESS to the address of its dashboard, such as http://10.0.0.2:8265."
        ) from None


def nodes_of(client: JobSubmissionClient) -> list[Node]:
    """The cluster's nodes that are up."""
    # Those that died count as missing from the answer.
    found = list_nodes(
        address=client.get_address(), filters=[("state", "=", "ALIVE")], limit=10_000, raise_on_missing_output=False
    )
    return [
        Node(
            node.node_ip,
            Amounts(*(int(node.resources_total.get(name, 0)) for name in ("CPU", "GPU", "memory"))),
            "ray.io/node-group" in node.labels,  # as KubeRay and `ray up` mark theirs
        )
        for node in cast(list[Any], found)
    ]


def stop_lost_jobs(client: JobSubmissionClient, instance: dg.DagsterInstance, partition: str | None) -> None:
    """Nothing; what is at work still for runs that have ended was told to end, and has if it is of this partition.

    Jobs outlive a run that was killed.
    """
    ending = []
    for job in client.list_jobs():
        run_id = (job.metadata or {}).get("dagster/run-id")
        run = instance.get_run_by_id(run_id) if run_id and not job.status.is_terminal() else None
        if run and run.is_finished:
            client.stop_job(cast(str, job.submission_id))
            if job.status == JobStatus.RUNNING and run.tags.get(PARTITION_NAME_TAG) == partition:
                ending.append(job.submission_id)
    latest = time.monotonic() + SECONDS_TO_STOP + 5
    while ending and time.monotonic() < latest:
        time.sleep(1)
        ending = [job for job in ending if not client.get_job_status(job).is_terminal()]


def job_environment(threads: int) -> dict[str, str]:
    """The variables of a step's job, which are no secrets; `dagster` is the one beside this Python."""
    return {
        **{name: from_anywhere(name, value) for name in TOLD if (value := os.environ.get(name))},
        "PATH": f"{Path(sys.executable).parent}:${{PATH}}",
        # Of each process. Ray itself would let each of several that train together have the cores of all.
        "OMP_NUM_THREADS": str(threads),
        # A training that is told to end writes a checkpoint first.
        "RAY_JOB_STOP_WAIT_TIME_S": str(SECONDS_TO_STOP),
    }


def from_anywhere(name: str, value: str) -> str:
    """The variable's value, whose folders are not relative to the one that this process is in."""
    if name not in PATHS or "://" in value:
        return value
    return ":".join(str(Path(folder).absolute()) for folder in value.split(":"))
