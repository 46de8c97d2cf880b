"""The asset `published_repo`: adapter, tokenizer, card and report on the hub, if the verdict on this adapter allows."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from assets.mistakes import explained
from assets.partitions import BASE_MODELS, OWNERS
from assets.verdicts import published, require_beside, verdict_on
from finetuning.recipe import Recipe, load
from resources.artifacts import Artifact, Artifacts
from resources.hub import Hub, HubConnection

if TYPE_CHECKING:
    from finetuning.model_card import Base


@dg.asset(
    partitions_def=BASE_MODELS,
    group_name="proof",
    kinds={"huggingface", "file"},
    owners=OWNERS,
    code_version="1",
)
@explained()
def published_repo(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    hub: Hub,
    raw_dataset: Artifact,
    chat_dataset: Artifact,
    quantized_base_model: Artifact,
    lora_adapter: Artifact,
    evaluation_report: Artifact,
) -> dg.MaterializeResult[Artifact]:
    """The tuned model on the hub, where others can load it, with its exam beside it.

    It is only ever published after it passed that exam itself: a failed exam, or one that another version of the model
    took, stops it here.
    """
    recipe = load(context.partition_key)
    chat_dataset.require_inputs(raw_dataset)
    lora_adapter.require_inputs(chat_dataset, quantized_base_model)
    evaluation_report.require_inputs(quantized_base_model)
    report = verdict_on(recipe, lora_adapter, evaluation_report)
    for artifact in (evaluation_report, lora_adapter, quantized_base_model):
        artifact.verify()
    with hub.connect(log=context.log.warning) as connection:
        plan = artifacts.plan(
            context,
            sections={"hub": recipe.hub.model_dump(mode="json"), "summary": recipe.summary},
            resolved={"hub": connection.name, "repo_id": connection.repo_id(recipe.hub.repo)},
            inputs=[raw_dataset, chat_dataset, quantized_base_model, lora_adapter, evaluation_report],
        )

        def write(folder):
            from finetuning.model_card import model_card
            from finetuning.publication import adapter_files

            require_beside(recipe, connection, lora_adapter, report)
            base = base_of(recipe, connection, quantized_base_model, folder)
            repo_id = connection.repo_id(recipe.hub.repo)
            summaries = lora_adapter.summary, chat_dataset.summary, raw_dataset.summary["sources"]
            card = model_card(recipe, repo_id, plan.fingerprint, base, report, *summaries)
            files = adapter_files(folder, lora_adapter.path, evaluation_report.path, base, card)
            publication = connection.publish(
                repo_id, files, tag=plan.fingerprint, title=f"Publish {recipe.name}", private=recipe.hub.private
            )
            return {**asdict(publication), "base": asdict(base)}

        artifact = plan.obtain(write, still_valid=lambda artifact: connection.has(artifact.summary))
        endpoint = connection.endpoint
    return published(artifact, endpoint)


def base_of(recipe: Recipe, connection: HubConnection, base_model: Artifact, folder: Path) -> "Base":
    """Where the adapter's base model is on the hub; one that came from a package or folder is published there first."""
    from finetuning.base_model import repo_name
    from finetuning.model_card import Base, base_card
    from finetuning.publication import base_files

    resolved = base_model.resolved["base_model"]
    if resolved["on_hub"]:
        return Base(resolved["source"], resolved["revision"], on_hub=True)
    source = f"{Path(resolved['source']).name} ({resolved['revision']})"  # of a folder, no more than its name
    files = base_files(folder, base_model.path, base_card(recipe.base_model, source))
    repo_id = connection.repo_id(repo_name(recipe.base_model))
    private = recipe.hub.private and not connection.is_public(repo_id)  # other adapters may need it public
    publication = connection.publish(
        repo_id, files, tag=base_model.fingerprint, title="Publish base model", private=private
    )
    return Base(publication.repo_id, publication.commit, on_hub=False)
