"""The asset `passages`: the documents, cut at headings and paragraphs."""

import dagster as dg

from assets.checks import results, specs
from assets.failures import RETRIES, explained
from assets.materialized import materialized
from assets.partitions import OWNERS, RECIPES
from finetuning.checks.judgement import PASSAGE_CHECKS, judge, require
from finetuning.knowledge.summaries import DocumentsSummary, PassagesSummary
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run
from resources.artifacts import Artifacts
from resources.hub import Hub
from resources.store.artifact import Artifact

PREVIEWED = 5
HIDDEN = "None is shown: each document seems to hold a secret."


@dg.asset(
    partitions_def=RECIPES,
    group_name="knowledge",
    kinds={"parquet"},
    tags={"hub": "read"},
    owners=OWNERS,
    retry_policy=RETRIES,
    code_version="1",
    check_specs=specs("passages", PASSAGE_CHECKS),
)
@explained()
def passages(context: dg.AssetExecutionContext, artifacts: Artifacts, hub: Hub, documents: Artifact):
    """The documents in parts that are short enough to be shown to the model beside a question.

    A part ends where a paragraph does, and knows the headings above it.
    """
    from finetuning.knowledge.embedding import fetch, require_room, resolve

    recipe = load_for_run(context.partition_key)
    require(judge(documents.read(DocumentsSummary).checks, recipe))
    knowledge = recipe.knowledge
    assert knowledge is not None  # or there were no documents
    with hub.connect_source() as api:
        model = resolve(knowledge.embedding, api, recipe.file)

        def write(folder):
            from finetuning.knowledge.embedding import Embedder
            from finetuning.knowledge.passages import write_passages

            documents.verify()
            embedder = Embedder(fetch(knowledge.embedding, model, api, recipe.file), knowledge.embedding, recipe.file)
            require_room(embedder, knowledge.passages.max_tokens, recipe.file)
            return write_passages(documents.path, folder, knowledge.passages, embedder.count)

        artifact = artifacts.plan(
            context, sections=sections(recipe, "passages"), resolved={"embedding": model}, inputs=[documents]
        ).obtain(write)
    summary = artifact.read(PassagesSummary)
    if summary.without_text:
        context.log.warning(f"{summary.without_text} of {summary.documents} documents have headings alone")
    return materialized(artifact, metadata_of(artifact, documents), results(context, judge(summary.checks, recipe)))


def metadata_of(artifact: Artifact, documents: Artifact) -> dict:
    """What the UI shows of the passages: counts, lengths, and the first ones of documents without a secret."""
    from finetuning.knowledge.documents import with_secrets
    from finetuning.knowledge.passages import first_passages
    from finetuning.secrets import masked

    summary = artifact.read(PassagesSummary)
    first = first_passages(artifact.path, PREVIEWED, with_secrets(documents.path)).to_pandas()
    first["document"] = first["document"].map(masked)
    return {
        "passages": summary.passages,
        "dagster/row_count": summary.passages,
        "mean_tokens": summary.mean,
        "longest_tokens": summary.longest,
        "preview": dg.MetadataValue.md(first.to_markdown(index=False) if len(first) else HIDDEN),
    }
