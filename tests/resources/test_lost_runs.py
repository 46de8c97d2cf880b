"""Runs whose process is gone are found, and give up their place in a pool."""

import os
import subprocess
import sys
import time

import dagster as dg
import pytest

from resources.dagster_internals import EngineEventData, stored_run
from resources.lost_runs import GONE, end_lost_runs, is_lost, is_running
from tests.waiting import until


@pytest.fixture
def instance(tmp_path):
    settings = {"concurrency": {"pools": {"default_limit": 1}}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=settings) as instance:
        yield instance


@pytest.fixture
def ended():
    """The id of a process that was there."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def run_of(instance, pid=None, **tags):
    """A run that is at work, says its status, in the process `pid`."""
    run = stored_run(instance, job_name="main_line", status=dg.DagsterRunStatus.STARTED, tags=tags)
    if pid is not None:
        instance.report_engine_event("Executing steps", run, EngineEventData.in_process(pid))
    return run


def test_a_run_is_lost_once_its_process_has_ended(instance, ended):
    assert is_lost(instance, run_of(instance, ended))
    assert not is_lost(instance, run_of(instance, os.getpid()))


def test_a_run_that_named_no_process_yet_is_not_lost(instance):
    assert not is_lost(instance, run_of(instance))


def test_another_process_with_the_same_id_is_not_the_runs():
    code = "print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()  # a process has no command before it began
        now = time.time()
        assert is_running(process.pid, since=now)
        assert not is_running(process.pid, since=now - 3600), "it began later"
        process.kill()
    with subprocess.Popen(["sleep", "60"]) as process:
        assert not is_running(process.pid, since=time.time()), "it is no Python"
        process.kill()


def test_a_process_that_nobody_waited_for_yet_has_ended():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    until(lambda: not is_running(process.pid, since=time.time()), pause=0.01)
    assert process.wait() == 0


def test_lost_runs_fail_and_leave_their_place_in_the_pool(instance, ended):
    lost, alive = run_of(instance, ended), run_of(instance, os.getpid())
    pool = instance.event_log_storage
    pool.initialize_concurrency_limit_to_default("gpu")
    assert pool.claim_concurrency_slot("gpu", lost.run_id, "lora_adapter").is_claimed
    assert not pool.claim_concurrency_slot("gpu", alive.run_id, "lora_adapter").is_claimed
    end_lost_runs(instance)
    assert pool.claim_concurrency_slot("gpu", alive.run_id, "lora_adapter").is_claimed
    statuses = [instance.get_run_by_id(run.run_id).status for run in (lost, alive)]
    assert statuses == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED]
    assert any(entry.message.endswith(GONE) for entry in instance.all_logs(lost.run_id))


def test_of_runs_that_may_be_on_another_machine_nothing_is_certain(ended):
    with dg.DagsterInstance.ephemeral() as instance:
        assert not is_lost(instance, run_of(instance, ended))
