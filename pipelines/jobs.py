"""Jobs: named selections of assets that can be launched and scheduled."""

import dagster as dg

from assets.partitions import BASE_MODELS

main_line = dg.define_asset_job(
    "main_line",
    selection=dg.AssetSelection.all(),
    partitions_def=BASE_MODELS,
    description="From raw data to a published, evaluated adapter, for one base model. Rebuilds only what changed.",
)
JOBS = [main_line]
