"""What the UI says of partitions whose recipe was edited, by the query that it asks."""

import json

import pytest

from tests.pipelines.command import World

SOURCE = {
    "generator": "linear-equations",
    "format": "question-answer",
    "columns": {"question": "Problem", "answer": "Solution"},
    "rows": 8,
}
QUERY = """
{ assetNodes(assetKeys: [{path: ["raw_dataset"]}]) {
    one: staleStatus(partition: "one") two: staleStatus(partition: "two") } }
"""
ASK = "from dagster_graphql.cli import main; main()"
# What the sensor `recipe_changed` leaves in the event log when it sees these versions.
SEEN = """
import sys
import dagster as dg
from assets.external_assets import RECIPE, seen
with dg.DagsterInstance.get() as instance:
    for name in sys.argv[2:]:
        instance.report_runless_asset_event(seen(RECIPE, name, sys.argv[1]))
"""


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    for name in ("one", "two"):
        recipe = {
            "summary": "Rows",
            "base_model": {"repo": "some/model"},
            "dataset": {"sources": [SOURCE]},
            "hub": {"repo": name, "license": "mit"},
        }
        world.write_recipe(name, recipe)
    return world


def saw(world, version, *names):
    done = world.warm("-c", SEEN, version, *names)
    assert done.returncode == 0, done.stdout


def status(world):
    """What the UI is told of `raw_dataset`, by partition."""
    asked = world.warm("-c", ASK, "-m", "pipelines.definitions", "-t", QUERY)
    assert asked.returncode == 0, asked.stdout
    answer = next(line for line in asked.stdout.splitlines() if line.startswith('{"data"'))
    return json.loads(answer)["data"]["assetNodes"][0]


def test_after_one_recipe_was_edited_its_partition_alone_is_out_of_date(world):
    saw(world, "sha256:1", "one", "two")
    for name in ("one", "two"):
        assert world.materialize_warm(name, select="raw_dataset").returncode == 0
    assert status(world) == {"one": "FRESH", "two": "FRESH"}
    saw(world, "sha256:2", "one")
    assert status(world) == {"one": "STALE", "two": "FRESH"}
    assert world.materialize_warm("one", select="raw_dataset").returncode == 0
    assert status(world) == {"one": "FRESH", "two": "FRESH"}
