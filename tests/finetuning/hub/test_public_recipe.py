"""The recipe as it is published: it is right, trains the same, and names nothing of the machine that trained."""

import pytest
import yaml

from finetuning.hub.public_recipe import public_recipe
from finetuning.public_names import public_path, without_secrets
from finetuning.recipe import loading as recipes
from finetuning.recipe.dataset import sources
from finetuning.recipe.loading import ROOT
from finetuning.recipe.recipe import Recipe

FILES = sorted((ROOT / "recipes").rglob("*.y*ml"))
ADAPTER, COMMIT = "a" * 16, "c" * 40


def published(recipe: Recipe, folder, on_hub: bool = True) -> Recipe:
    """The recipe that a reader of the published file has; every data set is at a commit of its own."""
    records = [{"stem": stem, "revision": f"{stem}@{COMMIT}"} for stem in sources(recipe.dataset)]
    text = public_recipe(recipe, ADAPTER, {"revision": COMMIT, "on_hub": on_hub}, records)
    path = folder / f"{recipe.name}.yaml"
    path.write_text(text)
    return recipes.load_file(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_the_same_when_it_is_read_back(path, tmp_path):
    recipe = recipes.load_file(path)
    again = published(recipe, tmp_path, on_hub=recipe.base_model.repo is not None)
    if recipe.base_model.repo:
        recipe = recipe.model_copy(update={"base_model": recipe.base_model.model_copy(update={"revision": COMMIT})})
    for stem, (source, _) in sources(again.dataset).items():
        assert source.revision == (f"{stem}@{COMMIT}" if source.hub else "main")
    assert again.model_dump(exclude={"dataset"}) == recipe.model_dump(exclude={"dataset"})


def test_the_processes_that_trained_are_written_whoever_asked_for_them(tmp_path):
    recipe = recipes.load_file(FILES[0])
    records = [{"stem": stem, "revision": COMMIT} for stem in sources(recipe.dataset)]
    training = {"processes": 4, "strategy": "fsdp"}
    text = public_recipe(recipe, ADAPTER, {"revision": COMMIT, "on_hub": True}, records, None, training)
    written = yaml.safe_load(text)["resources"]
    assert (written["workers"], written["strategy"]) == (4, "fsdp")


LOCAL = """\
summary: A model that answers
base_model: {repo: /home/me/models/llama, chat_template: /home/me/mine.jinja}
dataset:
  sources:
    - {files: [/home/me/rows.jsonl, "https://me:hunter2@host/more.jsonl?signature=hunter2"]}
    - {hub: some/data, format: messages}
  eval: {sources: [{files: [test/rows.jsonl]}]}
training: {tokens_per_step: 4096}
hub: {repo: some-adapter, license: mit}
"""


def test_what_lay_on_the_machine_is_there_by_name_alone(tmp_path):
    path = tmp_path / "local.yaml"
    path.write_text(LOCAL)
    recipe = recipes.load_file(path)
    again = published(recipe, tmp_path, on_hub=False)
    assert (again.base_model.repo, again.base_model.chat_template, again.base_model.revision) == (
        "llama",
        "mine.jinja",
        "main",
    )
    assert again.dataset.sources[0].files == ("rows.jsonl", "https://host/more.jsonl")
    assert again.dataset.eval.sources is not None and again.dataset.eval.sources[0].files == ("eval/rows.jsonl",)
    text = path.read_text()
    assert "home" not in text and "hunter2" not in text
    named = "base_model.repo, base_model.chat_template, dataset.sources[0].files, dataset.eval.sources[0].files"
    assert f"# {named}\n" in text


def test_a_default_that_a_key_has_taken_out_of_force_is_not_written(tmp_path):
    path = tmp_path / "local.yaml"
    path.write_text(LOCAL)
    recipe = recipes.load_file(path)
    assert published(recipe, tmp_path, on_hub=False).training == recipe.training
    written = yaml.safe_load(path.read_text())["training"]
    assert "per_device_train_batch_size" not in written and written["lr_scheduler_type"] == "cosine"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("/home/me/a.jsonl", "a.jsonl"),
        ("~/data/*.jsonl.gz", "*.jsonl.gz"),
        ("file:///home/me/a.jsonl", "a.jsonl"),
        ("local://me/a.jsonl", "a.jsonl"),
        ("zip://rows.csv::/home/me/a.zip", "zip://rows.csv::a.zip"),
        ("s3://bucket/rows.parquet", "s3://bucket/rows.parquet"),
        ("https://me:secret@host/a.jsonl?signature=secret", "https://host/a.jsonl"),
    ],
)
def test_an_address_that_others_can_reach_stays_and_a_folder_goes(address, shown):
    assert public_path(address) == shown


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://u:pa/ss@host/rows.jsonl", "https://host/rows.jsonl"),
        ("https://u:pa?ss@host/rows.jsonl", "https://host/rows.jsonl"),
        ("https://u:pa#ss@host/rows.jsonl?a=b", "https://host/rows.jsonl"),
        ("https://host?signature=a@b", "https://host"),
        ("https://host:80/rows.jsonl?signature=a@b", "https://host:80/rows.jsonl"),
        ("https://host:8080/a@b.jsonl", "https://host:8080/a@b.jsonl"),
        ("hf://datasets/a/b@main/rows.jsonl", "hf://datasets/a/b@main/rows.jsonl"),
    ],
)
def test_no_part_of_a_password_is_left_in_an_address(address, shown):
    assert without_secrets(address) == shown


def test_documents_have_their_commits_and_name_no_folder_of_the_machine(tmp_path):
    shipped = recipes.load_file(ROOT / "recipes" / "smollm2-135m-manuals.yaml")
    data = shipped.model_dump(mode="json", exclude_unset=True)
    data["knowledge"] = {
        "documents": [{"files": ["/home/me/manuals/**/*.md", "s3://bucket/a.md"]}, {"hub": "lab/pages"}],
        "embedding": {"repo": "/home/me/embedder"},
    }
    recipe = Recipe.model_validate(data)
    records = [{"stem": stem, "revision": COMMIT} for stem in sources(recipe.dataset)]
    records += [{"stem": f"knowledge.documents[{number}]", "revision": COMMIT} for number in range(2)]
    text = public_recipe(recipe, ADAPTER, {"revision": COMMIT, "on_hub": False}, records)
    written = yaml.safe_load(text)["knowledge"]
    assert written["documents"][0]["files"] == ["*.md", "s3://bucket/a.md"]
    assert written["documents"][1]["revision"] == COMMIT and written["embedding"]["repo"] == "embedder"
    assert "/home" not in text and "knowledge.documents[0].files, knowledge.embedding.repo" in text


def test_a_recipe_without_documents_says_nothing_of_them(tmp_path):
    recipe = recipes.load_file(ROOT / "recipes" / "smollm2-135m.yaml")
    records = [{"stem": stem, "revision": COMMIT} for stem in sources(recipe.dataset)]
    text = public_recipe(recipe, ADAPTER, {"revision": COMMIT, "on_hub": False}, records)
    assert not {"knowledge", "context"} & yaml.safe_load(text).keys()
