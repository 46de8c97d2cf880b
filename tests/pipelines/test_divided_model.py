"""A recipe whose base model is divided among two processes, through the public command."""

import pytest

from assets import lora_adapter
from resources.artifacts import Artifacts
from tests.pipelines.command import World

pytestmark = pytest.mark.long("two processes that divide a model")

LINE = "raw_dataset,chat_dataset,quantized_base_model,lora_adapter"


def test_a_divided_base_model_is_trained_and_the_recipe_without_it_has_the_same_adapter(tmp_path, recipe):
    world = World(tmp_path)
    world.write_recipe("tiny", recipe | {"resources": {"workers": 2, "strategy": "fsdp"}})
    run = world.materialize_warm("tiny", LINE)
    assert run.returncode == 0, run.stdout[-4000:]
    assert "fsdp: " in run.stdout and "MiB of weights in each process" in run.stdout
    store = Artifacts(root=str(world.root / "artifacts"))
    shown = lora_adapter.metadata_of(store.current("lora_adapter", "tiny"))
    assert shown["strategy"] == "fsdp" and shown["processes"] == 2
    assert 0 < shown["weights_held_mb"] < shown["weights_mb"]
    before = world.artifacts("tiny")
    world.write_recipe("tiny", recipe | {"resources": {"workers": 2}})
    again = world.materialize_warm("tiny", LINE)
    assert again.returncode == 0 and world.artifacts("tiny") == before
    assert "dividing the base model" not in again.stdout
