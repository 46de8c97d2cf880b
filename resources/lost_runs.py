"""Finds runs whose process is gone, killed or with its machine: their status still says that they are at work."""

import dagster as dg
import psutil

from resources.dagster_internals import CheckRunHealthResult, SqliteRunStorage, WorkerStatus

GONE = "The run's process is gone: it was killed, or its machine went down."
# A process begins before its first event; the clock may have been set in between, by which its beginning moves.
SECONDS_APART = 600.0


class WatchedRunLauncher(dg.DefaultRunLauncher):
    """Dagster's own launcher, which run monitoring can ask whether a run's process is still there.

    Without it, a run that went down together with its code server is at work for ever.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether `check_run_worker_health` can be asked."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process is there; one that nobody can look at counts as being there."""
        if is_lost(self._instance, run):
            return CheckRunHealthResult(WorkerStatus.FAILED, GONE)
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """What the run's failure says of its process."""
        return GONE if is_lost(self._instance, run) else None


def end_lost_runs(instance: dg.DagsterInstance) -> None:
    """Nothing; the lost runs are marked as failed, or as cancelled, and what they held of the pools is free for others.

    With a daemon its run monitoring does the same; the command line has to do without.
    """
    at_work = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])
    for run in instance.get_runs(at_work):
        # It may have come to its end since it was listed.
        if is_lost(instance, run) and (now := instance.get_run_by_id(run.run_id)) and now.status == run.status:
            started = run.status == dg.DagsterRunStatus.STARTED
            (instance.report_run_failed if started else instance.report_run_canceled)(run, GONE)
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def is_lost(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the run's process is certain to be gone.

    Everything that uses an SQLite instance is on this machine, where processes can be seen; of the runs of another
    instance nothing is certain.
    """
    return isinstance(instance.run_storage, SqliteRunStorage) and process_is_gone(instance, run.run_id)


def process_is_gone(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the process that the run's events name has ended; False where none is named yet."""
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    named = [
        (entry.timestamp, int(str(event.engine_event_data.metadata["pid"].value)))
        for entry in entries
        if (event := entry.dagster_event) and event.step_key is None and "pid" in event.engine_event_data.metadata
    ]
    return bool(named) and not is_running(pid=named[-1][1], since=named[-1][0])


def is_running(pid: int, since: float) -> bool:
    """Whether the process with this id is the one that was there at `since` (seconds since 1970), and runs still."""
    try:
        process = psutil.Process(pid)
        # Of a process that has ended, and that nobody waited for yet, there is no command any more.
        is_python = any("python" in part or "dagster" in part for part in process.cmdline())
        return is_python and process.create_time() <= since + SECONDS_APART
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
