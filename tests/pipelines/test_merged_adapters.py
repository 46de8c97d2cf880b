"""A recipe that merges the adapters of two others, through the public command: examined and published as any other."""

import json

import pytest
from peft import AutoPeftModelForCausalLM

from tests.pipelines.command import IN_PROCESS, World
from tests.pipelines.main_line import changed

pytestmark = pytest.mark.long("trainings of which others are merged")

MERGE = {"adapters": {"first": 0.7, "second": 0.5}, "combination_type": "dare_ties", "density": 0.9}
BEFORE_PUBLISHING = "raw_dataset,chat_dataset,quantized_base_model,lora_adapter"

# What the UI shows of the last exam.
SHOWN = """
import dagster as dg
with dg.DagsterInstance.get() as instance:
    event = instance.get_latest_materialization_event(dg.AssetKey("evaluation_report"))
    print(event.asset_materialization.metadata["beside_the_one_before"].value)
"""


def trained(recipe: dict, repo: str, rate: float) -> dict:
    return changed(changed(recipe, "hub", repo=repo), "training", learning_rate=rate)


def merging(recipe: dict, repo: str, **merge) -> dict:
    kept = {key: value for key, value in recipe.items() if key != "training"}
    return changed(kept, "hub", repo=repo) | {"lora": {"merge": MERGE | merge}}


@pytest.fixture(scope="module")
def world(tmp_path_factory, recipe):
    world = World(tmp_path_factory.mktemp("world"))
    world.write_recipe("first", trained(recipe, "first", 1.0e-2))
    world.write_recipe("second", changed(trained(recipe, "second", 2.0e-2), "hub", license="mit"))
    world.write_recipe("both", merging(recipe, "both"))
    for name in ("first", "second", "both"):
        run = world.materialize_warm(name)
        assert run.returncode == 0, run.stdout[-4000:]
    return world


def test_its_parts_are_told_wherever_an_adapter_is_described(world):
    first, second, both = (world.artifacts(name)["lora_adapter"] for name in ("first", "second", "both"))
    parts = both["resolved"]["lora_merge"]["parts"]
    assert [(part["recipe"], part["revision"], part["license"]) for part in parts] == [
        ("first", first["fingerprint"], "apache-2.0"),
        ("second", second["fingerprint"], "mit"),
    ]
    assert [part["weights"] for part in parts] == [
        made["files"]["adapter_model.safetensors"] for made in (first, second)
    ]
    told = f"0.5 of the adapter of the recipe second at `{second['fingerprint']}` (licence: mit)"
    card, report, published = (
        (world.folder(asset, "both") / name).read_text()
        for asset, name in (
            ("published_repo", "README.md"),
            ("evaluation_report", "report.md"),
            ("published_repo", "recipe.yaml"),
        )
    )
    assert told in card and told in report
    assert "| second    | linear-equations |" in card and "| second    | linear-equations |" in report
    assert "merged by peft (dare_ties, density 0.9); nothing was trained" in card
    assert "loss.png" not in card + report and "- merge" in card
    assert "combination_type: dare_ties" in published and "learning_rate" not in published


def test_the_published_recipe_is_one(world):
    path = world.folder("published_repo", "both") / "recipe.yaml"
    checked = world.python("-m", "finetuning.recipe", "validate", str(path))
    assert checked.returncode == 0, checked.stdout


def test_it_loads_by_itself(world):
    folder = world.folder("lora_adapter", "both")
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4
    assert AutoPeftModelForCausalLM.from_pretrained(folder).peft_config["default"].r == 4


def test_it_is_beside_the_others_on_the_leaderboard_and_in_a_comparison(world):
    command = ["dagster", "asset", "materialize", "-m", "pipelines.definitions", "--select", "leaderboard"]
    made = world.warm("-m", *command, "--config-json", IN_PROCESS)
    assert made.returncode == 0, made.stdout[-4000:]
    board = next((world.root / "artifacts" / "leaderboard" / "all").glob("*/leaderboard.json"))
    models = {one["name"]: one for group in json.loads(board.read_text())["groups"] for one in group["models"]}
    assert models["both"]["costs"]["training_seconds"] is None and models["first"]["costs"]["training_seconds"]
    assert models["both"]["costs"]["parameters"] == models["first"]["costs"]["parameters"]
    page = world.warm("-m", "pipelines.compare", "first", "both")
    assert page.returncode == 0 and "lora.merge.combination_type" in page.stdout and "merged from" in page.stdout


def test_it_is_found_again_and_another_part_makes_another_one(world, recipe):
    before = world.artifacts("both")["lora_adapter"]["fingerprint"]
    again = world.materialize_warm("both")
    assert again.returncode == 0 and f"lora_adapter {before}: reused" in again.stdout
    world.write_recipe("first", trained(recipe, "first", 3.0e-2))
    assert world.materialize_warm("first", select="lora_adapter").returncode == 0
    run = world.materialize_warm("both", select="lora_adapter,evaluation_report")
    assert run.returncode == 0, run.stdout[-4000:]
    assert world.artifacts("both")["lora_adapter"]["fingerprint"] != before
    shown = world.python("-c", SHOWN)
    assert "# both@" in shown.stdout and "lora.merge" not in shown.stdout and "answers differ" in shown.stdout


@pytest.mark.parametrize(
    ("merge", "told"),
    [
        ({"adapters": {"frist": 1.0, "second": 1.0}}, "lora.merge.adapters: frist is no recipe"),
        ({"adapters": {"wrong": 1.0, "second": 1.0}}, "lora.merge.adapters: wrong is this recipe itself"),
        ({"adapters": {"both": 1.0, "second": 1.0}}, "the adapter of both was merged itself. Name those that"),
        ({"adapters": {"unmade": 1.0, "second": 1.0}}, "no complete artifact of lora_adapter for unmade"),
    ],
)
def test_what_cannot_be_merged_is_one_message(world, recipe, merge, told):
    world.write_recipe("unmade", trained(recipe, "unmade", 1.0e-2))
    world.write_recipe("wrong", merging(recipe, "wrong", **merge))
    run = world.materialize_warm("wrong", select=BEFORE_PUBLISHING)
    assert run.returncode == 1 and told in run.stdout, run.stdout[-4000:]


def test_rows_that_a_part_learned_prove_nothing(world, recipe):
    """With a larger share, rows are in the exam that were not in theirs."""
    world.write_recipe("wrong", changed(merging(recipe, "wrong"), "dataset", eval={"fraction": 0.5}))
    run = world.materialize_warm("wrong", select=BEFORE_PUBLISHING)
    assert run.returncode == 1
    assert "second was trained on" in run.stdout or "first was trained on" in run.stdout
    assert "of the questions of this recipe's exam (" in run.stdout


def test_a_smoke_run_merges_what_smoke_runs_trained(world):
    for name in ("first", "second", "both"):
        run = world.materialize_warm(name, FINETUNING_SMOKE="1")
        assert run.returncode == 0, run.stdout[-4000:]
