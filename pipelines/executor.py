"""How the steps of a run are started: each in a process of its own, or as a job of a Ray cluster.

FINETUNING_EXECUTOR=ray is the cluster. Without it, a run's config may ask for one process for all of its steps.
"""

from collections.abc import Iterator
from typing import Any, cast

import dagster as dg

from finetuning.errors import InfrastructureError
from finetuning.recipe.smoke import is_smoke
from resources.dagster_internals import (
    ExecutionPlan,
    PlanOrchestrationContext,
    RetryMode,
    StepDependencyConfig,
    get_retries_config,
)
from resources.lost_runs import end_lost_runs
from resources.ray_cluster.reach import steps_are_ray_jobs

DAGSTERS_OWN = dg.multi_or_in_process_executor
# Steps fork from a process that has loaded the code location already, instead of loading it each anew.
FORKSERVER = {"start_method": {"forkserver": {}}}

# What the list of runs shows of a smoke run, and can be searched for there: `tag:smoke=true`.
SMOKE_TAG = {"smoke": "true"}


class SmokeRuns(dg.Executor):
    """Tag the run as a smoke run, however it was started, and leave its steps to another executor."""

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
        plan_context.instance.add_run_tags(plan_context.run_id, SMOKE_TAG)
        yield from self.steps.execute(plan_context, execution_plan)


def tagged(executor: dg.Executor) -> dg.Executor:
    """Return the executor or, in a smoke run, one that tags the run first."""
    return SmokeRuns(executor) if is_smoke() else executor


def create(context: dg.InitExecutorContext) -> dg.Executor:
    """Free what killed runs held of the pools, and return Dagster's default executor."""
    end_lost_runs(context.instance)
    config = cast(dict[str, dict[str, object]], context.executor_config)
    if "multiprocess" in config:
        config = {"multiprocess": FORKSERVER | config["multiprocess"]}
    return tagged(cast(Any, DAGSTERS_OWN).executor_creation_fn(context._replace(executor_config=config)))


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
    return tagged(ray_executor(context))


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
