"""The leaderboard by its public commands, and what the UI says of it when an exam came out otherwise."""

import json

import pytest

from tests.assets.exam_store import ExamStore
from tests.pipelines.command import IN_PROCESS, World

QUERY = '{ assetNodes(assetKeys: [{path: ["leaderboard"]}]) { staleStatus } }'
# What `evaluation_report` tells Dagster of its partitions, and then what the UI asks.
ASK = """
import sys
import dagster as dg
from dagster_graphql.cli import main
query, *told = sys.argv[1:]
with dg.DagsterInstance.get() as instance:
    for name, version in zip(told[::2], told[1::2]):
        tags = {"dagster/data_version": version}
        instance.report_runless_asset_event(dg.AssetMaterialization("evaluation_report", partition=name, tags=tags))
sys.argv[1:] = ["-m", "pipelines.definitions", "-t", query]
main()
"""
RIGHT, WRONG = [1.0] * 18 + [0.0] * 2, [0.0] * 20


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    for name in ("one", "two"):
        recipe = {
            "summary": "Rows",
            "base_model": {"repo": "some/model"},
            "dataset": {"sources": [{"generator": "linear-equations", "rows": 8}]},
            "hub": {"repo": name, "license": "mit"},
        }
        world.write_recipe(name, recipe)
    return world


def status(world, **exams) -> str:
    """What the UI is told of the leaderboard, once these recipes have exams with these scores."""
    store = ExamStore(world.root / "artifacts")
    made = {name: store.exam(name, scores, r=len(scores)).fingerprint for name, scores in exams.items()}
    asked = world.warm("-c", ASK, QUERY, *(part for pair in made.items() for part in pair))
    assert asked.returncode == 0, asked.stdout
    answer = next(line for line in asked.stdout.splitlines() if line.startswith('{"data"'))
    return json.loads(answer)["data"]["assetNodes"][0]["staleStatus"]


def make(world) -> str:
    command = ["dagster", "asset", "materialize", "-m", "pipelines.definitions", "--select", "leaderboard"]
    done = world.warm("-m", *command, "--config-json", IN_PROCESS)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.long("six commands, one after the other")
def test_it_is_out_of_date_once_an_exam_came_out_otherwise(world):
    assert status(world, one=RIGHT, two=WRONG) == "MISSING"
    assert "one is better than two, beyond noise." in make(world)
    assert status(world, two=WRONG) == "FRESH", "the same exam once more"
    assert status(world, two=RIGHT[1:]) == "STALE"
    assert "No difference is beyond noise" in make(world)
    assert status(world) == "FRESH"
