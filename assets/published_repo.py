"""The asset `published_repo`: adapter, card, recipe and report on the hub, if the verdict on this adapter allows."""

from dataclasses import asdict
from pathlib import Path

import dagster as dg

from assets.failures import explained
from assets.lineage import Line, weights_of
from assets.partitions import OWNERS, RECIPES
from assets.publishing_lock import hashes_of, published, require_beside, require_recipe, verdict_on
from finetuning.hub.publication import AdapterPublicationSummary, Base
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run, smoke_repo, title_of
from resources.artifacts import Artifacts
from resources.hub import Hub
from resources.hub_client.connection import HubConnection
from resources.store.artifact import Artifact


@dg.asset(
    partitions_def=RECIPES,
    group_name="publication",
    kinds={"huggingface", "file"},
    tags={"hub": "written"},
    owners=OWNERS,
    code_version="3",
)
@explained()
def published_repo(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    hub: Hub,
    evaluation_report: Artifact,
) -> dg.MaterializeResult[Artifact]:
    """The tuned model on the hub, where others can load it, with its exam beside it.

    It is only ever published after it passed that exam itself: a failed exam, or one that another version of the model
    took, stops it here.
    """
    recipe = load_for_run(context.partition_key)
    report = verdict_on(recipe, artifacts.held("lora_adapter", recipe.name, context.log.info), evaluation_report)
    line = Line.behind(evaluation_report, artifacts, context.log.info)
    require_recipe(recipe, *line.parts())
    recipe = line.settled(recipe)
    made_of = [line.chat_dataset, line.quantized_base_model, line.lora_adapter, evaluation_report]
    for artifact in made_of:
        artifact.verify()
    with hub.connect(log=context.log.warning) as connection:
        plan = artifacts.plan(
            context,
            sections=sections(recipe, "published_repo"),
            # Other weights are another version, with a tag of its own.
            resolved={
                "hub": connection.name,
                "repo_id": connection.repo_id(recipe.hub.repo),
                "weights": weights_of(line.lora_adapter),
            },
            inputs=[line.raw_dataset, *made_of],
        )

        def write(folder):
            from finetuning.hub.endpoints import Endpoints
            from finetuning.hub.model_card import RepoVersion, adapter_header, model_card
            from finetuning.hub.public_recipe import public_recipe
            from finetuning.hub.published_repo import adapter_files, require_valid

            beside = require_beside(recipe, artifacts, connection, line.lora_adapter, report, context.log.info)
            made = line.made()
            repo_id, base_repo = (
                connection.repo_id(recipe.hub.repo),
                base_repo_of(recipe, connection, line.quantized_base_model),
            )
            header = adapter_header(recipe, repo_id, base_repo, report, made)
            require_valid(header, connection.endpoint, recipe.file)
            base = base_of(recipe, connection, line.quantized_base_model, folder)
            endpoints = Endpoints.of(connection.name, hub.source if base.on_hub else connection.name)
            version = RepoVersion(repo_id, plan.fingerprint, endpoints)
            texts = {
                "README.md": model_card(recipe, version, base, report, made, header),
                "recipe.yaml": public_recipe(
                    recipe,
                    made.adapter,
                    made.base_model,
                    [*made.sources, *made.documents, *line.embedding()],
                    made.start,
                    None if made.merge else made.training,
                ),
            }
            files = adapter_files(folder, line.lora_adapter.path, evaluation_report.path, base, texts, recipe.name)
            publication = connection.publish(
                repo_id,
                files,
                tag=plan.fingerprint,
                title=title_of(recipe),
                private=recipe.hub.private,
                onto=beside,
            )
            return AdapterPublicationSummary(
                **asdict(publication), files=hashes_of(files), base=base, proof=report.proof()
            )

        artifact = plan.obtain(write, still_valid=lambda artifact: connection.has(artifact.summary))
        endpoint = connection.endpoint
    return published(artifact, endpoint)


def base_repo_of(recipe: Recipe, connection: HubConnection, base_model: Artifact) -> str:
    """The repo of the adapter's base model: its own, or where one that came from a package or folder is published."""
    from finetuning.base_model.source import repo_name

    resolved = base_model.resolved["base_model"]
    if resolved["on_hub"]:
        return resolved["source"]
    name = repo_name(recipe.base_model, base_model.fingerprint)
    return connection.repo_id(smoke_repo(name) if recipe.smoke else name)


def base_of(recipe: Recipe, connection: HubConnection, base_model: Artifact, folder: Path) -> Base:
    """Where the adapter's base model is on the hub; one that came from a package or folder is published there first."""
    from finetuning.hub.model_card import base_card
    from finetuning.hub.published_repo import base_files
    from finetuning.public_names import public_base

    resolved = base_model.resolved["base_model"]
    repo_id = base_repo_of(recipe, connection, base_model)
    if resolved["on_hub"]:
        return Base(repo_id, resolved["revision"], on_hub=True)
    card = base_card(repo_id.rpartition("/")[2], f"{public_base(resolved)} ({resolved['revision']})")
    files = base_files(folder, base_model.path, card)
    private = recipe.hub.private and not connection.is_public(repo_id)  # other adapters may need it public
    publication = connection.publish(
        repo_id, files, tag=base_model.fingerprint, title="Publish base model", private=private
    )
    return Base(publication.repo_id, publication.commit, on_hub=False)
