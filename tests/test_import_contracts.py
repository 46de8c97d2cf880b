"""Each import contract of pyproject.toml breaks when the import that it forbids is there."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
# By the start of a contract's name: a module, and the import that is planted in it.
PLANTED = {
    "Imports go one way": ("resources/gpu.py", "import pipelines.jobs"),
    "finetuning follows the line": ("finetuning/dataset/drawing.py", "import finetuning.evaluation.metrics"),
    "resources stand on what": ("resources/store/locks.py", "import resources.gpu"),
    "finetuning knows nothing of Dagster": ("finetuning/durable.py", "import dagster"),
    "resources use no more of finetuning": ("resources/gpu.py", "import finetuning.evaluation.metrics"),
    "Assets never import each other": ("assets/merged_model.py", "import assets.raw_dataset"),
    "No circles among siblings": ("pipelines/outcomes.py", "import pipelines.results"),
}

pytestmark = pytest.mark.long("the whole tree is read again for each contract")


def test_every_contract_has_an_import_that_breaks_it():
    names = [contract["name"] for contract in CONTRACTS["contracts"]]
    assert len(names) == len(PLANTED)
    assert all(any(name.startswith(start) for name in names) for start in PLANTED)


@pytest.mark.parametrize("contract", PLANTED)
def test_a_planted_import_breaks_the_contract(tmp_path, contract):
    for package in CONTRACTS["root_packages"]:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    file, planted = PLANTED[contract]
    with (tmp_path / file).open("a") as module:
        module.write(f"\n{planted}  # planted\n")
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {"PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    broken = [line for line in done.stdout.splitlines() if " BROKEN" in line]
    assert any(line.startswith(contract) for line in broken), done.stdout
