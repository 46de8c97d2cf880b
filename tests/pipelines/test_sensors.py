"""Schedule and sensors, tick by tick, in a process of their own as the daemon's code server is."""

import json

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from resources.hub_server.local import local_hub
from tests.pipelines.command import World
from tests.pipelines.ticks import Daemon

# The assets of which Dagster expects something new in time.
POLICIES = """
from pipelines.definitions import defs
for spec in defs.resolve_all_asset_specs():
    if policy := spec.freshness_policy:
        print(spec.key.to_user_string(), policy.deadline_cron, policy.lower_bound_delta)
"""
SOURCE = {"format": "question-answer", "split": "train"}


def recipe(source, repo="local/none", **more):
    return {
        "summary": "What starts a run",
        "base_model": {"repo": repo},
        "dataset": {"sources": [source], "eval": {"fraction": 0.5}},
        "hub": {"repo": "tiny", "license": "mit"},
        "schedule": True,
        **more,
    }


@pytest.fixture
def world(tmp_path):
    (tmp_path / "data").mkdir()
    world = World(tmp_path)
    for name in ("one", "two"):
        data = tmp_path / "data" / f"{name}.jsonl"
        data.write_text('{"question": "1 + 1?", "answer": "2"}\n')
        world.write_recipe(name, recipe({"files": [str(data)], **SOURCE}))
    return world


def test_a_recipe_that_means_something_else_starts_a_run_of_its_partition_alone(world):
    changed = recipe({"files": ["data/*.jsonl"], **SOURCE}, lora={"r": 4})
    with Daemon(world) as daemon:
        first = daemon.tick("recipe_changed")
        assert first["runs"] == {} and set(first["seen"]) == {"one", "two"}
        path = world.root / "recipes" / "one.yaml"
        path.write_text(f"# only a comment\n{path.read_text()}")
        assert daemon.tick("recipe_changed", first["cursor"])["runs"] == {}
        path.write_text("summary: [")
        wrong = daemon.tick("recipe_changed", first["cursor"])
        assert wrong["runs"] == {} and wrong["cursor"] == first["cursor"] and "one.yaml" in wrong["said"]
        world.write_recipe("one", changed)
        second = daemon.tick("recipe_changed", wrong["cursor"])
        assert set(second["runs"]) == set(second["seen"]) == {"one"}
        # A tick that the daemon repeats asks for the same run by the same key, which Dagster starts once.
        assert daemon.tick("recipe_changed", wrong["cursor"])["runs"] == second["runs"]
        assert daemon.tick("recipe_changed", second["cursor"])["runs"] == {}
    world.write_recipe("three", changed)
    with Daemon(world) as reloaded:
        assert set(reloaded.tick("recipe_changed", second["cursor"])["runs"]) == {"three"}


def test_another_adapter_starts_a_run_of_what_merges_it_and_of_what_goes_on_from_it(world):
    rows = {"files": [str(world.root / "data" / "one.jsonl")], **SOURCE}
    world.write_recipe("both", recipe(rows, lora={"merge": {"adapters": {"one": 0.5, "two": 0.5}}}))
    world.write_recipe("further", recipe(rows, lora={"from": "two"}))
    home = world.root / "artifacts" / "lora_adapter"
    with Daemon(world) as daemon:
        cursor = daemon.tick("recipe_changed")["cursor"]
        for name, runs in (("one", {"both"}), ("two", {"both", "further"})):
            (home / name).mkdir(parents=True)
            (home / name / "current.json").write_text(json.dumps({"fingerprint": "0" * 16}))
            found = daemon.tick("recipe_changed", cursor)
            assert set(found["runs"]) == set(found["seen"]) == runs
            cursor = found["cursor"]
        assert daemon.tick("recipe_changed", cursor)["runs"] == {}


def test_a_new_exam_is_expected_each_week_where_a_recipe_asks_for_it(world):
    policies = world.python("-c", POLICIES)
    assert policies.stdout.splitlines()[-1] == "evaluation_report 0 3 * * 1 1 day, 0:00:00"


def test_a_recipe_that_is_not_switched_on_is_seen_and_not_run(world):
    path = world.root / "data" / "two.jsonl"
    off = {"files": [str(path)], **SOURCE}
    world.write_recipe("two", recipe(off, schedule=False))
    with Daemon(world) as daemon:
        first = daemon.tick("recipe_changed")
        world.write_recipe("two", recipe(off, schedule=False, lora={"r": 4}))
        second = daemon.tick("recipe_changed", first["cursor"])
        assert second["runs"] == {} and set(second["seen"]) == {"two"}
        # Switching it on is no change of what it makes.
        world.write_recipe("two", recipe(off, lora={"r": 4}))
        assert daemon.tick("recipe_changed", second["cursor"])["runs"] == {}
        world.write_recipe("two", recipe(off, lora={"r": 8}))
        assert set(daemon.tick("recipe_changed", second["cursor"])["runs"]) == {"two"}


