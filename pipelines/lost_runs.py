"""Marks runs as failed whose code location is gone, with its container or machine, so that they are started again.

Nobody else notices: Dagster's daemon hears of a run's end from the run, or from the code location that started it. So
this comes before each start of a code location:

    python -m pipelines.lost_runs && dagster code-server start -p 4000 -m pipelines.definitions
"""

import json

import dagster as dg
from dagster._cli.utils import get_possibly_temporary_instance_for_cli
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient

IN_PROGRESS = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def fail_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Ids of the runs that were in progress and are marked failed now, since no code location answers for them."""
    lost = [run for run in instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS)) if is_lost(run)]
    for run in lost:
        instance.report_run_failed(run, "Lost: its process ended with the code location that had started it.")
    return [run.run_id for run in lost]


def is_lost(run: dg.DagsterRun) -> bool:
    """Whether the code location that started the run is gone; a run that was started by none is not."""
    address = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    if not address:
        return False
    try:
        DagsterGrpcClient(**address).ping("")
    except DagsterUserCodeUnreachableError:
        return True
    return False


if __name__ == "__main__":
    # As all Dagster commands find it: by DAGSTER_HOME, or by the dagster.yaml in this folder.
    with get_possibly_temporary_instance_for_cli("lost_runs") as instance:
        for run_id in fail_lost_runs(instance):
            print(f"run {run_id} was lost with its code location; it is marked failed")
