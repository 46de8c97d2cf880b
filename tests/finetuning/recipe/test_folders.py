"""Recipes are found by name in the folders of the environment variable, the wrong ones beside the right ones."""

import pytest
import yaml

from finetuning.recipe.loading import ROOT, find, load, load_file
from finetuning.recipe.mistakes import RecipeError
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.smoke import smoke
from tests.finetuning.recipe.short_recipe import SHORT, write


def test_recipes_are_found_in_the_folders_of_the_environment_variable_too(tmp_path, monkeypatch):
    write(tmp_path / "mine", SHORT, "of-mine")
    (tmp_path / "mine" / ".hidden.yaml").write_text(SHORT)
    (tmp_path / "mine" / "notes.txt").write_text("no recipe")
    write(tmp_path / "ours", SHORT, "of-ours")
    monkeypatch.setenv("FINETUNING_RECIPES", f"{tmp_path}/mine::{tmp_path}/ours:{tmp_path}/mine:{ROOT}/recipes")
    found = find()
    assert found["of-mine"] == tmp_path / "mine" / "of-mine.yaml"
    assert {"of-ours", "smollm2-135m"} < set(found)
    assert "hidden" not in " ".join(found)
    assert list(found) == sorted(found)
    assert load("of-mine").name == "of-mine"


def test_an_unknown_name_says_which_recipes_there_are_and_where_they_were_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNING_RECIPES", str(tmp_path / "gone"))
    monkeypatch.chdir(ROOT)
    with pytest.raises(RecipeError) as raised:
        load("phi2")
    assert f"phi2: no such recipe in recipes, {tmp_path}/gone (no such folder); there are: " in str(raised.value)
    assert "falcon-7b-saqr" in str(raised.value) and str(raised.value).endswith("; nearest is phi-2")


def test_a_name_in_two_folders_is_an_error_that_names_both_files(tmp_path, monkeypatch):
    write(tmp_path, SHORT, "phi-2")
    monkeypatch.setenv("FINETUNING_RECIPES", str(tmp_path))
    monkeypatch.chdir(ROOT)
    with pytest.raises(RecipeError, match=f"recipes/phi-2.yaml, {tmp_path}/phi-2.yaml; rename one"):
        load("phi-2")
    assert load("falcon-7b").name == "falcon-7b"


def test_a_wrong_recipe_is_found_and_leaves_the_others_loadable(tmp_path, monkeypatch):
    write(tmp_path, "lora: [", "broken")
    write(tmp_path, SHORT, "whole")
    monkeypatch.setenv("FINETUNING_RECIPES", str(tmp_path))
    assert {"broken", "whole"} < set(find())
    assert load("whole").name == "whole"
    with pytest.raises(RecipeError):
        load("broken")


def test_a_recipe_keeps_its_file_in_copies_and_in_a_smoke_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_file(write(tmp_path / "mine", SHORT))
    for same in (recipe, recipe.model_copy(update={"summary": "Other"}), smoke(recipe), smoke(recipe).model_copy()):
        assert (same.path, same.file) == (tmp_path / "mine/short.yaml", "mine/short.yaml")
    made = Recipe.model_validate(yaml.safe_load(SHORT) | {"name": "made"})
    assert (made.path, made.file, smoke(made).file) == (None, "made.yaml", "made.yaml")
