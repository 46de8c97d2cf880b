"""A backfill over a Ray cluster of which a node dies, a training cancelled there, and what the cluster costs."""

import os
import signal
import time
from collections import Counter

import dagster as dg
import psutil
import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from finetuning.errors import INFRASTRUCTURE
from pipelines.outcomes import outcome_of
from tests.pipelines import ray_steps
from tests.pipelines.command import World, basic_instance, family_of, kill
from tests.pipelines.ray_jobs import (
    MATERIALIZE,
    instance_of,
    jobs_of,
    start,
    started,
    toy_instance,
    two_nodes,
)
from tests.resources.s3 import BUCKET
from tests.waiting import PATIENCE, until

MANY = int(os.environ.get("FINETUNING_RAY_PARTITIONS", "0"))
pytestmark = [
    pytest.mark.long("a Ray cluster"),
    pytest.mark.skipif(not MANY, reason="FINETUNING_RAY_PARTITIONS=6 asks for it; it takes minutes"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with two_nodes(tmp_path_factory.mktemp("nodes")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    return JobSubmissionClient()


def world_of(root, **settings):
    """A world whose steps run on the cluster."""
    where = {"FINETUNING_EXECUTOR": "ray", "FINETUNING_ARTIFACTS": f"s3://{BUCKET}/{root.name}"}
    return World(root, {**where, "FINETUNING_ARTIFACTS_CACHE": str(root / "driver")}, basic_instance() | settings)


def test_a_step_that_ray_takes_out_of_its_queue_is_put_back(tmp_path, monkeypatch):
    with two_nodes(tmp_path, RAY_JOB_START_TIMEOUT_SECONDS="15"), toy_instance(tmp_path, monkeypatch) as instance:
        done = dg.execute_job(dg.reconstructable(ray_steps.queue), instance, raise_on_error=False)
        jobs = JobSubmissionClient().list_jobs()
    assert done.success and ray_steps.lines(tmp_path) == ["sleeps_long"] * 3
    assert [job for job in jobs if job.error_type == "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"]


def test_a_backfill_fills_the_cluster_and_loses_nothing_when_a_node_dies(tmp_path, cluster, client, recipe):
    concurrency = basic_instance()["concurrency"] | {"runs": {"max_concurrent_runs": MANY}}
    world = world_of(tmp_path, concurrency=concurrency)
    names = [f"many-{number}" for number in range(MANY)]
    for seed, name in enumerate(names):  # each has data of its own, so that nothing is reused
        own = {**recipe["dataset"], "seed": seed}
        world.write_recipe(name, recipe | {"dataset": own, "hub": {"repo": name, "license": "mit"}})
    samples, killed, began = [], [], time.monotonic()
    with instance_of(world) as instance, world.running("-m", "dagster._daemon", "run", "-m", "pipelines.definitions"):
        asked = ["job", "backfill", "-m", "pipelines.definitions", "-j", "main_line", "--noprompt"]
        asked += ["--partitions", ",".join(names)]
        done = world.python("-m", "dagster", *asked)
        assert done.returncode == 0, done.stdout

        def ended():
            jobs = client.list_jobs()
            samples.append(Counter(job.driver_node_id for job in jobs if job.status == JobStatus.RUNNING))
            trainings = [job for job in jobs if job.metadata["dagster/op"] == "lora_adapter"]
            if not killed and any(is_on_second(cluster, job) for job in trainings if job.status == JobStatus.RUNNING):
                killed.extend(job for job in jobs if job.status == JobStatus.RUNNING and is_on_second(cluster, job))
                cluster.nodes[1].kill()
                cluster.join({"FINETUNING_ARTIFACTS_CACHE": str(tmp_path / "third")})
            runs = instance.get_runs()
            return len(runs) >= MANY and all(run.is_finished for run in runs) and runs

        runs = until(ended, seconds=PATIENCE + 120 * MANY, pause=1)
        seconds = time.monotonic() - began
        assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * MANY, (
            tmp_path / "running.log"
        ).read_text()
        attempts = {
            (run.tags["dagster/partition"], stats.step_key): stats.attempts
            for run in runs
            for stats in instance.get_run_step_stats(run.run_id)
        }
    repeated = {key for key, count in attempts.items() if count > 1}
    assert killed and repeated <= {(partition_of(runs, job), job.metadata["dagster/op"]) for job in killed}
    assert max(count for sample in samples for count in sample.values()) == 1, "a node of one core had two steps"
    full = sum(len(sample) == 2 for sample in samples) / len(samples)
    print(f"{MANY} partitions in {seconds:.0f} s; started again: {repeated}; both nodes at work in {full:.0%} of looks")


def is_on_second(cluster, job):
    """Whether the job is on the second node, whose address is 127.0.0.3."""
    return "127.0.0.3:" in (job.driver_agent_http_address or "")


def partition_of(runs, job):
    return next(run.tags["dagster/partition"] for run in runs if run.run_id == job.metadata["dagster/run-id"])


def test_a_training_that_is_cancelled_goes_on_from_its_last_checkpoint(tmp_path, cluster, client, recipe):
    cluster.nodes[-1].kill()  # that one died is in Ray's records from here on
    cluster.join({"FINETUNING_ARTIFACTS_CACHE": str(tmp_path / "another")})
    world = world_of(tmp_path)
    world.environment["FINETUNING_ARTIFACTS"] = str(tmp_path / "shared")
    training = {**recipe["training"], "max_steps": 100_000, "save_steps": 100_000}
    world.write_recipe("long", recipe | {"training": training})
    steps = "raw_dataset,chat_dataset,quantized_base_model,lora_adapter"
    for text in ("lora_adapter: step", "going on from the checkpoint of step"):
        driver = start(world, *MATERIALIZE, steps, "--partition", "long")
        with instance_of(world) as instance:
            until(lambda text=text: said(instance, text))
            driver.send_signal(signal.SIGINT)
            driver.communicate(timeout=PATIENCE)
            (run, *_) = instance.get_runs()
        until(lambda run=run: jobs_of(client, run)["lora_adapter"].status == JobStatus.STOPPED)


def test_steps_that_wait_for_rays_own_workers_leave_them_the_room(tmp_path, cluster, client, recipe):
    world, names = world_of(tmp_path), ("left", "right")
    for name in names:
        world.write_recipe(name, recipe | {"resources": {"workers": 2}})
    world.environment["FINETUNING_LAUNCHER"] = "ray"
    steps = "raw_dataset,chat_dataset,quantized_base_model,lora_adapter"
    began = started(world, *((*MATERIALIZE, steps, "--partition", name) for name in names))
    for process in began:
        text = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0, text[-4000:]
        assert "lora_adapter - handed to the Ray cluster; asks for 0 CPU, 0 GPU" in text


def said(instance, text):
    """Whether the newest run has a line with that text."""
    runs = instance.get_runs(limit=1)
    return runs and any(text in f"{entry.step_key}: {entry.message}" for entry in instance.all_logs(runs[0].run_id))


def test_jobs_of_a_run_that_was_killed_end_and_a_step_that_dies_for_good_is_infrastructure(
    cluster, client, tmp_path, monkeypatch
):
    with toy_instance(tmp_path, monkeypatch) as instance:
        world = World(tmp_path, {"FINETUNING_RECIPES": str(tmp_path)})
        driver = start(world, "-m", "dagster", "job", "execute", "-m", "tests.pipelines.ray_steps", "-j", "endless")
        until(lambda: (tmp_path / "lines").exists())
        kill(family_of(psutil.Process(driver.pid)))
        config = {"execution": {"config": {"retries": {"disabled": {}}}}}
        failed = dg.execute_job(dg.reconstructable(ray_steps.hopeless), instance, config, raise_on_error=False)
        outcome = outcome_of(instance, instance.get_run_by_id(failed.run_id))
        (lost,) = [run for run in instance.get_runs() if run.job_name == "endless"]
        assert lost.status == dg.DagsterRunStatus.FAILURE
    assert outcome.kind == INFRASTRUCTURE and "its Ray job dies-" in outcome.reasons[0]
    until(lambda: jobs_of(client, lost)["goes_on"].status == JobStatus.STOPPED)


def test_what_the_cluster_costs_a_run_is_told(tmp_path, cluster, recipe):
    world, seconds = world_of(tmp_path), {}
    for executor in ("local", "ray", "local", "ray"):
        name = f"cost-{len(seconds)}"
        world.write_recipe(name, recipe | {"dataset": {**recipe["dataset"], "seed": 100 + len(seconds)}})
        began = time.monotonic()
        steps = "raw_dataset,chat_dataset,quantized_base_model,lora_adapter,evaluation_report"
        done = world.python(*MATERIALIZE, steps, "--partition", name, FINETUNING_EXECUTOR=executor)
        assert done.returncode == 0, done.stdout[-4000:]
        seconds[name, executor] = round(time.monotonic() - began, 1)
    print(f"five steps, in seconds: {seconds}")
