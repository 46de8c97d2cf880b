"""Sensors: runs start when something changed, and somebody hears of those that fail. Off until they are switched on."""

from collections.abc import Callable

import dagster as dg

from assets.exams import EXAM
from assets.external_assets import BASE_MODEL_SOURCE, DATASET_SOURCES, DOCUMENT_SOURCES, RECIPE, seen
from assets.partitions import RECIPES
from finetuning.freshness.changes import Cursor, look_again
from pipelines.jobs import main_line, make_leaderboard
from pipelines.notices import failure_notice
from pipelines.schedules import is_switched_on
from resources.artifacts import Artifacts
from resources.hub import Hub
from resources.store.artifact import fingerprint_of

MINUTE = 60


def result(
    context: dg.SensorEvaluationContext,
    parent: str,
    look: Callable[[str], str | None],
    *,
    settle: bool = False,
    new_is_change: bool = False,
) -> dg.SensorResult:
    """Ask for a run of each partition that is switched on and whose `parent` changed; record what it is now, of all.

    A run's key has the number of the change in it: a tick that is repeated after a crash starts no second run, and a
    version that comes back starts one.
    """
    before = Cursor.parse(context.cursor)
    after, changed, troubles = look_again(
        before, RECIPES.get_partition_keys(), look, settle=settle, new_is_change=new_is_change
    )
    for trouble in troubles:
        context.log.warning(trouble)
    news = {name: version for name, version in after.versions.items() if before.versions.get(name) != version}
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"{parent}/{change.name}/{change.number}/{change.version}",
                partition_key=change.name,
                tags={"finetuning/cause": f"{parent} changed to {change.version}"[:250]},
            )
            for change in changed
            if is_switched_on(change.name)
        ],
        asset_events=[seen(parent, name, version) for name, version in news.items()],
        cursor=after.text(),
    )


@dg.sensor(
    job=main_line,
    minimum_interval_seconds=MINUTE // 2,
    description="Starts a run for each recipe with `schedule: true` whose content changed, or an adapter that it "
    "merges, goes on from or is judged by, and for each new one.",
)
def recipe_changed(context: dg.SensorEvaluationContext, artifacts: Artifacts) -> dg.SensorResult:
    """Look at the recipes as validated: a wrong one is left alone until it is right."""
    from finetuning.freshness.versions import recipe_version

    store = artifacts.store()

    def adapter_of(name: str) -> str | None:
        return store.in_force(store.home("lora_adapter", name))

    return result(context, RECIPE, lambda name: recipe_version(name, adapter_of), new_is_change=True)


@dg.sensor(
    job=main_line,
    minimum_interval_seconds=5 * MINUTE,
    description="Starts a run for each recipe with `schedule: true` whose data sets on the hub have a new commit.",
)
def new_data_on_hub(context: dg.SensorEvaluationContext, hub: Hub) -> dg.SensorResult:
    """Look at the commits of data sets on the hub."""
    from finetuning.freshness.versions import hub_data_version

    return on_hub(context, hub, DATASET_SOURCES, hub_data_version)


@dg.sensor(
    job=main_line,
    minimum_interval_seconds=5 * MINUTE,
    description="Starts a run for each recipe with `schedule: true` whose base model on the hub has a new commit.",
)
def new_base_model_on_hub(context: dg.SensorEvaluationContext, hub: Hub) -> dg.SensorResult:
    """Look at the commits of base models on the hub."""
    from finetuning.freshness.versions import hub_model_version

    return on_hub(context, hub, BASE_MODEL_SOURCE, hub_model_version)


@dg.sensor(
    job=main_line,
    minimum_interval_seconds=MINUTE,
    description="Starts a run for each recipe with `schedule: true` whose local source files changed, once at rest.",
)
def local_files_changed(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Look at names, sizes and times of local files."""
    from finetuning.freshness.versions import local_files_version

    return result(context, DATASET_SOURCES, local_files_version, settle=True)


@dg.sensor(
    job=main_line,
    minimum_interval_seconds=5 * MINUTE,
    description="Starts a run for each recipe with `schedule: true` whose documents on the hub have a new commit.",
)
def new_documents_on_hub(context: dg.SensorEvaluationContext, hub: Hub) -> dg.SensorResult:
    """Look at the commits of documents on the hub."""
    from finetuning.freshness.versions import hub_documents_version

    return on_hub(context, hub, DOCUMENT_SOURCES, hub_documents_version)


@dg.sensor(
    job=main_line,
    minimum_interval_seconds=MINUTE,
    description="Starts a run for each recipe with `schedule: true` whose local documents changed, once at rest.",
)
def local_documents_changed(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Look at names, sizes and times of local documents."""
    from finetuning.freshness.versions import local_documents_version

    return result(context, DOCUMENT_SOURCES, local_documents_version, settle=True)


def on_hub(
    context: dg.SensorEvaluationContext, hub: Hub, parent: str, look: Callable[..., str | None]
) -> dg.SensorResult:
    """Ask the hub about every partition, and return what `result` makes of the answers."""
    with hub.connect_source(api_only=True) as api:
        return result(context, parent, lambda name: look(name, api))


@dg.sensor(
    job=make_leaderboard,
    minimum_interval_seconds=MINUTE,
    description="Makes the leaderboard anew when another exam of any recipe came into force.",
)
def exams_changed(context: dg.SensorEvaluationContext, artifacts: Artifacts) -> dg.SensorResult:
    """Look at which exams are in force; ask for one run, however many are new ones."""
    store = artifacts.store()

    def in_force(name: str) -> str | None:
        return store.in_force(store.home(EXAM, name))

    before = Cursor.parse(context.cursor)
    names = RECIPES.get_partition_keys()
    # An exam is in force a moment before its run has told Dagster of it.
    after, changed, troubles = look_again(before, names, in_force, settle=True, new_is_change=True)
    for trouble in troubles:
        context.log.warning(trouble)
    key = f"leaderboard/{fingerprint_of(after.numbers)}"
    causes = {"finetuning/cause": f"exams of {', '.join(change.name for change in changed)}"[:250]}
    runs = [dg.RunRequest(run_key=key, tags=causes)] if changed else []
    return dg.SensorResult(run_requests=runs, cursor=after.text())


SENSORS = [
    recipe_changed,
    new_data_on_hub,
    new_documents_on_hub,
    new_base_model_on_hub,
    local_files_changed,
    local_documents_changed,
    exams_changed,
    failure_notice,
]
