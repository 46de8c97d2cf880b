"""How the steps of a run are started: each in a process of its own, or as a job of a Ray cluster.

FINETUNING_EXECUTOR=ray is the cluster. Without it, a run's config may ask for one process for all of its steps.
"""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import dagster as dg

from assets.partitions import OF_ALL_RECIPES
from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.recipe.sections import ASKED_FOR_BY, asks_for
from finetuning.recipe.smoke import is_smoke, load_for_run
from resources.dagster_internals import (
    PARTITION_NAME_TAG,
    ExecutionPlan,
    PlanOrchestrationContext,
    RetryMode,
    StepDependencyConfig,
    get_retries_config,
    with_steps,
)
from resources.lost_runs import end_lost_runs
from resources.ray_cluster.reach import steps_are_ray_jobs

DAGSTERS_OWN = dg.multi_or_in_process_executor
# Steps fork from a process that has loaded the code location already, instead of loading it each anew.
FORKSERVER = {"start_method": {"forkserver": {}}}

BESIDE = "it is of all recipes, and this run of one: dg launch --assets"

# What the list of runs shows of a smoke run, and can be searched for there: `tag:smoke=true`.
SMOKE_TAG = {"smoke": "true"}


class AskedFor(dg.Executor):
    """Skip the steps that a run of one recipe does not make, and leave the others to another executor.

    These are of what the recipe does not ask for, and of what is about all recipes.
    No process is started for those, and what follows them runs. A smoke run, however it was started, is tagged as one.
    """

    def __init__(self, steps: dg.Executor):
        self.steps = steps

    @property
    def retries(self) -> RetryMode:
        """Whether the other executor tries steps again."""
        return self.steps.retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        """When the other executor starts a step."""
        return self.steps.step_dependency_config

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """Yield the events of the run's steps."""
        if is_smoke():
            plan_context.instance.add_run_tags(plan_context.run_id, SMOKE_TAG)
        skipped = not_asked_for(plan_context.get_tag(PARTITION_NAME_TAG), execution_plan.step_keys_to_execute)
        for why, keys in by_reason(skipped).items():
            plan_context.log.info(f"skipped: {', '.join(keys)}: {why}")
        for key in skipped:
            step = plan_context.for_step(cast(Any, execution_plan.get_step_by_key(key)))
            yield dg.DagsterEvent.step_skipped_event(step)
        keys = [key for key in execution_plan.step_keys_to_execute if key not in skipped]
        if keys:
            fewer = with_steps(plan_context, keys)
            yield from self.steps.execute(fewer, fewer.execution_plan)


def by_reason(steps: Iterable[str]) -> dict[str, list[str]]:
    """The steps by the reason why they are skipped."""
    found: dict[str, list[str]] = {}
    for step in steps:
        why = f"the recipe has no section {ASKED_FOR_BY[step]}" if step in ASKED_FOR_BY else f"{BESIDE} {step}"
        found.setdefault(why, []).append(step)
    return found


def not_asked_for(partition: str | None, steps: Iterable[str]) -> list[str]:
    """Return which of the steps make something that the partition's recipe does not ask for, or is of all recipes."""
    if not partition:
        return []
    beside, optional = ([step for step in steps if step in names] for names in (OF_ALL_RECIPES, ASKED_FOR_BY))
    try:
        recipe = load_for_run(partition) if optional else None
    except FinetuningError:  # the first step says what is wrong with it
        return beside
    return [*(step for step in optional if recipe and not asks_for(recipe, step)), *beside]


def create(context: dg.InitExecutorContext) -> dg.Executor:
    """Free what killed runs held of the pools, and return Dagster's default executor."""
    end_lost_runs(context.instance)
    config = cast(dict[str, dict[str, object]], context.executor_config)
    if "multiprocess" in config:
        config = {"multiprocess": FORKSERVER | config["multiprocess"]}
    return AskedFor(cast(Any, DAGSTERS_OWN).executor_creation_fn(context._replace(executor_config=config)))


def create_on_cluster(context: dg.InitExecutorContext) -> dg.Executor:
    """Mark killed runs as failed, and return the executor whose steps are jobs of a Ray cluster.

    Raises:
        InfrastructureError: there is no cluster, or no Ray.
    """
    end_lost_runs(context.instance)
    try:
        from pipelines.ray_executor import ray_executor
    except ModuleNotFoundError as error:
        raise InfrastructureError(
            f"FINETUNING_EXECUTOR: ray needs the package {error.name}, which is not installed here: "
            ".venv/bin/pip install -c constraints.txt -e '.[cluster]'"
        ) from None
    return AskedFor(ray_executor(context))


on_this_machine = dg.ExecutorDefinition(
    name="multi_or_in_process_executor",
    config_schema=cast(Any, DAGSTERS_OWN.config_schema),
    requirements=DAGSTERS_OWN._requirements_fn,
    executor_creation_fn=create,
    description="Each step in a process of its own, or with `in_process: {}` all of them in that of the run.",
)
on_cluster = dg.ExecutorDefinition(
    name="ray",
    config_schema={
        "retries": get_retries_config(),
        "max_concurrent": dg.Field(
            dg.Noneable(int), default_value=None, description="Steps of a run at once; none: as many as are ready."
        ),
    },
    requirements=dg.multiple_process_executor_requirements(),
    executor_creation_fn=create_on_cluster,
    description="Each step as a job of the Ray cluster, with the `resources` that its recipe asks for.",
)
executor = on_cluster if steps_are_ray_jobs() else on_this_machine
