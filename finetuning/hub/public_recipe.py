"""The recipe of a run as it is published: one that trains the same again, wherever its data can be had.

Every default is written out and every revision is the commit that was used.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from finetuning.paths import is_path
from finetuning.public_names import public_path
from finetuning.recipe.dataset import sources
from finetuning.recipe.knowledge import KnowledgeSpec
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.rules import contradictions

HEAD = """\
# The recipe of adapter {adapter}: every default written out, every revision the commit that was used.
# Check it with `python -m finetuning.recipe validate recipe.yaml`.
"""
SMOKE = "# A smoke run: cut down to few rows and steps. It is not what the model was meant to be trained by.\n"
SOME_ENDPOINT = "https://judge.example/v1"
LOCAL = """\
# By name alone, since it lay on the machine that trained; write where it lies on yours:
# {keys}
"""


def public_recipe(
    recipe: Recipe,
    adapter: str,
    base_model: Mapping[str, Any],
    records: Iterable[Mapping],
    start: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> str:
    """The YAML of the recipe, which `recipe.load_file` reads.

    Args:
        adapter: its fingerprint.
        base_model: what it resolved to: `revision`, `on_hub`.
        records: of each data set `stem` and `revision`, and so of each collection of documents, by its place.
        start: the adapter that training went on from: `kind`, `source`, `revision`, and what it decides of `lora`.
        training: what is known of the training: `processes`, and the `strategy` of several; None where none was.
    """
    data = with_defaults(recipe)
    revisions = {record["stem"]: record["revision"] for record in records}
    local = []
    if training and training["processes"] > 1:
        # Each of them had rows of its own in every step.
        data["resources"] |= {"workers": training["processes"], "strategy": training["strategy"]}
    if base_model["on_hub"]:
        data["base_model"]["revision"] = base_model["revision"]
    elif data["base_model"]["repo"]:
        local += without_folder(data["base_model"], "repo", "base_model")
    local += without_folder(data["base_model"], "chat_template", "base_model")
    if start:
        data["lora"] |= start["lora"]
        if start["kind"] == "repo":
            data["lora"]["from"] = f"{start['source']}@{start['revision']}"
        elif start["kind"] == "folder":
            local += without_folder(data["lora"], "from", "lora")
    written = [*data["dataset"]["sources"], *(data["dataset"]["eval"]["sources"] or ())]
    for (stem, (source, place)), section in zip(sources(recipe.dataset).items(), written, strict=True):
        if source.hub:
            section["revision"] = revisions[stem]
        if source.files:
            # Files of train and eval often have one name, and the same rows in both would be a mistake.
            local += without_folder(section, "files", place, under="eval/" if stem.startswith("eval") else "")
    if recipe.evaluation.judge and recipe.evaluation.judge.endpoint is None:
        local.append("evaluation.judge.name")
    elif recipe.evaluation.judge:
        # It may be an address of a network that is nobody else's.
        data["evaluation"]["judge"]["endpoint"] = SOME_ENDPOINT
        local.append("evaluation.judge.endpoint")
    if recipe.knowledge:
        local += _documents(recipe.knowledge, data["knowledge"], revisions)
    text = HEAD.format(adapter=adapter) + SMOKE * recipe.smoke + (LOCAL.format(keys=", ".join(local)) if local else "")
    return text + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)


def _documents(knowledge: KnowledgeSpec, section: dict[str, Any], revisions: Mapping[str, str]) -> list[str]:
    """Write the revisions of documents and embedding model; return the keys that name something by its name alone."""
    local = []
    for number, (spec, written) in enumerate(zip(knowledge.documents, section["documents"], strict=True)):
        place = f"knowledge.documents[{number}]"
        if spec.hub:
            written["revision"] = revisions[place]
        if spec.files:
            local += without_folder(written, "files", place)
    repo = knowledge.embedding.repo
    if repo and (is_path(repo) or Path(repo).is_dir()):
        local += without_folder(section["embedding"], "repo", "knowledge.embedding")
    elif repo:
        section["embedding"]["revision"] = revisions["knowledge.embedding"]
    return local


def with_defaults(recipe: Recipe) -> dict[str, Any]:
    """The recipe's data with each default but those that a key of the recipe has taken out of force."""
    none = {"knowledge", "context"} if recipe.knowledge is None else set[str]()
    data = recipe.model_dump(mode="json", exclude={"name", "schedule", "feedback"} | none)
    for (*steps, key), _ in list(contradictions(data)):
        section: Any = data
        for step in steps:
            section = section[step]
        section.pop(key)
    return data


def without_folder(section: dict[str, Any], key: str, place: str, under: str = "") -> list[str]:
    """The key's place, where it named something on this machine, and does so by its name alone now; else nothing."""
    value = section[key]
    paths = value if isinstance(value, list) else [value]
    names = [name if "://" in name else under + name for name in map(public_path, paths)]
    section[key] = names if isinstance(value, list) else names[0]
    return [f"{place}.{key}"] if names != paths else []
