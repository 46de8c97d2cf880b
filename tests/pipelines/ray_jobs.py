"""What the tests of steps on a Ray cluster share: two nodes beside an S3 server, and what Ray knows of a run's jobs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from ray.job_submission import JobSubmissionClient
from ray.util.state import list_actors

from resources.ray_cluster.jobs import Amounts
from tests.pipelines.command import ROOT, World
from tests.ray_cluster import Cluster, ray_cluster
from tests.resources.s3 import s3_server

MATERIALIZE = ("-m", "dagster", "asset", "materialize", "-m", "pipelines.definitions", "--select")


@contextmanager
def two_nodes(folder: Path, **head: str) -> Iterator[Cluster]:
    """Two nodes of one core, each with a cache of its own, and an S3 server."""
    caches = [{"FINETUNING_ARTIFACTS_CACHE": str(folder / name)} for name in ("first", "second")]
    with s3_server() as server:
        first, second = ({**server.environment, **cache, "HF_HOME": str(folder / "hub")} for cache in caches)
        with ray_cluster(environments=(first | head, second), dashboard=True) as found:
            os.environ["RAY_ADDRESS"] = f"http://127.0.0.1:{found.dashboard}"
            yield found


def started(world: World, *commands: tuple[str, ...]) -> list[subprocess.Popen[str]]:
    """Python processes at once, on an instance that is there already: two that make one get in each other's way."""
    with instance_of(world) as instance:
        instance.get_runs()
    return [start(world, *command) for command in commands]


@contextmanager
def instance_of(world: World) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(world.root / "dagster")) as instance:
        yield instance


@contextmanager
def toy_instance(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance for the jobs of `ray_steps`, whose lines are in the folder."""
    monkeypatch.setenv("FINETUNING_RECIPES", str(folder))
    with instance_of(World(folder)) as instance:
        yield instance


def jobs_of(client: JobSubmissionClient, run: dg.DagsterRun) -> dict:
    """The Ray jobs of a run, by their steps, the last one of each."""
    mine = [job for job in client.list_jobs() if job.metadata["dagster/run-id"] == run.run_id]
    return {job.metadata["dagster/op"]: job for job in sorted(mine, key=lambda job: job.start_time)}


def asked_of(job) -> Amounts:
    """What Ray was asked for, by its table of actors: each job is one."""
    (actor,) = list_actors(filters=[("name", "=", f"_ray_internal_job_actor_{job.submission_id}")], detail=True)
    return Amounts(*(int(actor.required_resources.get(name, 0)) for name in ("CPU", "GPU", "memory")))


def start(world: World, *arguments: str) -> subprocess.Popen[str]:
    """A Python process that runs in the checkout."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=world.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
