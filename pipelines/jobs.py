"""Jobs: named selections of assets that can be launched and scheduled."""

import dagster as dg

from assets.partitions import OF_ALL_RECIPES, RECIPES
from pipelines.retention import prune
from pipelines.rollback import rollback

main_line = dg.define_asset_job(
    "main_line",
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets(*OF_ALL_RECIPES),
    partitions_def=RECIPES,
    description="From raw data to a published, evaluated adapter, for one base model. Rebuilds only what changed.",
)
make_leaderboard = dg.define_asset_job(
    "make_leaderboard",
    selection=dg.AssetSelection.assets("leaderboard"),
    description="Puts the exams in force of all recipes beside each other. Makes nothing where none of them changed.",
)
observe_hub = dg.define_asset_job(
    "observe_hub",
    selection=dg.AssetSelection.assets("hub_state"),
    partitions_def=RECIPES,
    description="Looks at what the published repo holds now, and says how it differs from the last publication.",
)
JOBS = [main_line, observe_hub, make_leaderboard, rollback, prune]
