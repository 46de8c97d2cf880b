"""A recipe that names something else than what was made describes no publication, whatever its fingerprints say."""

import pytest

from assets.lineage import Line
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


def made(recipe, asset, folder, **resolved):
    """The artifact of an asset that was made by the recipe."""
    return Artifact(
        asset=asset,
        partition="a" * 16,
        inputs={},
        sections=sections(recipe, asset),
        resolved=resolved,
        fingerprint="a" * 16,
        path=folder,
        summary={},
        files={},
        versions={},
        bytes=0,
        seconds=0.0,
        created="",
    )


KNOWLEDGE = """\
summary: A model that answers from manuals
base_model: {repo: some/model, revision: main}
knowledge:
  documents: [{hub: some/manuals, revision: main}]
  passages: {max_tokens: 100}
  index: {method: hybrid}
  embedding: {repo: some/embedder, revision: main, query_prefix: "query: "}
dataset: {sources: [{hub: some/data}], eval: {sources: [{hub: some/questions}]}}
hub: {repo: some-adapter, license: mit}
"""


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("max_tokens: 100", "max_tokens: 99", r"knowledge\.passages\.max_tokens: 100, now 99 \(of passages"),
        ("method: hybrid", "method: bm25", r'knowledge\.index\.method: "hybrid", now "bm25" \(of retrieval_index'),
        ("query: ", "ask: ", r'knowledge\.embedding\.query_prefix: "query: ", now "ask: " \(of retrieval_index'),
        ("some/manuals", "other/manuals", r"knowledge\.documents: .*other/manuals.* \(of documents"),
        (
            "documents: [",
            "documents: [{generator: product-manuals}, ",
            r"knowledge\.documents: .*product-manuals.* \(of documents",
        ),
        (
            "manuals, revision: main",
            f"manuals, revision: {OTHER}",
            rf"knowledge\.documents\[0\]\.revision: {COMMIT}, now {OTHER} \(of documents",
        ),
        ("some/embedder", "other/embedder", r"embedding\.repo: some/embedder, now other/embedder \(of passages"),
        (
            "embedder, revision: main",
            f"embedder, revision: {OTHER}",
            rf"knowledge\.embedding\.revision: {COMMIT}, now {OTHER} \(of passages",
        ),
        ("repo: some/embedder, revision: main", "package: mine", r"embedding\.package: some/embedder, now mine"),
    ],
)
def test_what_is_known_and_was_edited_since_is_told_before_anything_is_published(tmp_path, before, after, told):
    recipe, embedding = recipe_of(tmp_path, KNOWLEDGE), {"source": "some/embedder", "revision": COMMIT}
    others = {asset: made(recipe, asset, tmp_path) for asset in ("raw_dataset", "chat_dataset", "lora_adapter")}
    line = Line(
        **others,
        quantized_base_model=made(recipe, "quantized_base_model", tmp_path),
        documents=made(recipe, "documents", tmp_path, revisions={"knowledge.documents[0]": COMMIT}),
        passages=made(recipe, "passages", tmp_path, embedding=embedding),
        retrieval_index=made(recipe, "retrieval_index", tmp_path, embedding=embedding),
    )
    require_recipe(recipe, *line.parts())
    assert before in KNOWLEDGE
    with pytest.raises(GateError, match=rf"mine\.yaml: not published: edited since .*{told}"):
        require_recipe(recipe_of(tmp_path, KNOWLEDGE.replace(before, after)), *line.parts())


def test_another_base_model_is_not_published_under_the_recipe(tmp_path):
    recipe = recipe_of(tmp_path, RECIPE)
    base = made(recipe, "quantized_base_model", tmp_path, base_model=RESOLVED["base_model"])
    require_recipe(recipe, base)
    edited = recipe_of(tmp_path, RECIPE.replace("some/model", "other/model"))
    with pytest.raises(GateError, match=r"edited since .*base_model\.repo: some/model, now other/model \(of quantized"):
        require_recipe(edited, base)
