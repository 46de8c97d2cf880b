"""Finds what an assistant speaks with: the artifacts of a recipe, or what a hub's repo holds.

>>> of_recipe("phi-2", artifacts).source
"lora_adapter/phi-2/8adf0c…"
>>> of_repo("lab/phi-2-basic-maths", None, hub).source
"lab/phi-2-basic-maths at 3f1c… on http://127.0.0.1:8765"
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetuning.assistant.source import Source
from finetuning.digests import sha256
from finetuning.errors import FinetuningError, UnknownRepoError
from finetuning.evaluation.report import Proof, Verdict
from finetuning.evaluation.verdict import read_report, verdict_in_words
from finetuning.recipe.loading import load_file
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run
from finetuning.settings import variable
from resources.artifacts import Artifacts
from resources.hub import Hub
from resources.hub_client.connection import HubConnection
from resources.hub_client.versions import REPORT, WEIGHTS, head_of
from resources.store.artifact import Artifact

if TYPE_CHECKING:
    from huggingface_hub import HfApi

EXAMPLES = 4  # questions of the exam that a person may begin with
NOT_HERE = "; its documents are not here, so that questions are asked without passages"
UNTOLD = "not examined: no evaluation_report is about these weights"


def of_recipe(name: str, artifacts: Artifacts, hub: Hub) -> Source:
    """Return the adapter in force of a recipe, with the base model and tokenizer that it was made from.

    Raises:
        FinetuningError: there is no such recipe, no adapter, or a file of it is not what was written.
    """
    recipe = load_for_run(name)
    adapter = artifacts.held("lora_adapter", name)
    line = artifacts.lineage(adapter)
    index = line.get("retrieval_index")
    require_same_context(recipe, line["chat_dataset"], index)
    for artifact in (adapter, line["chat_dataset"], line["quantized_base_model"], *([index] if index else [])):
        artifact.verify()
    return Source(
        name=name,
        recipe=recipe,
        base_model=line["quantized_base_model"].path,
        adapter=adapter.path,
        tokenizer=line["chat_dataset"].path / "tokenizer",
        source=f"lora_adapter/{name}/{adapter.fingerprint}",
        verdict=_verdict_on(adapter, artifacts),
        examples=tuple(_questions(line["chat_dataset"].path)),
        index=index and index.path,
        embedding=_embedding_of(index, recipe, hub) if index else None,
    )


def require_same_context(recipe: Recipe, chat_dataset: Artifact, index: Artifact | None) -> None:
    """Check that the recipe asks as the adapter was asked when it was trained.

    Raises:
        FinetuningError: its sections on documents have changed since.
    """
    was = chat_dataset.sections.get("context")
    if was != sections(recipe, "chat_dataset").get("context") or bool(recipe.knowledge) != bool(index):
        raise FinetuningError(
            f"{recipe.file}: knowledge or context is another one than when the adapter was trained, which would be "
            f"asked as it never was: materialize {recipe.name} again, or take the change back."
        )


def _embedding_of(index: Artifact, recipe: Recipe, hub: Hub) -> Path | None:
    """Return the folder of the embedding model that the index was made with; None for one by words alone."""
    resolved = index.resolved.get("embedding")
    if not resolved:
        return None
    from finetuning.knowledge.embedding import fetch_same

    with hub.connect_source() as api:
        return fetch_same(recipe, resolved, api)


def of_published(name: str, hub: Hub) -> Source:
    """Return the version of a recipe's repo that is in force on the hub.

    Raises:
        FinetuningError: there is no such recipe, nothing was published of it, or the hub does not answer.
    """
    recipe = load_for_run(name)
    with hub.connect() as connection:
        head = head_of(connection, connection.repo_id(recipe.hub.repo))
        if head is None:
            raise FinetuningError(
                f"{connection.endpoint} has no repo {connection.repo_id(recipe.hub.repo)}: nothing was published of "
                f"{name} yet. Leave --published out to talk to the adapter on this machine."
            )
    return of_repo(head.repo_id, head.commit, hub)


def of_repo(repo_id: str, revision: str | None, hub: Hub) -> Source:
    """Download what a repo of the hub that is published to holds, with its base model.

    Args:
        revision: a branch, tag or commit; None for the version in force.

    Raises:
        FinetuningError: there is no such repo or revision, it was not made by this pipeline, its weights are not those
            that its report is about, or a hub does not answer.
    """
    with hub.connect() as connection:
        folder, commit = _downloaded(connection, repo_id, revision)
        recipe_file = folder / "recipe.yaml"
        if not recipe_file.is_file():
            raise FinetuningError(
                f"{repo_id} on {connection.endpoint} has no recipe.yaml: nobody can tell how it is to be asked. Name a "
                "repo that this pipeline published."
            )
        recipe = load_file(recipe_file)
        config = folder / "adapter_config.json"
        settings = json.loads(config.read_text()) if config.is_file() else None
        base = _base_of(settings, connection, hub) if settings else folder
    on_hub = settings is not None and settings["base_model_name_or_path"] == recipe.base_model.repo
    return Source(
        name=repo_id.rpartition("/")[2],
        recipe=recipe,
        base_model=base,
        adapter=folder if settings else None,
        tokenizer=folder,
        source=f"{repo_id} at {commit[:12]} on {connection.endpoint}",
        verdict=_verdict_in(folder, repo_id, whole=settings is not None) + (NOT_HERE if recipe.knowledge else ""),
        quantize=on_hub and recipe.base_model.quantization is not None,
    )


def _downloaded(connection: HubConnection, repo_id: str, revision: str | None) -> tuple[Path, str]:
    """Return the folder with the repo's files at that revision, and the commit."""
    api = connection.api

    def fetch() -> tuple[Path, str]:
        commit = api.model_info(repo_id, revision=revision).sha
        left_out = ["runs/*", "*.gguf"]
        return Path(api.snapshot_download(repo_id, revision=commit, ignore_patterns=left_out)), str(commit)

    return connection.patiently(lambda ask: ask(fetch), f"{repo_id} at {revision}" if revision else repo_id)


