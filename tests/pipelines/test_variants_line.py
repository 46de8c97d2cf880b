"""Settings that are tried before the training, by the public command: what is chosen, trained, told and published."""

import json
import time
from pathlib import Path

import pytest
import yaml

from tests.pipelines.command import World, asset_materialize
from tests.pipelines.main_line import changed
from tests.waiting import PATIENCE

pytestmark = pytest.mark.long("several trainings after each other")

ADAPTER = "adapter_model.safetensors"
GRID = {"lora.r": [2, 4], "training.learning_rate": [1.0e-4, 1.0e-2]}


def trying(recipe: dict, repo: str, **variants) -> dict:
    tried = changed(changed(recipe, "hub", repo=repo), "training", max_steps=8, logging_steps=1)
    tried = changed(tried, "dataset", dev={"fraction": 0.2})
    return tried | ({"variants": variants} if variants else {})


def trained(run) -> list[str]:
    """What a run says of the trainings of variants that it did not find done."""
    return [line for line in run.stdout.splitlines() if "variant_state" in line and ": written," in line]


def states(world) -> set[Path]:
    return set((world.root / "artifacts" / "variant_state").glob("*/*/artifact.json"))


@pytest.fixture(scope="module")
def world(tmp_path_factory, recipe):
    world = World(tmp_path_factory.mktemp("world"))
    world.write_recipe("tried", trying(recipe, "tried", grid=GRID))
    run = world.materialize_warm("tried")
    assert run.returncode == 0, run.stdout[-4000:]
    (world.root / "first.log").write_text(run.stdout)
    return world


def test_all_are_trained_for_a_while_and_the_best_one_to_the_end(world):
    found = world.artifacts("tried")
    summary = found["variants"]["summary"]
    assert [len(variant["reached"]) for variant in summary["tried"]].count(2) == 2
    assert {reached["steps"] for variant in summary["tried"] for reached in variant["reached"]} == {8}
    last = {number: variant["reached"][-1]["loss"] for number, variant in enumerate(summary["tried"])}
    finalists = [number for number, variant in enumerate(summary["tried"]) if len(variant["reached"]) == 2]
    assert summary["chosen"] == min(finalists, key=last.__getitem__)
    adapter, chosen = found["lora_adapter"], summary["tried"][summary["chosen"]]["changes"]
    assert chosen["training.learning_rate"] == 1.0e-2
    assert adapter["sections"]["lora"]["r"] == chosen["lora.r"]
    assert adapter["sections"]["training"]["learning_rate"] == 1.0e-2
    assert adapter["inputs"]["variants"] == found["variants"]["fingerprint"]
    assert "going on from the checkpoint of step 4" in (world.root / "first.log").read_text()


def test_the_adapter_is_the_one_that_its_settings_make_by_themselves(world, recipe):
    adapter = world.artifacts("tried")["lora_adapter"]
    plain = trying(recipe, "plain")
    plain["lora"] |= {"r": adapter["sections"]["lora"]["r"]}
    plain["training"] |= {"learning_rate": 1.0e-2}
    world.write_recipe("plain", plain)
    run = world.materialize_warm("plain")
    assert run.returncode == 0, run.stdout[-4000:]
    by_itself = world.artifacts("plain")["lora_adapter"]
    assert by_itself["files"][ADAPTER] == adapter["files"][ADAPTER]
    for key in ("curve", "eval_loss", "exam_loss", "train_loss", "tokens", "steps"):
        assert by_itself["summary"][key] == adapter["summary"][key]


def test_report_card_and_published_recipe_tell_of_the_choice(world):
    chosen = world.artifacts("tried")["lora_adapter"]["sections"]
    report = (world.folder("evaluation_report", "tried") / "report.md").read_text()
    assert "4 variants were tried, and compared by their loss on 5 dev rows" in report
    assert "on dev, " in report and " on eval." in report
    folder = world.folder("published_repo", "tried")
    card = (folder / "README.md").read_text()
    assert "4 variants were tried" in card and "learning rate 0.01" in card
    published = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert published.get("variants") is None and published["lora"]["r"] == chosen["lora"]["r"]
    assert published["training"]["learning_rate"] == 1.0e-2 and published["dataset"]["dev"] == {"fraction": 0.2}


def test_a_second_run_trains_nothing(world):
    run = world.materialize_warm("tried")
    assert run.returncode == 0 and not trained(run)
    for asset in ("variants", "lora_adapter", "evaluation_report", "published_repo"):
        assert f"{asset} {world.artifacts('tried')[asset]['fingerprint']}: reused," in run.stdout


def test_of_a_changed_list_only_what_is_new_is_trained(world, recipe):
    before = world.artifacts("tried")["lora_adapter"]
    more = trying(recipe, "tried", grid=GRID | {"training.learning_rate": [1.0e-4, 1.0e-2, 1.0e-3]})
    world.write_recipe("tried", more)
    run = world.materialize_warm("tried")
    assert run.returncode == 0, run.stdout[-4000:]
    made = [json.loads(path.read_text()) for path in states(world)]
    rates = [state["sections"]["training"]["learning_rate"] for state in made if state["resolved"]["until"] == 0.25]
    assert sorted(rates) == [1.0e-4, 1.0e-4, 1.0e-3, 1.0e-3, 1.0e-2, 1.0e-2]
    assert len(trained(run)) <= 3, "two new ones, and one that goes on"
    after = world.artifacts("tried")["lora_adapter"]
    assert after["fingerprint"] != before["fingerprint"]
    assert after["files"][ADAPTER] == before["files"][ADAPTER]


def test_what_was_chosen_is_not_published_once_the_recipe_tries_others(world, recipe):
    other = trying(recipe, "tried", grid=GRID | {"lora.r": [2, 4, 8]})
    world.write_recipe("tried", other)
    run = world.materialize_warm("tried", select="published_repo")
    assert run.returncode == 1
    assert "not published: edited since what is to be published was made" in run.stdout
    assert "variants.grid.lora.r: [2, 4], now [2, 4, 8] (of variants " in run.stdout


def test_a_sweep_that_is_killed_goes_on_where_it_was(world, recipe):
    other = trying(recipe, "killed", grid=GRID)
    other["training"] |= {"seed": 7}
    world.write_recipe("killed", other)
    before = states(world)
    # It is ended, with all that it started, where this block is.
    with world.running("-m", *asset_materialize("killed", "*")) as log:
        deadline = time.monotonic() + PATIENCE
        while "variant 3 of 4" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    made = states(world) - before
    assert len(made) == 2
    run = world.materialize_warm("killed")
    assert run.returncode == 0, run.stdout[-4000:]
    assert len(states(world) - before) == 6 and len(trained(run)) == 4


def test_there_is_nothing_to_try_without_the_section(world):
    run = world.materialize_warm("plain", select="variants")
    assert run.returncode == 0 and "skipped: variants: the recipe has no section variants" in run.stdout
