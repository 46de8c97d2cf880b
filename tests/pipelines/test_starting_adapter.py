"""A recipe that goes on from another one's adapter, through the public command."""

import json

import pytest
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file

from tests.pipelines.command import World
from tests.pipelines.main_line import changed

pytestmark = pytest.mark.long("trainings that go on from each other")


@pytest.fixture(scope="module")
def world(tmp_path_factory, recipe):
    world = World(tmp_path_factory.mktemp("world"))
    world.write_recipe("first", changed(recipe, "training", learning_rate=1.0e-2))
    second = changed(changed(recipe, "hub", repo="second"), "training", learning_rate=1.0e-2)
    world.write_recipe("second", second | {"lora": {"from": "first"}})
    for name in ("first", "second"):
        run = world.materialize_warm(name)
        assert run.returncode == 0, run.stdout[-4000:]
    return world


def test_the_adapter_of_a_partition_is_gone_on_from_and_its_lineage_is_told(world):
    first, second = (world.artifacts(name)["lora_adapter"] for name in ("first", "second"))
    start = second["resolved"]["lora_from"]
    assert (start["kind"], start["source"], start["revision"]) == ("partition", "first", first["fingerprint"])
    assert start["weights"] == first["files"]["adapter_model.safetensors"] and start["lora"]["r"] == 4
    card = (world.folder("published_repo", "second") / "README.md").read_text()
    assert f"the adapter of the recipe first at `{first['fingerprint']}`" in card and "r 4, alpha 8" in card
    report = (world.folder("evaluation_report", "second") / "report.md").read_text()
    assert f"It goes on from the adapter of the recipe first at `{first['fingerprint']}`" in report
    published = (world.folder("published_repo", "second") / "recipe.yaml").read_text()
    assert "from: first" in published and "r: 4" in published


def test_the_published_adapter_loads_by_itself(world):
    folder = world.folder("lora_adapter", "second")
    weights, before = (
        load_file(world.folder("lora_adapter", name) / "adapter_model.safetensors") for name in ("second", "first")
    )
    assert weights.keys() == before.keys() and json.loads((folder / "adapter_config.json").read_text())["r"] == 4
    assert AutoPeftModelForCausalLM.from_pretrained(folder).peft_config["default"].r == 4


def test_a_published_adapter_is_gone_on_from_on_the_base_model_that_it_names(world, recipe):
    published = world.artifacts("first")["published_repo"]["summary"]
    repo_id, base = published["repo_id"], published["base"]
    third = changed(changed(recipe, "hub", repo="third"), "training", learning_rate=1.0e-2)
    world.write_recipe("third", third | {"lora": {"from": repo_id}})
    refused = world.materialize_warm("third")
    assert refused.returncode == 1
    assert f"the adapter is one of {base['repo_id']}" in refused.stdout
    assert f"Write base_model: {{repo: {base['repo_id']}}}" in refused.stdout
    world.write_recipe("third", third | {"lora": {"from": repo_id}, "base_model": {"repo": base["repo_id"]}})
    run = world.materialize_warm("third")
    assert run.returncode == 0, run.stdout[-4000:]
    found = world.artifacts("third")
    start, first = found["lora_adapter"]["resolved"]["lora_from"], world.artifacts("first")["lora_adapter"]
    assert (start["kind"], start["source"], start["revision"]) == ("repo", repo_id, published["commit"])
    assert start["weights"] == first["files"]["adapter_model.safetensors"] and start["lora"]["r"] == 4
    assert found["lora_adapter"]["files"]["adapter_model.safetensors"] != start["weights"]
    assert found["published_repo"]["summary"]["base"] == base | {"on_hub": True}
    folder = world.folder("published_repo", "third")
    card = (folder / "README.md").read_text()
    assert f"the adapter {repo_id} at `{published['commit']}`" in card and "r 4, alpha 8" in card
    assert f"from: {repo_id}@{published['commit']}" in (folder / "recipe.yaml").read_text()


def test_another_adapter_there_is_another_fingerprint_here(world, recipe):
    before = world.artifacts("second")["lora_adapter"]["fingerprint"]
    world.write_recipe("first", changed(changed(recipe, "training", learning_rate=1.0e-2), "lora", lora_dropout=0.0))
    assert world.materialize_warm("first", select="lora_adapter").returncode == 0
    run = world.materialize_warm("second", select="lora_adapter")
    assert run.returncode == 0, run.stdout[-4000:]
    assert world.artifacts("second")["lora_adapter"]["fingerprint"] != before


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("frist", r"lora.from: frist is no recipe, no folder and no repo"),
        ("wrong", "lora.from: wrong is this recipe itself"),
        ("./nowhere", "lora.from: the folder ./nowhere does not exist"),
        ("nobody/adapter", "lora.from: "),
    ],
)
def test_what_is_not_there_is_one_message(world, recipe, start, told):
    world.write_recipe("wrong", recipe | {"lora": {"from": start}})
    run = world.materialize_warm("wrong", select="raw_dataset,chat_dataset,quantized_base_model,lora_adapter")
    assert run.returncode == 1 and told in run.stdout
