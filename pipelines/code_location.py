"""Starts a code location, and has the runs started again that were lost with the one before it.

    python -m pipelines.code_location dagster code-server start -p 4000 -m pipelines.definitions

Runs that died with their container or machine stay "in progress" for ever otherwise: Dagster's daemon hears of a run's
end from the run, or from the code location that started it.
"""

import json
import os
import socket
import sys
import time

import dagster as dg

from resources.dagster_internals import GRPC_INFO_TAG, instance_of_the_command_line

IN_PROGRESS = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
TIMEOUT = 5
# The daemon gives a failed run up where it finds no code location, and it looks for a lost one every ten seconds.
PAUSE = 15
LONGEST = 600


def main(command: list[str]) -> None:
    """Nothing; this process becomes that command, and one beside it marks lost runs as failed when it is up."""
    with instance_of_the_command_line("code_location") as instance:
        lost = [run.run_id for run in in_progress(instance) if not answers(address_of(run))]
    if lost and os.fork() == 0:
        with instance_of_the_command_line("code_location") as instance:
            fail(instance, lost)
        return
    os.execvp(command[0], command)


def in_progress(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs at work that a code location with a port has started; no other outlives its machine in a database."""
    runs = instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS))
    return [run for run in runs if "port" in json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))]


def address_of(run: dg.DagsterRun) -> tuple[str, int]:
    """Host and port of the code location that started the run."""
    told = json.loads(run.tags[GRPC_INFO_TAG])
    return told["host"], told["port"]


def answers(address: tuple[str, int]) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(address, TIMEOUT).close()
    except OSError:
        return False
    return True


def fail(instance: dg.DagsterInstance, lost: list[str], pause: float = PAUSE, longest: float = LONGEST) -> None:
    """Nothing; the runs are marked as failed, which starts them again, or as cancelled.

    Args:
        lost: ids of the runs.
        pause: seconds from the start of the new code location, within which the daemon has found it.
        longest: seconds that it may take to start.
    """
    runs = [run for run in in_progress(instance) if run.run_id in lost]
    end = time.monotonic() + longest
    while not all(answers(address_of(run)) for run in runs) and time.monotonic() < end:
        time.sleep(1)
    time.sleep(pause)
    # Some may have been cancelled since then.
    for run in in_progress(instance):
        if run.run_id not in lost:
            continue
        started = run.status == dg.DagsterRunStatus.STARTED
        end = instance.report_run_failed if started else instance.report_run_canceled
        end(run, "Lost: its process ended with the code location that had started it.")
        print(
            f"run {run.run_id} was lost with its code location; it is marked {'failed' if started else 'cancelled'}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
