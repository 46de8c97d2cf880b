"""The asset `documents`: what a recipe's answers are looked up in, as Markdown."""

import dagster as dg

from assets.checks import results, specs
from assets.external_assets import DOCUMENT_SOURCES, RECIPE
from assets.failures import RETRIES, explained
from assets.materialized import materialized
from assets.partitions import OWNERS, RECIPES
from finetuning.checks.judgement import DOCUMENT_CHECKS, judge
from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.knowledge.summaries import DocumentsSummary
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run
from resources.artifacts import Artifacts
from resources.hub import Hub
from resources.store.artifact import Artifact


@dg.asset(
    deps=[RECIPE, DOCUMENT_SOURCES],
    partitions_def=RECIPES,
    group_name="knowledge",
    kinds={"markdown"},
    tags={"hub": "read"},
    owners=OWNERS,
    retry_policy=RETRIES,
    code_version="2",
    check_specs=specs("documents", DOCUMENT_CHECKS),
)
@explained()
def documents(context: dg.AssetExecutionContext, artifacts: Artifacts, hub: Hub):
    """The documents that the model is to answer from, as text.

    Of each file or page the text that a person reads is kept, with its headings. One that no text can be read from is
    listed, with the reason.
    """
    from finetuning.knowledge.documents import resolve_all, write_documents

    recipe = load_for_run(context.partition_key)
    if recipe.knowledge is None:
        raise FinetuningError(f"{recipe.file}: there is no section knowledge, so that there are no documents.")
    with hub.connect_source() as api:
        revisions = resolve_all(recipe, api)

        def write(folder):
            summary = write_documents(recipe, revisions, folder, api)
            if resolve_all(recipe, api) != revisions:
                raise InfrastructureError(
                    f"{recipe.file}: knowledge: a document changed while it was read. Run it again."
                )
            return summary

        plan = artifacts.plan(context, sections=sections(recipe, "documents"), resolved={"revisions": revisions})
        artifact = plan.obtain(write)
    return materialized(
        artifact, metadata_of(artifact), results(context, judge(artifact.read(DocumentsSummary).checks, recipe))
    )


def metadata_of(artifact: Artifact) -> dict:
    """What the UI shows of the documents: counts, where they come from, and those that could not be read."""
    import pandas as pd

    summary = artifact.read(DocumentsSummary)
    unreadable = pd.DataFrame(summary.unreadable_examples, columns=["name", "reason"])
    return {
        "documents": summary.documents,
        "dagster/row_count": summary.documents,
        "characters": summary.characters,
        "unreadable": summary.unreadable,
        "collections": dg.MetadataValue.md(pd.DataFrame(summary.collections).to_markdown(index=False)),
        "unreadable_documents": dg.MetadataValue.md(
            unreadable.to_markdown(index=False) if len(unreadable) else "Text was read from every document."
        ),
    }
