"""A recipe that is rewarded for its own answers, through the public command, from another one's adapter."""

import json

import pytest

from pipelines.starts import starts
from tests.pipelines.command import World
from tests.pipelines.main_line import changed

pytestmark = pytest.mark.long("trainings that go on from each other")
REWARDED = {
    "method": "grpo",
    "reward": {"chrf": 1.0, "length": 0.1},
    "num_generations": 4,
    "max_completion_length": 8,
    "per_device_train_batch_size": 8,
    "max_steps": 8,
    "logging_steps": 1,
    "learning_rate": 1.0e-2,
    "train_sampling_strategy": "random",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory, recipe):
    world = World(tmp_path_factory.mktemp("world"))
    world.write_recipe("first", changed(recipe, "training", learning_rate=1.0e-2))
    second = changed(recipe, "hub", repo="second") | {"lora": {"from": "first"}, "training": REWARDED}
    world.write_recipe("second", second)
    return world


@pytest.fixture(scope="module")
def run(world):
    for name in ("first", "second"):
        run = world.materialize_warm(name)
        assert run.returncode == 0, run.stdout[-4000:]
    return run


def test_the_recipes_that_it_goes_on_from_are_known_in_their_order(world, recipe, monkeypatch):
    monkeypatch.setenv("FINETUNING_RECIPES", str(world.root / "recipes"))
    world.write_recipe("third", changed(recipe, "hub", repo="third") | {"lora": {"from": "second"}})
    world.write_recipe("wrong", {"lora": {"from": "first"}})
    assert starts("third") == ["first", "second"] and starts("second") == ["first"]
    assert starts("first") == starts("wrong") == starts("not there") == []


def test_the_report_says_what_the_reward_is_worth_beside_where_it_started(world, run):
    report = json.loads((world.folder("evaluation_report", "second") / "report.json").read_text())
    first = world.artifacts("first")["lora_adapter"]["fingerprint"]
    assert (report["start"]["source"], report["start"]["revision"]) == ("first", first)
    assert report["start"]["metrics"].keys() <= report["metrics"].keys()
    assert any("the reward " in reason and "over where it started" in reason for reason in report["verdict"]["reasons"])
    page = (world.folder("evaluation_report", "second") / "report.md").read_text()
    assert "## Beside where it started" in page and "![Reward while training](reward.png)" in page
    card = (world.folder("published_repo", "second") / "README.md").read_text()
    assert "by rewards for its own answers (chrf 1, length 0.1), 4 to a question" in card
    assert "answers in training had" in card


def test_the_curve_is_in_the_summary_and_what_memory_it_takes_was_predicted(world, run):
    summary = world.artifacts("second")["lora_adapter"]["summary"]
    assert [point["step"] for point in summary["reward_curve"]] == list(range(1, 9))
    assert summary["predicted_memory_mb"] > 500
