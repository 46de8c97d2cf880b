"""Every name that Dagster 1.13 keeps to itself and that this project needs: why, and what would take its place.

A release of Dagster may move them without a word; then this is the one file to mend. All but what the functions import
is loaded by `import dagster` anyway, or in milliseconds. Ray's are in `resources/ray_internals.py`.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import dagster as dg

# The first ends a step whose check failed, so that an event with its name tells no other failure. PipesSubprocessClient
# raises the second for a child that did not end with 0. Public: none; `dg` has DagsterError, from which both derive.
from dagster._core.errors import DagsterAssetCheckFailedError, DagsterPipesExecutionError

# What events of failed steps and runs hold, and what an executor reports itself. Public: none; `dg` has DagsterEvent
# without its contents.
from dagster._core.events import EngineEventData, JobFailureData, RunFailureReason, StepFailureData

# The streams of the process go to files, children's too. Public: none.
from dagster._core.execution.compute_logs import redirect_to_file

# What the methods of an executor of one's own get and return. Public: none; `dg.executor` needs them in its signatures.
from dagster._core.execution.context.system import IStepContext, PlanOrchestrationContext
from dagster._core.execution.plan.objects import StepRetryData, UserFailureData
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.plan.step import ExecutionStep

# The `retries` section of an executor's config, and what it means. Public: none.
from dagster._core.execution.retries import RetryMode, get_retries_config

# When an executor starts a step whose inputs are there, which an executor around another hands on. Public: none.
from dagster._core.execution.step_dependency_config import StepDependencyConfig

# What a step's process that was killed is reported as. Public: a kind of failure in the event.
from dagster._core.executor.child_process_executor import ChildProcessCrashException

# The executor whose steps run elsewhere, to start those again whose job died. Public: none.
from dagster._core.executor.step_delegating import CheckStepHealthResult, StepDelegatingExecutor, StepHandlerContext

# What run monitoring asks a launcher of its own for. Public: the launcher alone, `dg.DefaultRunLauncher`.
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus

# The compute logs of one machine, of which a terminal shows the steps' own lines. Public: a setting of what it shows.
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION, LocalComputeLogManager

# Whether everything that uses the instance is on this machine. Public: none.
from dagster._core.storage.runs import SqliteRunStorage

# Tags of a run: its partition, and the code location that started it. Public: none; `partition_key` is in contexts.
from dagster._core.storage.tags import GRPC_INFO_TAG, PARTITION_NAME_TAG

# What a class that dagster.yaml names is made from. Public: `dg` has ConfigurableClass without it.
from dagster._serdes import ConfigurableClassData

# Files of compute logs come into being as Dagster's own class makes them. Public: none.
from dagster._utils import ensure_file, touch_file

# An error as events keep it. Public: none.
from dagster._utils.error import SerializableErrorInfo

# The logger of steps' lines, for tests. Public: none.
from dagster._utils.log import create_console_logger

__all__ = [
    "GRPC_INFO_TAG",
    "IO_TYPE_EXTENSION",
    "PARTITION_NAME_TAG",
    "CapturedLogContext",
    "CheckRunHealthResult",
    "CheckStepHealthResult",
    "ChildProcessCrashException",
    "ComputeIOType",
    "ConfigurableClassData",
    "DagsterAssetCheckFailedError",
    "DagsterPipesExecutionError",
    "EngineEventData",
    "ExecutionPlan",
    "ExecutionStep",
    "IStepContext",
    "JobFailureData",
    "KnownExecutionState",
    "LocalComputeLogManager",
    "PlanOrchestrationContext",
    "RetryMode",
    "RunFailureReason",
    "SerializableErrorInfo",
    "SqliteRunStorage",
    "StepDelegatingExecutor",
    "StepDependencyConfig",
    "StepFailureData",
    "StepHandlerContext",
    "StepRetryData",
    "UserFailureData",
    "WorkerStatus",
    "create_console_logger",
    "ensure_file",
    "get_retries_config",
    "instance_of_the_command_line",
    "redirect_to_file",
    "stored_run",
    "touch_file",
    "with_steps",
]


def with_steps(context: PlanOrchestrationContext, keys: Sequence[str]) -> PlanOrchestrationContext:
    """Return the context of a run with these of its steps alone; those after the others get what these made before.

    Public: `asset_selection`, when a run is started and not in it.
    """
    from dagster._core.system_config.objects import ResolvedRunConfig

    plan, job = context.execution_plan, context.job.get_definition()
    if list(keys) == list(plan.step_keys_to_execute):
        return context
    fewer = plan.build_subset_plan(keys, job, ResolvedRunConfig.build(job, context.run_config))
    return PlanOrchestrationContext(
        context.plan_data._replace(execution_plan=fewer),
        context.log,
        context.executor,
        context.output_capture,
        context.resume_from_failure,
    )


def instance_of_the_command_line(command: str = "this command") -> AbstractContextManager[dg.DagsterInstance]:
    """Open the instance that `dagster` itself would use here: DAGSTER_HOME's, ./dagster.yaml's, or a temporary one.

    Public: `DagsterInstance.get`, which knows of DAGSTER_HOME alone. Imported here, as it takes 0.2 s.

    Args:
        command: what asks for the instance, in Dagster's log lines.
    """
    from dagster._cli.utils import get_possibly_temporary_instance_for_cli

    return get_possibly_temporary_instance_for_cli(command)


def stored_run(instance: dg.DagsterInstance, **fields: Any) -> dg.DagsterRun:
    """Store a run with these fields, for tests, and return it.

    Public: none; `create_run_for_job` needs a job's plan. Imported here, as it takes 0.5 s.
    """
    from dagster._core.test_utils import create_run_for_test

    return create_run_for_test(instance, **fields)
