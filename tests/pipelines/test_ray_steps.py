"""Steps on a Ray cluster of two nodes: what each asks for, where it runs, and what if it waits or dies."""

import dagster as dg
import pytest
from ray.job_submission import JobSubmissionClient

from finetuning.errors import INFRASTRUCTURE, InfrastructureError
from finetuning.recipe.resources import ResourcesSpec
from pipelines.definitions import assets
from pipelines.outcomes import outcome_of
from pipelines.ray_executor import TRAINS
from resources.ray_cluster.jobs import Amounts, asked_for, connected, job_environment
from tests.pipelines import ray_steps
from tests.pipelines.command import World
from tests.pipelines.ray_jobs import (
    MATERIALIZE,
    asked_of,
    instance_of,
    jobs_of,
    started,
    toy_instance,
    two_nodes,
)
from tests.resources.s3 import BUCKET, SECRET
from tests.waiting import PATIENCE

pytestmark = pytest.mark.long("a Ray cluster")

PARTITIONS = ("one", "two")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with two_nodes(tmp_path_factory.mktemp("nodes")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    return JobSubmissionClient()


@pytest.fixture(scope="module")
def world(tmp_path_factory, cluster, recipe):
    root = tmp_path_factory.mktemp("world")
    where = {"FINETUNING_EXECUTOR": "ray", "FINETUNING_ARTIFACTS": f"s3://{BUCKET}/artifacts"}
    world = World(root, {**where, "FINETUNING_ARTIFACTS_CACHE": str(root / "driver")})
    # A recipe that asks for something is made from the same as one that does not.
    world.write_recipe("one", recipe)
    world.write_recipe("two", recipe | {"resources": {"memory_gb": 0.5}})
    world.write_recipe("large", recipe | {"resources": {"cpus": 4}})
    return world


def test_two_partitions_are_at_work_on_both_nodes_at_once_and_ask_for_what_their_recipes_say(world, client):
    steps = ("raw_dataset", "chat_dataset")
    began = started(world, *((*MATERIALIZE, ",".join(steps), "--partition", name) for name in PARTITIONS))
    for process in began:
        said = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0, said[-4000:]
    with instance_of(world) as instance:
        runs = {run.tags["dagster/partition"]: run for run in instance.get_runs()}
        one, two = ({s.step_key: s for s in instance.get_run_step_stats(runs[name].run_id)} for name in PARTITIONS)
    jobs = {name: jobs_of(client, runs[name]) for name in PARTITIONS}
    assert len({jobs[name]["raw_dataset"].driver_node_id for name in PARTITIONS}) == 2
    first, second = one["raw_dataset"], two["raw_dataset"]
    assert max(first.start_time, second.start_time) < min(one["chat_dataset"].end_time, two["chat_dataset"].end_time)
    for name, memory in (("one", 0), ("two", 500_000_000)):
        assert {asked_of(jobs[name][step]) for step in steps} == {Amounts(1, 0, memory)}
    assert SECRET not in str(client.list_jobs())


def test_a_recipe_that_asks_for_more_than_any_node_has_is_refused_before_anything_runs(world, client):
    before = len(client.list_jobs())
    refused = world.python(*MATERIALIZE, "raw_dataset", "--partition", "large")
    text = "large: raw_dataset asks for 4 CPU, 0 GPU, and no node of the Ray cluster"
    assert refused.returncode == 1 and text in refused.stdout and "its nodes have 1 CPU, 0 GPU" in refused.stdout
    with instance_of(world) as instance:
        (run,) = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": "large"}))
        assert outcome_of(instance, run).kind == INFRASTRUCTURE
    assert len(client.list_jobs()) == before


def test_a_step_that_dies_is_started_again_and_one_that_waits_is_not_given_up(cluster, client, tmp_path, monkeypatch):
    with toy_instance(tmp_path, monkeypatch) as instance:
        done = dg.execute_job(dg.reconstructable(ray_steps.crowded), instance, raise_on_error=False)
        said = "\n".join(entry.message for entry in instance.all_logs(done.run_id))
    assert done.success, said
    assert sorted(ray_steps.lines(tmp_path)) == ["begins", "dies_once", "dies_once", "sleeps", "sleeps", "sleeps"]
    assert "dies_once failed health check" in said and "It is started again (1 of 3)." in said
    assert "waits in the Ray cluster's queue for 1 CPU, 0 GPU" in said


@pytest.mark.parametrize(
    ("resources", "trains", "uses_gpu", "gpus", "asked"),
    [
        ({}, False, False, True, (1, 0, 0)),
        ({}, False, True, True, (1, 1, 0)),
        ({}, False, True, False, (1, 0, 0)),
        ({"gpus": 0, "cpus": 3}, False, True, True, (3, 0, 0)),
        ({"gpus": 1, "memory_gb": 1.5, "workers": 4}, False, True, False, (1, 1, 1_500_000_000)),
        ({"gpus": 1, "memory_gb": 1.5, "workers": 4}, True, True, True, (4, 4, 6_000_000_000)),
        ({}, True, True, True, (2, 2, 0)),
    ],
)
def test_a_step_asks_for_what_its_recipe_says(resources, trains, uses_gpu, gpus, asked, monkeypatch):
    monkeypatch.setenv("FINETUNING_PROCESSES", "2")
    assert asked_for(ResourcesSpec(**resources), trains, uses_gpu, gpus) == asked


def test_every_asset_that_trains_asks_for_the_processes_that_train():
    made = [made for made in assets if isinstance(made, dg.AssetsDefinition)]
    assert {one.key.to_user_string() for one in made if "launcher" in one.required_resource_keys} == set(TRAINS)


def test_a_step_that_waits_for_rays_own_workers_leaves_everything_to_them(monkeypatch):
    monkeypatch.setenv("FINETUNING_LAUNCHER", "ray")
    resources = ResourcesSpec(cpus=2, gpus=1, memory_gb=8, workers=4)
    assert asked_for(resources, True, True, True) == (0, 0, 0)
    assert asked_for(resources, False, True, True) == (2, 1, 8_000_000_000)


def test_a_job_is_told_where_things_are_from_anywhere_and_no_secret(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DAGSTER_PG_PASSWORD", "FINETUNING_WEBHOOK"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("FINETUNING_RECIPES", f"recipes:{tmp_path}/more")
    monkeypatch.setenv("FINETUNING_ARTIFACTS", "s3://bucket/name")
    told = job_environment(threads=3)
    assert SECRET not in told.values() and told["OMP_NUM_THREADS"] == "3"
    assert told["FINETUNING_RECIPES"] == f"{tmp_path}/recipes:{tmp_path}/more"
    assert told["FINETUNING_ARTIFACTS"] == "s3://bucket/name"


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "no address"])
def test_an_address_without_a_cluster_is_told(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InfrastructureError, match=f"RAY_ADDRESS: {address}: no Ray cluster answers there"):
        connected()
