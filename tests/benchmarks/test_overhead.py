"""What the measurement of the pipeline's own cost makes of times and of a recipe, and its script on a tiny model."""

import json

import pytest
from huggingface_hub import HfApi

from benchmarks import evaluation, overhead_script
from benchmarks.overhead import NAME, RECIPE, prepare, result, shortened
from finetuning.recipe.loading import load
from resources.hub_server.local import local_hub
from tests.tiny_models import save_tiny_model


def test_the_medians_of_the_rounds_are_compared():
    seconds = {"script": [100.0, 90.0, 110.0], "pipeline": [125.0, 124.0, 300.0], "nothing changed": [9.0, 8.0, 7.0]}
    assert result(seconds) == {
        "ratio_to_script": 1.25,
        "seconds_over_script": 25.0,
        "nothing_changed_seconds": 8.0,
        "script_seconds": 100.0,
        "pipeline_seconds": 125.0,
    }


def test_a_shortened_recipe_is_published_whatever_it_comes_to_and_a_whole_one_by_its_own_gate():
    whole, short = shortened(None, None), shortened(2, 4)
    assert whole["evaluation"]["gate"] == {"final-answer": {"min_gain": 0.3}}
    assert short["evaluation"]["gate"]["final-answer"]["min_gain"] == -1.0
    assert (short["training"]["max_steps"], short["evaluation"]["rows"]) == (2, 4)
    assert {key: whole[key] for key in ("dataset", "lora", "hub")} == {
        key: short[key] for key in ("dataset", "lora", "hub")
    }


def test_both_sides_begin_with_empty_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNING_ARTIFACTS", "/somewhere/else")
    environment = prepare(tmp_path, shortened(2, 4))
    for name in ("DAGSTER_HOME", "FINETUNING_RECIPES", "FINETUNING_ARTIFACTS", "FINETUNING_HUB_STATE", "HF_HOME"):
        assert environment[name].startswith(str(tmp_path)), json.dumps(environment)
    assert not (tmp_path / "artifacts").exists()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The shortened recipe with a tiny base model, in folders of its own."""
    recipe = shortened(2, 6)
    kept = {key: recipe["base_model"][key] for key in ("quantization", "attention")}
    model = save_tiny_model(RECIPE, tmp_path / "model")
    recipe["base_model"] = {"repo": str(model), "chat_template": "instruction", **kept}
    recipe["dataset"]["sources"][0]["rows"] = 60
    for name, value in prepare(tmp_path, recipe).items():
        monkeypatch.setenv(name, value)
    return load(NAME)


@pytest.mark.long("a script from rows to the hub")
def test_the_script_goes_all_the_way_to_the_hub(tiny, tmp_path):
    overhead_script.main(tiny.name)
    with local_hub(tmp_path / "script-hub") as hub:
        found = HfApi(endpoint=hub.endpoint, token=hub.token).list_repo_files(f"{hub.user}/{NAME}-adapter")
    assert {"adapter_model.safetensors", "report.json"} <= set(found)


@pytest.mark.long("answers in each way")
def test_both_models_answer_in_each_way_that_is_compared(tiny, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "RECIPE", tiny.name)
    evaluation.main(["--rows", "6", "--sequential-rows", "2", "--steps", "2"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])
