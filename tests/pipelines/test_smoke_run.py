"""A smoke run through the public command: the whole line by the same code, green, and apart from the real thing."""

import json
import shutil

import dagster as dg
import pytest
from huggingface_hub import HfApi

from resources.hub_server.local import local_hub
from tests.benchmark_folder import write_tasks
from tests.pipelines.command import World
from tests.pipelines.main_line import ASSETS, FAILS, changed
from tests.tiny_models import ZEPHYR, save_tiny_model

ALL = ASSETS | {"merged_model", "published_merged_repo"}
SMOKE = {"FINETUNING_SMOKE": "1"}


@pytest.fixture(scope="module")
def world(tmp_path_factory, recipe):
    """A world with a model that would fail its gate, and with all that is made beside an adapter."""
    world = World(tmp_path_factory.mktemp("world"))
    tasks = str(write_tasks(world.root / "tasks"))
    asked = {"gate": FAILS, "benchmarks": ["animals"], "benchmark_folder": tasks, "benchmark_rows": 12}
    # More rows than the data set has are not asked for where the recipe counts none.
    rows = [{"question": f"What is {n} and {n * 7 % 31}?", "answer": f"#### {n}"} for n in range(20)]
    (world.root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"files": [str(world.root / "rows.jsonl")], "format": "question-answer"}
    recipe = changed(changed(recipe, "evaluation", **asked), "dataset", sources=[source])
    world.write_recipe("tiny", changed(recipe, "training", max_steps=400) | {"merge": {"gguf": "q8_0"}})
    return world


@pytest.fixture(scope="module")
def base_model(tmp_path_factory):
    """Wide enough for q8_0, whose blocks are of 32 weights."""
    return save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("base") / "tiny-llama", ZEPHYR)


@pytest.fixture(scope="module")
def smoked(world):
    run = world.materialize_warm("tiny", **SMOKE)
    assert run.returncode == 0, run.stdout[-4000:]
    return {
        path.parts[-4]: json.loads(path.read_text())
        for path in (world.root / "artifacts" / "smoke").glob("*/tiny/*/artifact.json")
    }


def test_it_goes_through_every_asset_and_leaves_everything_apart(world, smoked):
    assert set(smoked) == ALL and all(manifest["smoke"] is True for manifest in smoked.values())
    assert smoked["lora_adapter"]["summary"]["steps"] == 4
    assert smoked["raw_dataset"]["summary"]["rows"] == 20
    assert [path.name for path in (world.root / "artifacts").iterdir()] == ["smoke"]
    base = smoked["published_repo"]["summary"]["base"]["repo_id"]
    repos = {"local/tiny-adapter-smoke", "local/tiny-adapter-smoke-merged", base}
    assert base.endswith("-smoke")
    there = (world.root / "hub" / "repos" / "models" / "local").glob("*.json")
    assert {f"local/{path.stem}" for path in there} == repos
    with local_hub(world.root / "hub", grace=1.0) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        assert all(api.model_info(repo).private for repo in repos)
        title = api.list_repo_commits("local/tiny-adapter-smoke")[0].title
    assert title == f"Publish smoke run of tiny ({smoked['published_repo']['fingerprint']})"


def test_its_verdict_is_shown_and_proves_nothing_wherever_it_is_read(world, smoked):
    report = world.root / "artifacts" / "smoke" / "evaluation_report" / "tiny"
    (folder,) = [path.parent for path in report.glob("*/report.json")]
    verdict = json.loads((folder / "report.json").read_text())["verdict"]
    assert verdict["passed"] is False and verdict["smoke"] is True
    assert any("misses by 1.000 the 1.000 that the gate asks for" in reason for reason in verdict["reasons"])
    assert "**Smoke run**: nothing is proved" in (folder / "report.md").read_text()
    for asset in ("published_repo", "published_merged_repo"):
        home = world.root / "artifacts" / "smoke" / asset / "tiny" / smoked[asset]["fingerprint"]
        assert "**Nothing is proved of it: it comes from a smoke run**" in (home / "README.md").read_text()
        assert "# A smoke run: cut down to few rows and steps" in (home / "recipe.yaml").read_text()


def test_it_went_well_and_that_it_was_a_smoke_run_is_in_its_results(world, smoked):
    told = world.results("tiny", **SMOKE)
    assert told.returncode == 0 and "verdict    smoke run" in told.stdout
    assert "published  local/tiny-adapter-smoke at commit" in told.stdout


def test_the_list_of_runs_shows_it_as_one(world, smoked):
    with dg.DagsterInstance.from_config(str(world.root / "dagster")) as instance:
        assert [run.job_name for run in instance.get_runs(dg.RunsFilter(tags={"smoke": "true"}))] == ["__ASSET_JOB"]


def test_nothing_of_it_is_published_for_real_however_it_is_brought_there(world, smoked):
    alone = world.materialize_warm("tiny", select="published_repo")
    assert alone.returncode == 1
    assert "no complete artifact of" in alone.stdout and "artifacts/smoke" not in alone.stdout
    shutil.copytree(world.root / "artifacts" / "smoke", world.root / "unmarked")
    for manifest in (world.root / "unmarked").glob("*/*/*/artifact.json"):
        manifest.write_text(manifest.read_text().replace('"smoke": true', '"smoke": false'))
    unmarked = world.materialize_warm(
        "tiny", select="published_repo", FINETUNING_ARTIFACTS=str(world.root / "unmarked")
    )
    assert unmarked.returncode == 1
    assert "is of a smoke run, and this is none (FINETUNING_SMOKE)" in unmarked.stdout
    assert not (world.root / "hub" / "repos" / "models" / "local" / "tiny-adapter.json").exists()
