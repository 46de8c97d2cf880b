"""The asset `raw_dataset`: the rows that a recipe names, as their sources have them."""

import dagster as dg

from assets.checks import results, specs
from assets.external_assets import DATASET_SOURCES, RECIPE
from assets.failures import RETRIES, explained
from assets.materialized import materialized
from assets.partitions import OWNERS, RECIPES
from assets.tables import columns_of
from finetuning.checks.judgement import RAW_CHECKS, judge
from finetuning.dataset.raw_summary import RawSummary
from finetuning.errors import InfrastructureError
from finetuning.recipe.benchmark_names import require_names
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run
from resources.artifacts import Artifacts
from resources.hub import Hub
from resources.store.artifact import Artifact

COLUMNS = {
    "file": "where the row comes from: a file, or the source itself",
    "line": "its place there, counted from 1",
    "row": "the row as its authors have it, one JSON object",
}


@dg.asset(
    deps=[RECIPE, DATASET_SOURCES],
    partitions_def=RECIPES,
    group_name="data",
    kinds={"dataset", "huggingface"},
    tags={"hub": "read"},
    owners=OWNERS,
    retry_policy=RETRIES,
    code_version="2",
    check_specs=specs("raw_dataset", RAW_CHECKS),
)
@explained()
def raw_dataset(context: dg.AssetExecutionContext, artifacts: Artifacts, hub: Hub):
    """The examples that the model will learn from, exactly as their authors published them.

    They are fetched once and kept, together with the version that they were published under, so that the same model can
    be trained again on the same examples. A line that no example can be read from is kept beside them, with the reason.
    """
    from finetuning.dataset.format_recognition import recognise_all
    from finetuning.dataset.revisions import resolve_all

    recipe = load_for_run(context.partition_key)
    with hub.connect_source() as api:
        revisions = resolve_all(recipe.dataset, api=api, where=recipe.file)

        def write(folder):
            from finetuning.dataset.raw_dataset import write_raw

            require_names(recipe.evaluation, recipe.file)
            method = recipe.training.method
            summary = write_raw(recipe.dataset, revisions, folder, api=api, file=recipe.file, method=method)
            if resolve_all(recipe.dataset, api=api, where=recipe.file) != revisions:
                raise InfrastructureError(f"{recipe.file}: dataset: a source changed while it was read. Run it again.")
            return summary

        plan = artifacts.plan(context, sections=sections(recipe, "raw_dataset"), resolved={"revisions": revisions})
        artifact = plan.obtain(write)
    # Of rows that were there already too: their format is no part of what they are, and may have been changed.
    formats = recognise_all(artifact.path, recipe.dataset, recipe.file, recipe.training.method)
    return materialized(
        artifact, metadata_of(artifact, formats), results(context, judge(artifact.read(RawSummary).checks, recipe))
    )


def metadata_of(artifact: Artifact, formats: dict[str, str]) -> dict:
    """What the UI shows of the rows: counts, sources, the first rows, and the first lines that are none."""
    import pandas as pd

    summary = artifact.read(RawSummary)
    sources = pd.DataFrame(summary.sources).assign(format=list(formats.values()))
    unreadable = pd.DataFrame(summary.unreadable_examples, columns=["place", "reason", "text"])
    return {
        "rows": summary.rows,
        "dagster/row_count": summary.rows,
        "sources": dg.MetadataValue.md(
            sources[["source", "revision", "format", "rows", "unreadable"]].to_markdown(index=False)
        ),
        "unreadable": summary.unreadable,
        "unreadable_rows": dg.MetadataValue.md(
            unreadable.to_markdown(index=False) if len(unreadable) else "Every line is a row."
        ),
        "preview": dg.MetadataValue.json(summary.preview),
        "dagster/column_schema": columns_of(artifact.path / "train-00.parquet", COLUMNS),
    }
