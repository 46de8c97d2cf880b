"""What one person backs up by the guide's commands, and loses, comes back by them."""

import shutil
import subprocess

import dagster as dg
import pytest

from tests.deploy.deployment import RECIPE, ROOT, commands
from tests.pipelines.command import World


@pytest.fixture
def checkout(tmp_path):
    """A folder in which everything lies as it does in a checkout."""
    folder = tmp_path / "checkout"
    for name in (".dagster", ".hub", "recipes"):
        (folder / name).mkdir(parents=True)
    instance = (ROOT / "dagster.yaml").read_text().replace(": .dagster", f": {folder}/.dagster")
    world = World(folder)
    (folder / "dagster" / "dagster.yaml").write_text(instance)
    world.write_recipe("tiny", RECIPE)
    return world


def make_rows(world):
    run = world.materialize_warm("tiny", select="raw_dataset")
    assert run.returncode == 0, run.stdout
    with dg.DagsterInstance.from_config(str(world.root / "dagster")) as instance:
        (event,) = instance.fetch_materializations(dg.AssetKey("raw_dataset"), limit=1).records
        return event.asset_materialization.metadata["reused"].value, [run.run_id for run in instance.get_runs()]


def test_a_checkout_that_was_lost_comes_back_with_its_history(checkout, tmp_path):
    reused, history = make_rows(checkout)
    assert not reused and len(history) == 1
    subprocess.run(["bash", "-euc", commands("Backup for one person")], cwd=checkout.root, check=True)
    shutil.move(checkout.root / "backup", tmp_path / "backup")
    for name in (".dagster", ".hub", "artifacts", "recipes"):
        shutil.rmtree(checkout.root / name)
    shutil.move(tmp_path / "backup", checkout.root / "backup")
    restore = "tar -xzf backup/finetuning.tar.gz"
    assert f"```bash\n{restore}\n```" in (ROOT / "docs" / "team.md").read_text()
    subprocess.run(restore.split(), cwd=checkout.root, check=True)
    reused, later = make_rows(checkout)
    assert reused and len(later) == 2 and history[0] in later
