"""Schedules: when models are trained again. Off until switched on, in the UI or with `dagster schedule start`."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from assets.exams import EXAM
from assets.partitions import RECIPES
from finetuning.errors import FinetuningError
from finetuning.recipe.smoke import load_for_run
from pipelines.jobs import main_line

RETRAIN_CRON = "0 3 * * 0"  # Sundays at three
# A day later each of these runs is expected to have come to an exam. Dagster looks at the last exam of any recipe.
WEEKLY = dg.FreshnessPolicy.cron(deadline_cron="0 3 * * 1", lower_bound_delta=timedelta(days=1), timezone="UTC")


def is_switched_on(name: str) -> bool:
    """Return whether runs of the recipe may start by themselves; not while nobody can tell, since it is wrong."""
    try:
        return load_for_run(name).schedule
    except FinetuningError:
        return False


def expected_weekly(spec: dg.AssetSpec) -> dg.AssetSpec:
    """Return what exams are held by with the expectation that there is a new one each week, if a recipe asks for it."""
    if spec.key != dg.AssetKey(EXAM) or not any(map(is_switched_on, RECIPES.get_partition_keys())):
        return spec
    return spec.replace_attributes(freshness_policy=WEEKLY)


@dg.schedule(
    job=main_line,
    cron_schedule=RETRAIN_CRON,
    execution_timezone="UTC",
    description="One run of the main line for each recipe with `schedule: true`. What is the same as last time is "
    "reused, so that a model with nothing new costs seconds and publishes nothing.",
)
def retrain(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Ask for a run of each partition whose recipe is switched on."""
    names = [name for name in RECIPES.get_partition_keys() if is_switched_on(name)]
    if not names:
        yield dg.SkipReason("No recipe is switched on. Write `schedule: true` into those that are to be trained again.")
    for name in names:
        yield dg.RunRequest(run_key=f"{context.scheduled_execution_time:%Y-%m-%dT%H:%M}/{name}", partition_key=name)


SCHEDULES = [retrain]
