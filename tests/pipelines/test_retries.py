"""Which failures of a step are tried again: a network that is out, and nothing that the next try would meet as well."""

import pytest

from tests.pipelines.command import World

SHORT = {"FINETUNING_RETRY_SECONDS": "0.01"}


def recipe(source):
    return {
        "summary": "Fails",
        "base_model": {"repo": "some/model"},
        "dataset": {"sources": [{"format": "question-answer", "split": "train", **source}]},
        "hub": {"repo": "tiny", "license": "mit"},
    }


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_hub_that_is_out_is_asked_again_and_then_named(world):
    world.write_recipe("out", recipe({"hub": "some/data"}))
    out = {"FINETUNING_SOURCE_HUB": "http://127.0.0.1:9", "HF_TOKEN": "hf_x"}
    run = world.materialize("out", select="raw_dataset", **out, **SHORT)
    assert run.returncode == 1
    assert run.stdout.count("STEP_UP_FOR_RETRY") == 3
    assert "The hub http://127.0.0.1:9 cannot be reached" in run.stdout
    assert "FINETUNING_SOURCE_HUB names another address, such as a mirror's" in run.stdout
    told = world.results("out")
    assert told.returncode == 5 and "raw_dataset: out.yaml: " in told.stdout.replace(f"{world.root}/recipes/", "")


def test_a_delay_that_is_no_number_is_named(world):
    answer = world.python("-c", "import pipelines.definitions", FINETUNING_RETRY_SECONDS="soon")
    assert "FINETUNING_RETRY_SECONDS: 'soon' is not a number of seconds; write 30." in answer.stdout


def test_a_mistake_of_the_recipe_ends_the_run_at_once(world):
    world.write_recipe("wrong", recipe({"files": ["nowhere/*.jsonl"]}))
    run = world.materialize_warm("wrong", select="raw_dataset", **SHORT)
    assert run.returncode == 1 and "no file matches 'nowhere/*.jsonl'" in run.stdout
    assert "STEP_UP_FOR_RETRY" not in run.stdout
