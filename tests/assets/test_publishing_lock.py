"""A recipe that names something else than what was made describes no publication, whatever its fingerprints say."""

import pytest

from assets.publishing_lock import renamed, require_recipe
from finetuning.errors import GateError
from finetuning.recipe.loading import load_file
from finetuning.recipe.sections import sections
from resources.store.artifact import Artifact

COMMIT, OTHER = "c" * 40, "d" * 40
RECIPE = """\
summary: A model that answers
base_model: {repo: some/model, revision: main}
dataset:
  sources:
    - {hub: some/data, revision: main, format: messages}
resources: {workers: 2}
hub: {repo: some-adapter, license: mit}
"""
RESOLVED = {
    "base_model": {"source": "some/model", "revision": COMMIT, "on_hub": True},
    "revisions": {"train-00": COMMIT},
    "processes": 2,
}


def recipe_of(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_file(path)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("repo: some/model", "repo: other/model", "base_model.repo: some/model, now other/model"),
        ("repo: some/model, revision: main", "package: mine", "base_model.package: some/model, now mine"),
        ("some/model, revision: main", f"some/model, revision: {OTHER}", f"base_model.revision: {COMMIT}, now {OTHER}"),
        (
            "data, revision: main",
            f"data, revision: {OTHER}",
            f"dataset.sources[0].revision: {COMMIT}, now {OTHER}",
        ),
        ("workers: 2", "workers: 3", "resources.workers: 2, now 3"),
    ],
)
def test_what_the_recipe_names_now_and_was_not_used_is_told(tmp_path, before, after, told):
    assert before in RECIPE
    assert list(renamed(recipe_of(tmp_path, RECIPE.replace(before, after)), RESOLVED)) == [told]


@pytest.mark.parametrize("revision", ["main", "v1", COMMIT])
def test_a_branch_may_have_stood_for_the_commit_that_was_used(tmp_path, revision):
    recipe = recipe_of(tmp_path, RECIPE.replace("main", revision).replace("workers: 2", "workers: null"))
    assert not list(renamed(recipe, RESOLVED))


def test_a_package_is_the_one_that_was_used_in_any_version(tmp_path):
    recipe = recipe_of(tmp_path, RECIPE.replace("repo: some/model, revision: main", "package: mine"))
    base = {"source": "package mine mine 1.2", "revision": "a" * 16, "on_hub": False}
    assert not list(renamed(recipe, {"base_model": base}))


def test_another_base_model_is_not_published_under_the_recipe(tmp_path):
    recipe = recipe_of(tmp_path, RECIPE)
    base = Artifact(
        asset="quantized_base_model",
        partition="a" * 16,
        inputs={},
        sections=sections(recipe, "quantized_base_model"),
        resolved={"base_model": RESOLVED["base_model"]},
        fingerprint="a" * 16,
        path=tmp_path,
        summary={},
        files={},
        versions={},
        bytes=0,
        seconds=0.0,
        created="",
    )
    require_recipe(recipe, base)
    edited = recipe_of(tmp_path, RECIPE.replace("some/model", "other/model"))
    with pytest.raises(GateError, match=r"edited since .*base_model\.repo: some/model, now other/model \(of quantized"):
        require_recipe(edited, base)
