"""A model on this machine that judges: what tells it from others, and what is said before a training."""

from dataclasses import replace

import pytest

from assets.judging import judging_artifacts
from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.freshness.versions import recipe_version
from finetuning.recipe.loading import load
from resources.artifacts import Artifacts
from resources.store.artifact import Origin
from tests.assets.exam_store import ExamStore, made_of
from tests.finetuning.recipe.short_recipe import with_sections, write

SILENT = print


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Recipes `tuned`, and `examined`, whose judge a test names; and a store with the artifacts of `tuned`."""
    monkeypatch.setenv("FINETUNING_RECIPES", str(tmp_path / "recipes"))
    write(tmp_path / "recipes", with_sections("summary: Judges"), "tuned")
    artifacts = Artifacts(root=str(tmp_path / "artifacts"))
    return World(tmp_path, artifacts)


class World:
    def __init__(self, folder, artifacts):
        self.folder, self.artifacts = folder, artifacts
        self.made = ExamStore(folder / "artifacts", artifacts.store())

    def examined(self, judge, more=""):
        text = f"evaluation: {{metrics: [judge], judge: {{{judge}}}}}{more}"
        write(self.folder / "recipes", with_sections(text), "examined")
        return load("examined")

    def judging(self, judge="name: tuned", more=""):
        return judging_artifacts(self.examined(judge, more), self.artifacts, SILENT)

    def make(self, weights="weights", rows="rows", template="chatml", of="tuned"):
        def written(name, text):
            def write(folder):
                (folder / name).write_text(text)
                return {}

            return write

        plain = Origin(asset="quantized_base_model", partition=of, inputs={}, sections={}, resolved={})
        base = self.made.make(plain, written("model.safetensors", "base"), of)
        chat = self.made.make(
            replace(plain, asset="chat_dataset", sections={"rows": rows}, resolved={"chat_template": template}),
            written("train.parquet", rows),
        )
        inputs = {kind: made_of(base)[kind] | made_of(chat)[kind] for kind in ("inputs", "contents")}
        adapter = replace(plain, asset="lora_adapter", sections={"weights": weights}, **inputs)
        self.made.make(adapter, written("adapter_model.safetensors", weights))


def test_it_is_told_from_others_by_its_weights_and_its_template_and_not_by_rows(world):
    found = {}
    for name, made in {
        "first": {},
        "other rows": {"rows": "more"},
        "another template": {"template": "zephyr"},
        "another training": {"weights": "others"},
    }.items():
        world.make(**made)
        found[name] = [world.judging(f"name: {judge}").revision for judge in ("tuned", "tuned/base")]
    assert found["other rows"] == found["first"]
    assert found["another template"][0] != found["first"][0] and found["another template"][1] != found["first"][1]
    assert found["another training"][0] != found["first"][0] and found["another training"][1] == found["first"][1]
    assert "chat template chatml" in found["first"][1] and "lora_adapter" not in found["first"][1]
    assert world.judging("endpoint: 'https://lab.test/v1', name: fake") is None


def test_who_cannot_judge_is_said_with_what_to_write(world):
    world.make()
    for judge, told in {
        "name: tunde": r"no recipe 'tunde'; recipes are .*nearest is tuned.* write evaluation\.judge\.endpoint",
        "name: gpt-4o": r"For a model behind an API write evaluation\.judge\.endpoint",
        "name: examined": "which would judge itself. Write examined/base",
    }.items():
        with pytest.raises(FinetuningError, match=told):
            world.judging(judge)


def test_a_judge_that_learned_what_it_would_be_measured_by_is_refused(world):
    dataset = "dataset: {sources: [{feedback: said}], eval: {sources: [{hub: some/exam, format: messages}]}}"
    write(world.folder / "recipes", with_sections(dataset), "tuned")
    write(world.folder / "recipes", with_sections("lora: {from: tuned}"), "further")
    world.make()
    world.make(of="further")
    for judge in ("tuned", "further"):
        with pytest.raises(FinetuningError, match=f"tuned learned from the feedback 'said', by which {judge} would"):
            world.judging(f"name: {judge}, choices: said")
        assert world.judging(f"name: {judge}, choices: others")
        assert world.judging(f"name: {judge}/base, choices: said")


def test_weights_that_this_machine_cannot_hold_or_that_were_changed_are_found_before_the_training(world, monkeypatch):
    world.make()
    judging = world.judging()
    judging.require_room()
    judging.verify()
    large = replace(judging, base_model=replace(judging.base_model, bytes=1 << 50))
    with pytest.raises(FinetuningError, match=r"evaluation\.judge\.name: the weights of tuned take 1,073,741,824 MiB"):
        large.require_room()
    (judging.base_model.path / "model.safetensors").write_text("other")
    with pytest.raises(InfrastructureError, match="changed after it was written"):
        judging.verify()


def test_a_recipe_is_another_one_once_its_judge_is(world):
    adapters = {"tuned": "1"}
    world.examined("name: tuned")
    before = recipe_version("examined", adapters.get)
    adapters["tuned"] = "2"
    assert recipe_version("examined", adapters.get) != before
    for judge in ("name: tuned/base", "name: lab/model", "endpoint: 'https://lab.test/v1', name: tuned"):
        world.examined(judge)
        assert "@" not in recipe_version("examined", adapters.get)
