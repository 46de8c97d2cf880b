"""A selection and a partition that do not go together, told before Dagster's command line fails over them.

dagster asset materialize --select leaderboard --partition phi-2 -m pipelines.definitions
dg launch --assets lora_adapter
"""

import click
import dagster as dg

from assets.partitions import OF_ALL_RECIPES, RECIPES

# The commands that materialize assets in their own process, and the option of each that selects them.
SELECTING = {"materialize": "select", "launch": "assets"}


def require_partition(defs: dg.Definitions) -> None:
    """Check what the command line that loads this code location was given; nothing to check where none does.

    Raises:
        click.UsageError: a partition for assets that have none, or none for those that have.
    """
    context = click.get_current_context(silent=True)
    option = SELECTING.get(context.command.name or "") if context else None
    if context is None or option is None or not context.params.get(option):
        return
    selected, partition = context.params[option], context.params.get("partition")
    try:
        graph = defs.resolve_asset_graph()
        parts = [dg.AssetSelection.from_string(part.strip()) for part in selected.split(",")]
        chosen = {key.to_user_string() for part in parts for key in part.resolve(graph)}
    except dg.DagsterError:  # Dagster says by itself what is wrong with a selection
        return
    if chosen and partition and chosen <= set(OF_ALL_RECIPES):
        raise click.UsageError(
            f"--partition {partition}: {', '.join(sorted(chosen))} is about all recipes and has no partitions. "
            "Leave --partition out."
        )
    if chosen - set(OF_ALL_RECIPES) and not partition and not context.params.get("partition_range"):
        raise click.UsageError(
            f"--{option} {selected}: give the recipe by --partition NAME; there are "
            f"{', '.join(RECIPES.get_partition_keys())}."
        )
