"""How the steps of a run are started: each in a process of its own, unless the run's config says otherwise."""

from typing import Any, cast

import dagster as dg

from resources.lost_runs import end_lost_runs

DAGSTERS_OWN = dg.multi_or_in_process_executor
# Steps fork from a process that has loaded the code location already, instead of loading it each anew.
FORKSERVER = {"start_method": {"forkserver": {}}}


def create(context: dg.InitExecutorContext) -> dg.Executor:
    """Dagster's default executor; before it, runs that were killed give up what they held of the pools."""
    end_lost_runs(context.instance)
    config = cast(dict[str, dict[str, Any]], context.executor_config)
    if "multiprocess" in config:
        config = {"multiprocess": FORKSERVER | config["multiprocess"]}
    return cast(Any, DAGSTERS_OWN).executor_creation_fn(context._replace(executor_config=config))


executor = dg.ExecutorDefinition(
    name="multi_or_in_process_executor",
    config_schema=cast(Any, DAGSTERS_OWN.config_schema),
    requirements=DAGSTERS_OWN._requirements_fn,
    executor_creation_fn=create,
    description="Each step in a process of its own, or with `in_process: {}` all of them in that of the run.",
)
