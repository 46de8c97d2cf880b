"""The README's tree, commands and variables are those of the project."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
TREE = README.split("## What is where")[1].split("```")[1]


def named_paths() -> set[str]:
    """Every file and folder that the tree names, relative to the root."""
    found, folder = set(), ""
    for line in TREE.strip().splitlines():
        names = re.findall(r"[\w./-]+(?:\.\w+|/)(?=\s|$)", re.split(r"\s{3,}", line.strip())[0])
        if not line.startswith(" "):
            folder = names[0]
            found.add(folder)
        else:
            found |= {folder + name for name in names}
    return found


def test_the_tree_names_only_what_exists():
    missing = sorted(path for path in named_paths() if not (ROOT / path).exists())
    assert not missing


@pytest.mark.parametrize("folder", ["pipelines", "assets", "resources", "finetuning"])
def test_the_tree_names_every_module(folder):
    modules = {f"{folder}/{path.name}" for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py"}
    assert modules <= named_paths()


def test_every_tracked_top_level_folder_is_in_the_tree():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {line.split("/")[0] + "/" for line in tracked.splitlines() if "/" in line}
    assert {folder for folder in folders if not folder.startswith(".")} <= named_paths()


def test_every_make_target_that_the_readme_names_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b", README)) <= targets


def test_the_readmes_main_command_is_the_demos():
    command = "dagster asset materialize --select '*' --partition smollm2-135m -m pipelines.definitions"
    assert command in README
    assert command.replace("smollm2-135m", "$(RECIPE)") in (ROOT / "Makefile").read_text()
