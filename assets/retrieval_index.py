"""The asset `retrieval_index`: finds the passages for a question."""

import dagster as dg

from assets.failures import RETRIES, explained
from assets.materialized import materialized
from assets.partitions import OWNERS, RECIPES
from finetuning.errors import FinetuningError
from finetuning.knowledge.summaries import IndexSummary
from finetuning.progress import Progress
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run
from resources.artifacts import Artifacts
from resources.hub import Hub
from resources.store.artifact import Artifact
from resources.store.plan import checkpoints_of


@dg.asset(
    partitions_def=RECIPES,
    group_name="knowledge",
    kinds={"numpy"},
    tags={"hub": "read"},
    owners=OWNERS,
    retry_policy=RETRIES,
    code_version="1",
)
@explained()
def retrieval_index(context: dg.AssetExecutionContext, artifacts: Artifacts, hub: Hub, passages: Artifact):
    """What finds the passages that a question is asked with, by their words and by what they mean.

    Of documents that changed, only the passages that are others are read by the embedding model again, and what a run
    has read that was ended is not read once more.
    """
    from finetuning.knowledge.embedding import fetch, resolve

    recipe = load_for_run(context.partition_key)
    knowledge = recipe.knowledge
    assert knowledge is not None  # or there were no passages
    with_vectors = knowledge.index.method != "bm25"
    with hub.connect_source() as api:
        model = resolve(knowledge.embedding, api, recipe.file) if with_vectors else None

        def write(folder):
            from finetuning.knowledge.embedding import Embedder
            from finetuning.knowledge.index import Vectors, write_index

            passages.verify()
            vectors = None
            if model:
                embedder = Embedder(
                    fetch(knowledge.embedding, model, api, recipe.file), knowledge.embedding, recipe.file
                )
                name = f"{model['source']} {model['revision']} {knowledge.embedding.passage_prefix!r}"
                vectors = Vectors(embedder, name, before(context, artifacts), checkpoints_of(folder))
            with Progress(context.log.info, "indexing passages") as progress:
                return write_index(passages.path, folder, knowledge, vectors, progress)

        artifact = artifacts.plan(
            context,
            sections=sections(recipe, "retrieval_index"),
            resolved={"embedding": model} if model else {},
            inputs=[passages],
        ).obtain(write)
    summary = artifact.read(IndexSummary)
    return materialized(artifact, summary.model_dump(exclude={"version"}))


def before(context: dg.AssetExecutionContext, artifacts: Artifacts):
    """The folder of the index in force until now; None where there is none."""
    try:
        return artifacts.held("retrieval_index", context.partition_key, context.log.info).path
    except FinetuningError:
        return None
