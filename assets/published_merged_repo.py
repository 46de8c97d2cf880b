"""The asset `published_merged_repo`: the merged model on the hub, under the verdict on its adapter."""

from dataclasses import asdict

import dagster as dg

from assets.failures import explained
from assets.partitions import OWNERS, RECIPES
from assets.publishing_lock import hashes_of, published, require_recipe, verdict_on
from finetuning.errors import FinetuningError, GateError
from finetuning.hub.publication import AdapterPublicationSummary, PublicationSummary
from finetuning.merge.agreement import MergedSummary, faults
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run, title_of
from resources.artifacts import Artifacts
from resources.hub import Hub
from resources.store.artifact import Artifact


@dg.asset(
    partitions_def=RECIPES,
    group_name="publication",
    kinds={"huggingface", "file"},
    tags={"hub": "written"},
    owners=OWNERS,
    code_version="3",
)
def published_merged_repo(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    hub: Hub,
    merged_model: Artifact,
    published_repo: Artifact,
):
    """The merged model on the hub, beside the adapter and under its name with `-merged`, with the same exam.

    It is published only when the adapter passed that exam, and when the merged model was found to say the same.
    """
    with explained():
        recipe = load_for_run(context.partition_key)
        if recipe.merge is None:
            raise FinetuningError(f"{recipe.file} has no section merge.")
        behind = artifacts.lineage(published_repo, context.log.info)
        lora_adapter, evaluation_report = behind["lora_adapter"], behind["evaluation_report"]
        merged_model.require_inputs(lora_adapter)
        report = verdict_on(recipe, lora_adapter, evaluation_report)
        require_recipe(recipe, *behind.values(), merged_model)
        if missed := faults(recipe.merge, merged_model.read(MergedSummary)):
            raise GateError(f"{recipe.file}: merge: not published: {'; '.join(missed)}.")
        for artifact in (evaluation_report, merged_model, published_repo):
            artifact.verify()
        with hub.connect(log=context.log.warning) as connection:
            repo_id = connection.repo_id(f"{recipe.hub.repo}-merged")
            plan = artifacts.plan(
                context,
                sections=sections(recipe, "published_merged_repo"),
                resolved={"hub": connection.name, "repo_id": repo_id},
                inputs=[evaluation_report, merged_model, published_repo],
            )

            def write(folder):
                from finetuning.hub.endpoints import Endpoints
                from finetuning.hub.model_card import RepoVersion, merged_card, merged_header
                from finetuning.hub.modelfile import modelfile_of
                from finetuning.hub.published_repo import merged_files, require_valid

                adapter, merged = published_repo.read(AdapterPublicationSummary), merged_model.read(MergedSummary)
                version = RepoVersion(repo_id, plan.fingerprint, Endpoints.of(connection.name, connection.name))
                header = merged_header(recipe, repo_id, adapter.base.repo_id)
                require_valid(header, connection.endpoint, recipe.file)
                modelfile = merged.gguf and modelfile_of(recipe, merged_model.path, merged.gguf.file)
                texts = {
                    "README.md": merged_card(recipe, version, report, adapter, merged, modelfile),
                    "recipe.yaml": (published_repo.path / "recipe.yaml").read_text(),
                    **({"Modelfile": modelfile} if modelfile else {}),
                }
                files = merged_files(folder, merged_model.path, evaluation_report.path, texts)
                title, private = title_of(recipe), recipe.hub.private
                publication = connection.publish(repo_id, files, tag=plan.fingerprint, title=title, private=private)
                return PublicationSummary(**asdict(publication), files=hashes_of(files))

            artifact = plan.obtain(write, still_valid=lambda artifact: connection.has(artifact.summary))
            endpoint = connection.endpoint
        return published(artifact, endpoint)
