"""The asset `raw_dataset`: the rows that a recipe names, as their sources have them."""

import dagster as dg
import pandas as pd

from assets.mistakes import explained
from assets.partitions import BASE_MODELS, OWNERS
from finetuning.recipe import load
from resources.artifacts import Artifact, Artifacts
from resources.hub import Hub


@dg.asset(
    partitions_def=BASE_MODELS,
    group_name="data",
    kinds={"dataset", "huggingface"},
    owners=OWNERS,
    code_version="1",
)
@explained()
def raw_dataset(context: dg.AssetExecutionContext, artifacts: Artifacts, hub: Hub) -> dg.MaterializeResult[Artifact]:
    """The examples that the model will learn from, exactly as their authors published them.

    They are fetched once and kept, together with the version that they were published under, so that the same model can
    be trained again on the same examples.
    """
    from finetuning.source_revisions import resolve_all

    recipe = load(context.partition_key)
    with hub.connect() as connection:
        revisions = resolve_all(recipe.dataset, api=connection.api, where=recipe.file)

        def write(folder):
            from finetuning.sources import write_raw

            return write_raw(recipe.dataset, revisions, folder, api=connection.api, file=recipe.file)

        plan = artifacts.plan(
            context, sections={"dataset": recipe.dataset.model_dump(mode="json")}, resolved={"revisions": revisions}
        )
        artifact = plan.obtain(write)
    summary = artifact.summary
    return dg.MaterializeResult(
        value=artifact,
        data_version=dg.DataVersion(artifact.fingerprint),
        metadata={
            **artifact.metadata(),
            "rows": summary["rows"],
            "dagster/row_count": summary["rows"],
            "sources": dg.MetadataValue.md(pd.DataFrame(summary["sources"]).to_markdown(index=False)),
            "preview": dg.MetadataValue.json(summary["preview"]),
        },
    )
