"""The job `prune` through its command, beside the local hub: what is published stays, a dry run touches nothing."""

import json
from datetime import UTC, datetime

import pytest
from huggingface_hub import HfApi

from resources.hub_server.local import local_hub
from tests.pipelines.command import IN_PROCESS, World
from tests.resources.store.test_retention import Store


@pytest.fixture
def world(tmp_path):
    """Three versions in the store, of which the hub has the first."""
    world = World(tmp_path)
    store = Store(tmp_path / "artifacts")
    with local_hub(tmp_path / "hub", grace=1.0) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        repo_id = api.create_repo("tiny").repo_id
        api.create_tag(repo_id, tag="v1")
    for version in (1, 2, 3):
        raw = store.make("raw_dataset", version)
        store.make("published_repo", version, [raw], summary={"repo_id": repo_id, "tag": f"v{version}"})
    for manifest in (tmp_path / "artifacts").glob("*/*/*/artifact.json"):
        old = json.loads(manifest.read_text()) | {"created": datetime(2026, 1, 1, tzinfo=UTC).isoformat()}
        manifest.write_text(json.dumps(old))
    return world


def versions(world):
    manifests = [json.loads(path.read_text()) for path in (world.root / "artifacts").glob("*/*/*/artifact.json")]
    return {(manifest["asset"], manifest["sections"]["v"]) for manifest in manifests}


def prune(world, **config):
    (world.root / "config.json").write_text(
        json.dumps({**json.loads(IN_PROCESS), "ops": {"prune_artifacts": {"config": config}}})
    )
    command = ["dagster", "job", "execute", "-m", "pipelines.definitions", "-j", "prune"]
    return world.warm("-m", *command, "-c", str(world.root / "config.json"))


# The process of this test holds what it made, and so nothing may be removed beside it.
def test_a_dry_run_shows_what_a_real_one_leaves_alone_while_it_is_used(world):
    before = versions(world)
    dry = prune(world)
    assert dry.returncode == 0, dry.stdout[-3000:]
    assert "2 artifacts, " in dry.stdout and ": a dry run, nothing was removed" in dry.stdout
    assert dry.stdout.count("would be removed") == 2
    assert versions(world) == before
    used = prune(world, dry_run=False)
    assert used.stdout.count(": in use") == 2 and versions(world) == before


def test_what_nobody_uses_goes_and_what_is_published_stays(world):
    let_go()
    done = prune(world, dry_run=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert versions(world) == {(asset, version) for asset in ("raw_dataset", "published_repo") for version in (1, 3)}


def test_without_the_hub_nothing_goes(world):
    let_go()
    before = versions(world)
    world.environment |= {"FINETUNING_HUB": "http://127.0.0.1:9", "HF_TOKEN": "hf_x", "FINETUNING_HUB_DEADLINE": "1"}
    out = prune(world, dry_run=False)
    assert out.returncode != 0 and "cannot be reached" in out.stdout
    assert versions(world) == before


def let_go():
    """This process no longer uses what it made."""
    from resources.store.locks import LEASES

    while LEASES:
        LEASES.popitem()[1].close()