def test_a_local_file_that_changed_starts_a_run_once_it_is_at_rest(world):
    path = world.root / "data" / "two.jsonl"
    with Daemon(world) as daemon:
        first = daemon.tick("local_files_changed")
        with path.open("a") as file:
            file.write('{"question": "2 + 2?", "answer": "4"}\n')
        second = daemon.tick("local_files_changed", first["cursor"])
        assert second["runs"] == {}
        third = daemon.tick("local_files_changed", second["cursor"])
        assert set(third["runs"]) == {"two"}
        away = path.rename(path.with_name("away"))
        gone = daemon.tick("local_files_changed", third["cursor"])
        assert gone["runs"] == {} and "no file matches" in gone["said"]
        away.rename(path)
        assert daemon.tick("local_files_changed", gone["cursor"])["runs"] == {}


def test_a_new_commit_on_the_hub_starts_a_run_of_those_who_read_it_through_outages(tmp_path):
    world = World(tmp_path)
    with local_hub(tmp_path / "hub", grace=1.0) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)

        def commit(name, kind, content):
            api.create_repo(f"local/{name}", repo_type=kind, exist_ok=True)
            files = [CommitOperationAdd("file.txt", content)]
            return api.create_commit(f"local/{name}", files, commit_message="New", repo_type=kind).oid

        for name in ("one", "two"):
            for kind in ("dataset", "model"):
                commit(name, kind, b"1")
            world.write_recipe(name, recipe({"hub": f"local/{name}", **SOURCE}, repo=f"local/{name}"))
        down = Daemon(world, FINETUNING_SOURCE_HUB="http://127.0.0.1:9", HF_TOKEN="hf_x")
        with Daemon(world, FINETUNING_SOURCE_HUB=hub.endpoint, HF_TOKEN=hub.token) as daemon, down as cut_off:
            for sensor, kind in (("new_data_on_hub", "dataset"), ("new_base_model_on_hub", "model")):
                first = daemon.tick(sensor)
                assert first["runs"] == {} and set(first["seen"]) == {"one", "two"}
                oid = commit("two", kind, b"2")
                outage = cut_off.tick(sensor, first["cursor"])
                assert outage["runs"] == {} and "cannot be reached" in outage["said"]
                after = daemon.tick(sensor, outage["cursor"])
                assert set(after["runs"]) == {"two"} and after["seen"] == {"two": f"local/two@{oid[:12]}"}
                assert daemon.tick(sensor, after["cursor"])["runs"] == {}


def test_another_exam_in_force_asks_once_for_a_leaderboard_whether_a_recipe_is_switched_on_or_not(world):
    def comes_into_force(name, fingerprint):
        home = world.root / "artifacts" / "evaluation_report" / name
        home.mkdir(parents=True, exist_ok=True)
        (home / "current.json").write_text(json.dumps({"fingerprint": fingerprint}))

    with Daemon(world) as daemon:
        comes_into_force("one", "a" * 16)
        first = daemon.tick("exams_changed")
        assert first["runs"] == {}
        comes_into_force("one", "b" * 16), comes_into_force("phi-2", "c" * 16)
        moment = daemon.tick("exams_changed", first["cursor"])
        second = daemon.tick("exams_changed", moment["cursor"])
        keys = [tick["runs"]["null"] for tick in (moment, second)]
        assert len(set(keys)) == 2, "a new exam at once, and another one when it was seen twice"
        assert daemon.tick("exams_changed", moment["cursor"])["runs"] == second["runs"]
        assert daemon.tick("exams_changed", second["cursor"])["runs"] == {}
        comes_into_force("one", "a" * 16)
        back = daemon.tick("exams_changed", daemon.tick("exams_changed", second["cursor"])["cursor"])
        assert back["runs"].keys() == {"null"} and back["runs"]["null"] not in keys


def test_the_schedule_asks_for_one_run_a_recipe_that_is_switched_on_and_for_none_that_ships(world):
    code = (
        "import datetime, dagster as dg; from pipelines.schedules import retrain; "
        "at = datetime.datetime(2026, 11, 22, 3, tzinfo=datetime.UTC); "
        "from pipelines.definitions import defs; repository = defs.get_repository_def(); "
        "context = dg.build_schedule_context(scheduled_execution_time=at, repository_def=repository); "
        "print({run.partition_key: run.run_key for run in retrain.evaluate_tick(context).run_requests})"
    )
    assert "{'one': '2026-11-22T03:00/one', 'two': '2026-11-22T03:00/two'}" in world.warm("-c", code).stdout
    for name in ("one", "two"):
        world.write_recipe(name, recipe({"files": [str(world.root / "data" / f"{name}.jsonl")]}, schedule=False))
    nobody = world.warm("-c", code.replace("print(", "print(retrain.evaluate_tick(context).skip_message, "))
    assert "No recipe is switched on. Write `schedule: true`" in nobody.stdout and nobody.stdout.endswith("{}\n")
