"""What is said before anything runs on a cluster that could not work."""

import subprocess
import sys

import dagster as dg
import pytest

from finetuning.errors import InfrastructureError
from resources.ray_cluster.reach import require_reachable, steps_are_ray_jobs

SHOWN = """
import pipelines.definitions as code
job = code.defs.resolve_job_def("main_line")
pools = {job.graph.node_named(name).definition.pool for name in ("lora_adapter", "evaluation_report", "merged_model")}
print(job.executor_def.name, *pools, code.defs.resources["gpu"].locks)
"""


@pytest.fixture
def instance(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def test_the_executor_is_one_of_two(monkeypatch):
    for value, expected in (("", False), ("local", False), ("ray", True)):
        monkeypatch.setenv("FINETUNING_EXECUTOR", value)
        assert steps_are_ray_jobs() is expected
    monkeypatch.setenv("FINETUNING_EXECUTOR", "Ray")
    with pytest.raises(InfrastructureError, match="FINETUNING_EXECUTOR: 'Ray' is neither local nor ray"):
        steps_are_ray_jobs()


def test_what_nodes_elsewhere_do_not_reach_is_told_all_at_once(instance, monkeypatch):
    for name in ("FINETUNING_HUB", "FINETUNING_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FINETUNING_SOURCE_HUB", "local")
    with pytest.raises(InfrastructureError) as caught:
        require_reachable(instance, ["127.0.0.2", "203.0.113.7"])
    text = str(caught.value)
    assert "other machines (203.0.113.7)" in text
    assert (
        "SQLite" in text
        and "FINETUNING_HUB: local" in text
        and "FINETUNING_SOURCE_HUB: local" in text
        and "FINETUNING_ARTIFACTS: not set" in text
    )
    monkeypatch.setenv("FINETUNING_HUB", "https://hub.example.org")
    monkeypatch.delenv("FINETUNING_SOURCE_HUB")
    monkeypatch.setenv("FINETUNING_ARTIFACTS", "/shared/artifacts")
    with pytest.raises(InfrastructureError) as caught:
        require_reachable(instance, ["203.0.113.7"])
    assert "FINETUNING" not in str(caught.value).split("\n", 1)[1]


def test_nodes_of_this_machine_reach_everything(instance):
    require_reachable(instance, ["127.0.0.2", "127.0.0.3"])


@pytest.mark.parametrize(
    ("executor", "shown"), [("ray", "ray None None"), ("local", "multi_or_in_process_executor gpu /")]
)
def test_on_a_cluster_neither_pool_nor_lock_holds_a_training_back(executor, shown, monkeypatch, tmp_path):
    monkeypatch.setenv("FINETUNING_EXECUTOR", executor)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    found = subprocess.run([sys.executable, "-c", SHOWN], capture_output=True, text=True)
    assert found.stdout.startswith(shown), found.stderr
