"""Jobs: named selections of assets that can be launched and scheduled."""

import dagster as dg

from assets.partitions import RECIPES
from pipelines.retention import prune
from pipelines.rollback import rollback

main_line = dg.define_asset_job(
    "main_line",
    selection=dg.AssetSelection.all(),
    partitions_def=RECIPES,
    description="From raw data to a published, evaluated adapter, for one base model. Rebuilds only what changed.",
)
observe_hub = dg.define_asset_job(
    "observe_hub",
    selection=dg.AssetSelection.assets("hub_state"),
    partitions_def=RECIPES,
    description="Looks at what the published repo holds now, and says how it differs from the last publication.",
)
JOBS = [main_line, observe_hub, rollback, prune]
