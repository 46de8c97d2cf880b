"""The main line whose training is left to a Ray cluster, through its public command (with FINETUNING_RAY=1)."""

import os

import pytest

from tests.pipelines.command import World, shipped_instance
from tests.ray_cluster import ray_cluster

pytestmark = [
    pytest.mark.long("a Ray cluster"),
    pytest.mark.skipif(not os.environ.get("FINETUNING_RAY"), reason="takes minutes; set FINETUNING_RAY=1"),
]
LINE = "raw_dataset,chat_dataset,quantized_base_model,lora_adapter"


def test_a_cluster_trains_what_one_machine_takes_for_its_own(tmp_path, recipe):
    world = World(tmp_path, instance=shipped_instance(tmp_path))
    world.write_recipe("tiny", recipe | {"resources": {"workers": 2}})
    with ray_cluster() as cluster:
        first = world.materialize("tiny", LINE, FINETUNING_LAUNCHER="ray", **cluster.environment)
    assert first.returncode == 0, first.stdout[-4000:]
    summary = world.artifacts("tiny")["lora_adapter"]["summary"]
    assert (summary["processes"], summary["steps"], summary["passed_over"]) == (2, 2, {})
    assert "asking the Ray cluster for 2 workers of 1 CPU, 0 GPU" in first.stdout
    assert "memory: " in first.stdout and summary["predicted_memory_mb"]
    assert "RayTrainWorker" not in first.stdout and "RayTrainWorker" in world.compute_logs()
    again = world.materialize_warm("tiny", "lora_adapter")
    assert again.returncode == 0 and ": reused," in again.stdout, again.stdout[-4000:]
