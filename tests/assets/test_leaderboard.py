"""The leaderboard as an asset: an artifact about the exams in force, made anew only for another one."""

import json
from pathlib import Path

import dagster as dg
import pytest
from huggingface_hub import HfApi

from assets.leaderboard import leaderboard
from assets.partitions import RECIPES
from resources.artifacts import ArtifactIOManager, Artifacts
from resources.hub import Hub
from resources.hub_server.local import local_hub
from tests.assets.exam_store import ExamStore

# Recipes that ship.
GOOD, BAD = "phi-2", "gemma-2b"
RIGHT = [1.0] * 18 + [0.0] * 2
WRONG = [0.0] * 18 + [1.0] * 2


@pytest.fixture
def store(tmp_path):
    return ExamStore(tmp_path / "artifacts")


@pytest.fixture
def made(store):
    """What materializing it shows, by name; an error where it fails."""
    artifacts = Artifacts(root=str(store.root))
    resources = {
        "artifacts": artifacts,
        "io_manager": ArtifactIOManager(artifacts=artifacts),
        "hub": Hub(state=str(store.root.parent / "hub")),
    }
    assets = [leaderboard, dg.AssetSpec("evaluation_report", partitions_def=RECIPES)]

    def make():
        done = dg.materialize(assets, resources=resources, selection=[leaderboard], raise_on_error=False)
        if not done.success:
            return done.failure_data_for_node("leaderboard").user_failure_data.description
        (event,) = done.asset_materializations_for_node("leaderboard")
        return {name: shown.value for name, shown in event.metadata.items()}

    return make


def test_it_is_reused_until_an_exam_in_force_changes(store, made):
    store.exam(GOOD, RIGHT), store.exam(BAD, WRONG)
    first = made()
    assert (first["exams"], first["groups"], first["reused"]) == (2, 1, False)
    assert f"**{GOOD} is better than {BAD}**, beyond noise." in first["leaderboard"]
    assert "(data:image/png;base64," in first["leaderboard"] and "| tiny " in first["leaderboard"]
    assert "| 0.50 h on cpu × 2 |" in first["leaderboard"] and f"{GOOD} is better" in first["best"]
    again = made()
    assert again["reused"] and again["fingerprint"] == first["fingerprint"]
    store.exam(BAD, RIGHT, r=4)
    changed = made()
    assert not changed["reused"] and "No difference is beyond noise" in changed["leaderboard"]
    store.exam(BAD, WRONG)
    assert made()["fingerprint"] == first["fingerprint"], "an exam that is in force again"


def test_a_price_is_part_of_it(store, made, monkeypatch):
    store.exam(GOOD, RIGHT)
    before = made()
    monkeypatch.setenv("FINETUNING_GPU_HOUR_PRICE", "2.50")
    after = made()
    assert "| price " in after["leaderboard"] and "| 2.50 " in after["leaderboard"]  # half an hour of two processes
    assert "| price " not in before["leaderboard"] and after["fingerprint"] != before["fingerprint"]


def test_an_exam_that_cannot_be_read_is_left_out_until_it_can_and_the_page_says_why(store, made):
    store.exam(GOOD, RIGHT)
    rows = store.exam(BAD, WRONG).path / "samples.parquet"
    content = rows.read_bytes()
    rows.write_bytes(content[::-1])
    shown = made()
    assert shown["left_out"] == 1 and f"- {BAD}: {rows.parent}: changed after it was" in shown["leaderboard"]
    rows.write_bytes(content)
    mended = made()
    assert mended["left_out"] == 0 and mended["exams"] == 2
    rows.unlink()
    assert f"- {BAD}: its exam is not there whole: materialize evaluation_report" in made()["leaderboard"]


def test_where_no_exam_can_be_read_it_fails_and_says_why(store, made):
    rows = store.exam(GOOD, RIGHT).path / "samples.parquet"
    rows.write_bytes(rows.read_bytes()[::-1])
    assert "changed after it was written: samples.parquet" in made()


def test_exams_of_recipes_that_are_gone_and_of_smoke_runs_take_no_part(store, made):
    store.exam("gone", RIGHT), store.exam(GOOD, RIGHT, smoke=True)
    assert "no recipe has an exam yet" in made()
    store.exam(BAD, WRONG)
    assert made()["exams"] == 1


def test_it_is_published_where_a_setting_names_a_repo_without_rows_or_folders_of_this_machine(store, made, monkeypatch):
    monkeypatch.setenv("FINETUNING_LEADERBOARD_REPO", "board")
    store.exam(GOOD, RIGHT), store.exam(BAD, WRONG)
    rows = store.exam("falcon-7b-saqr", RIGHT).path / "samples.parquet"
    rows.write_bytes(rows.read_bytes()[::-1])
    with local_hub(store.root.parent / "hub", grace=1.0) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        shown = made()
        assert shown["url"].endswith("/datasets/local/board") and shown["left_out"] == 1
        there = {"README.md", "leaderboard.json", "pareto.png"}
        assert set(api.list_repo_files("local/board", repo_type="dataset")) - {".gitattributes"} == there
        read = {
            name: Path(api.hf_hub_download("local/board", name, repo_type="dataset")).read_bytes() for name in there
        }
        card, document = (read[name].decode() for name in ("README.md", "leaderboard.json"))
        assert card.startswith("---\npretty_name:") and f"**{GOOD} is better than {BAD}**" in card
        assert json.loads(document)["left_out"][0]["why"] == "its exam could not be read"
        for private in (str(store.root.parent), "question 1", "says", "beside/"):
            assert private not in card + document
        assert api.repo_info("local/board", repo_type="dataset").private
        api.update_repo_settings("local/board", private=False, repo_type="dataset")
        assert made()["commit"] == shown["commit"]
        store.exam(BAD, RIGHT, r=4)
        assert made()["commit"] != shown["commit"]
        assert not api.repo_info("local/board", repo_type="dataset").private, "as somebody made it"
        assert len(api.list_repo_refs("local/board", repo_type="dataset").tags) == 2
