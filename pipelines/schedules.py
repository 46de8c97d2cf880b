"""Schedules: when models are trained again. Off until switched on, in the UI or with `dagster schedule start`."""

from collections.abc import Iterator

import dagster as dg

from assets.partitions import RECIPES
from pipelines.jobs import main_line

RETRAIN_CRON = "0 3 * * 0"  # Sundays at three


@dg.schedule(
    job=main_line,
    cron_schedule=RETRAIN_CRON,
    execution_timezone="UTC",
    description="One run of the main line for each recipe. What is the same as last time is reused, so that a model "
    "with nothing new costs seconds and publishes nothing.",
)
def retrain(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
    """Ask for a run of each partition."""
    for name in RECIPES.get_partition_keys():
        yield dg.RunRequest(run_key=f"{context.scheduled_execution_time:%Y-%m-%dT%H:%M}/{name}", partition_key=name)


SCHEDULES = [retrain]
