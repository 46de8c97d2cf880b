"""The main line with its artifacts on a real S3 server, and another machine that has nothing but the address."""

import json
import re

import pytest

from tests.pipelines.command import IN_PROCESS, World
from tests.pipelines.main_line import ASSETS, REUSED
from tests.resources.s3 import BUCKET, SECRET, Machine, client, s3_server, write_files

pytestmark = pytest.mark.long("the whole line once more, with an object store")

ROOT = f"s3://{BUCKET}/artifacts"


@pytest.fixture(scope="module")
def world(tmp_path_factory, recipe):
    """A world without a folder for artifacts, in which the tiny recipe has been through the main line once."""
    root = tmp_path_factory.mktemp("world")
    with s3_server() as server:
        where = {"FINETUNING_ARTIFACTS": ROOT, "FINETUNING_ARTIFACTS_CACHE": str(root / "here")}
        world = World(root, {**server.environment, **where})
        world.write_recipe("tiny", recipe)
        first = world.materialize("tiny")
        assert first.returncode == 0, first.stdout[-4000:]
        (root / "first.log").write_text(first.stdout)
        yield world


def stored() -> set[str]:
    pages = client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return {found["Key"] for page in pages for found in page.get("Contents", [])}


def test_every_artifact_is_stored_and_shown_by_its_address(world):
    names, said = stored(), (world.root / "first.log").read_text()
    for asset in ASSETS:
        # A base model is shared by partitions, in a home of its own.
        home = "tiny" if asset != "quantized_base_model" else "[0-9a-f]{16}"
        manifests = rf"artifacts/{asset}/{home}/[0-9a-f]{{16}}/artifact\.json"
        (manifest,) = (name for name in names if re.fullmatch(manifests, name))
        assert f"artifacts/{asset}/tiny/current.json" in names
        assert re.search(
            rf"{asset} [0-9a-f]{{16}}: written, s3://{BUCKET}/{manifest.removesuffix('/artifact.json')} ", said
        )
    assert not (world.root / "artifacts").exists() and SECRET not in said


def test_another_machine_with_an_empty_cache_reuses_everything(world):
    before = stored()
    again = world.materialize("tiny", FINETUNING_ARTIFACTS_CACHE=str(world.root / "there"))
    assert again.returncode == 0, again.stdout[-4000:]
    assert len(re.findall(REUSED, again.stdout)) == 6
    assert again.stdout.count("downloading s3://") >= 6 and "uploading" not in again.stdout
    assert "starting python -m finetuning." not in again.stdout
    assert stored() == before


def test_prune_takes_away_what_nobody_refers_to_and_nothing_else(world):
    before, machine = stored(), Machine(ROOT, world.root / "third")
    loose = machine.plan("raw_dataset", sections={"v": 1}).obtain(write_files)
    machine.plan("raw_dataset", sections={"v": 2}).obtain(write_files)  # the one in force; the real one is published
    config = {"older_than_days": 0.0, "dry_run": False}
    (world.root / "config.json").write_text(
        json.dumps({**json.loads(IN_PROCESS), "ops": {"prune_artifacts": {"config": config}}})
    )
    command = ["dagster", "job", "execute", "-m", "pipelines.definitions", "-j", "prune"]
    pruned = world.python("-m", *command, "-c", str(world.root / "config.json"))
    assert pruned.returncode == 0, pruned.stdout[-3000:]
    assert f"raw_dataset tiny {loose.fingerprint}" in pruned.stdout and "1 artifacts, 0.0 MB" in pruned.stdout
    assert before <= stored() and not [name for name in stored() if loose.fingerprint in name]