def _base_of(settings: dict[str, Any], connection: HubConnection, hub: Hub) -> Path:
    """Return the folder of the base model that an adapter names: on its own hub, or where models are read from."""
    from finetuning.hub_errors import explain

    repo_id, revision = settings["base_model_name_or_path"], settings.get("revision")

    def fetch(api: "HfApi") -> Path:
        return Path(api.snapshot_download(repo_id, revision=revision))

    try:
        return connection.patiently(lambda ask: ask(lambda: fetch(connection.api)), repo_id)
    except UnknownRepoError:
        pass  # a public base model is where models are read from
    with hub.connect_source(api_only=True) as api:
        try:
            return fetch(api)
        except Exception as error:
            has_token, setting = bool(api.token), variable("source_hub")
            mistake = explain(error, repo_id, api.endpoint, has_token=has_token, setting=setting)
        raise mistake  # out here: the client's own error may hold the token


def _verdict_on(adapter: Artifact, artifacts: Artifacts) -> str:
    """Return what the report in force says of the adapter, if it is about these very weights."""
    try:
        found = artifacts.current("evaluation_report", adapter.partition)
        report = read_report(found.path)
    except FinetuningError:
        return UNTOLD
    known = {name: adapter.files.get(name) for name in report.files}
    return _in_words(report.verdict) if report.adapter == adapter.fingerprint and known == report.files else UNTOLD


def _verdict_in(folder: Path, repo_id: str, whole: bool) -> str:
    """Return what the report that was published with a model says of it.

    Raises:
        FinetuningError: it is about other weights.
    """
    path = folder / REPORT
    if not path.is_file():
        return UNTOLD
    proof = Proof.model_validate_json(path.read_bytes())
    known = proof.files.get(WEIGHTS) if whole else None
    if known and sha256(folder / WEIGHTS) != known:
        raise FinetuningError(
            f"{repo_id}: its report is about weights with the sha256 {known}, and other ones lie there. Name another "
            "revision."
        )
    return _in_words(proof.verdict)


def _in_words(verdict: Verdict) -> str:
    return f"{verdict_in_words(verdict)}: {'; '.join(verdict.reasons)}"


def _questions(chat_dataset: Path) -> Iterator[str]:
    """Yield the first questions of the exam that one person asks at once."""
    from pyarrow.parquet import read_schema

    from finetuning.evaluation.references import exam_rows

    bare = ["asked"] if "asked" in read_schema(chat_dataset / "eval.parquet").names else []
    for row in exam_rows(chat_dataset, EXAMPLES, *bare).to_pylist():
        messages = row[bare[0] if bare else "messages"]
        asked = [message["content"] for message in messages if message["role"] == "user"]
        if len(asked) == 1 and len(asked[0]) < 500:
            yield asked[0]
