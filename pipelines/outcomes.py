"""Tell whether a run went well and, if it did not, what kind of trouble it met, and the reasons.

>>> outcome_of(instance, run)
Outcome(kind="gate", reasons=["verdict: gain in final-answer is 0.021, which misses by 0.279 the 0.300 …"])
"""

from typing import NamedTuple

import dagster as dg

from finetuning.errors import FAULT, GATE, INFRASTRUCTURE, INPUT, KIND, InfrastructureError
from resources.dagster_internals import (
    ChildProcessCrashException,
    DagsterAssetCheckFailedError,
    JobFailureData,
    RunFailureReason,
    SerializableErrorInfo,
    StepFailureData,
)

WELL = "well"
# The worst first: what a verdict says counts for nothing where something else broke.
WORST = (FAULT, INFRASTRUCTURE, INPUT, GATE)
# Checks of the model; the others are of the data.
GATES = ("verdict", "same_answers")
# What is raised for what was killed, cancelled or lost, or never began for want of a cluster, by the names that events
# keep.
ENDED_FROM_OUTSIDE = {
    error.__name__
    for error in (
        dg.DagsterExecutionInterruptedError,
        ChildProcessCrashException,
        KeyboardInterrupt,
        InfrastructureError,
    )
}
OWN_FAULT = (RunFailureReason.RUN_EXCEPTION, RunFailureReason.JOB_INITIALIZATION_FAILURE)
EVENTS = (
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
)


class Outcome(NamedTuple):
    """How a run ended: its kind, and a reason for each thing that went wrong."""

    kind: str
    reasons: list[str]


def outcome_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Outcome:
    """Return how the run ended, as far as the instance knows."""
    if run.status == dg.DagsterRunStatus.SUCCESS:
        return Outcome(WELL, [])
    if run.status != dg.DagsterRunStatus.FAILURE:
        text = f"run {run.run_id} is {run.status.value}: it was killed or cancelled, or goes on still"
        return Outcome(INFRASTRUCTURE, [text])
    found = troubles(instance, run.run_id)
    kind = next((kind for kind in WORST if kind in {trouble for trouble, _ in found}), FAULT)
    return Outcome(kind, [reason for _, reason in found])


def troubles(instance: dg.DagsterInstance, run_id: str) -> list[tuple[str, str]]:
    """Return kind and reason of each check that ended the run and each failed step; of the run itself if none did."""
    check, step, whole = (events_of(instance, run_id, kind) for kind in EVENTS)
    found = [trouble for event in check if (trouble := failed_check(event))]
    found += [trouble for event in step if (trouble := failed_step(event))]
    return found or [failed_run(event) for event in whole]


def events_of(instance: dg.DagsterInstance, run_id: str, kind: dg.DagsterEventType) -> list[dg.DagsterEvent]:
    """Return the run's events of that kind, the first one first."""
    records = instance.get_records_for_run(run_id, of_type=kind).records
    return [event for record in records if (event := record.event_log_entry.dagster_event)]


def failed_check(event: dg.DagsterEvent) -> tuple[str, str] | None:
    """Return kind and reason, where the check failed and ends its run."""
    check = event.asset_check_evaluation_data
    if check.passed or not check.blocking or check.severity != dg.AssetCheckSeverity.ERROR:
        return None
    return GATE if check.check_name in GATES else INPUT, f"{check.check_name}: {check.description or 'failed'}"


def failed_step(event: dg.DagsterEvent) -> tuple[str, str] | None:
    """Return kind and reason, where the step failed by itself and not by one of its checks."""
    data: StepFailureData = event.step_failure_data
    own, error = data.user_failure_data, data.error
    if DagsterAssetCheckFailedError.__name__ in names_of(error):
        return None
    if own and KIND in own.metadata:
        return str(own.metadata[KIND].value), f"{event.step_key}: {own.description}"
    said = (own.description if own else None) or (error.message.strip() if error else "failed")
    return INFRASTRUCTURE if ENDED_FROM_OUTSIDE & names_of(error) else FAULT, f"{event.step_key}: {said}"


def failed_run(event: dg.DagsterEvent) -> tuple[str, str]:
    """Return kind and reason of a run without a failed step: it was lost, or Dagster could not carry it out."""
    data = event.event_specific_data  # none of a run that the daemon gave up
    known = data if isinstance(data, JobFailureData) else None
    error = known.error if known else None
    own_fault = known is not None and known.failure_reason in OWN_FAULT and not ENDED_FROM_OUTSIDE & names_of(error)
    said = event.message or (error.message.strip() if error else "no reason was given")
    return FAULT if own_fault else INFRASTRUCTURE, said


def names_of(error: SerializableErrorInfo | None) -> set[str]:
    """Return the class names of an error and of its causes: a retry policy wraps what it gives up on."""
    return {str(error.cls_name)} | names_of(error.cause) if error else set()
