import json
import socket

import dagster as dg
import pytest
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.test_utils import create_run_for_test

from pipelines.lost_runs import address_of, answers, fail, in_progress

STARTED, SUCCESS, FAILURE = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


def told(**address):
    return {GRPC_INFO_TAG: json.dumps(address)}


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_runs_that_ended_and_those_of_the_command_line_are_left_alone(instance, tmp_path):
    address = told(host="localhost", socket=str(tmp_path / "gone"))
    lost = create_run_for_test(instance, status=STARTED, tags=address)
    ended = create_run_for_test(instance, status=SUCCESS, tags=address)
    by_hand = create_run_for_test(instance, status=STARTED)
    assert in_progress(instance) == [instance.get_run_by_id(lost.run_id)]
    fail(instance, [lost.run_id, ended.run_id, by_hand.run_id])
    status = {run.run_id: run.status for run in instance.get_runs()}
    assert status == {lost.run_id: FAILURE, ended.run_id: SUCCESS, by_hand.run_id: STARTED}
    assert any("Lost: its process ended" in entry.message for entry in instance.all_logs(lost.run_id))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_a_code_location_that_listens_answers_and_one_that_is_gone_does_not(instance, tmp_path, family):
    with socket.socket(family) as listening:
        listening.bind(str(tmp_path / "socket") if family == socket.AF_UNIX else ("127.0.0.1", 0))
        listening.listen()
        name = listening.getsockname()
        address = {"socket": name} if isinstance(name, str) else {"port": name[1]}
        run = create_run_for_test(instance, status=STARTED, tags=told(host="127.0.0.1", **address))
        assert answers(address_of(run))
    assert not answers(address_of(run))


def test_a_run_is_not_marked_before_the_code_location_is_back_or_given_up(instance):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))  # and does not listen yet
        run = create_run_for_test(
            instance, status=STARTED, tags=told(host="127.0.0.1", port=listening.getsockname()[1])
        )
        seen = []

        def pause(seconds, status=lambda: instance.get_run_by_id(run.run_id).status):
            seen.append((seconds, status()))
            listening.listen()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipelines.lost_runs.time.sleep", pause)
            fail(instance, [run.run_id], pause=15)
    assert seen == [(1, STARTED), (15, STARTED)]
    assert instance.get_run_by_id(run.run_id).status == FAILURE
