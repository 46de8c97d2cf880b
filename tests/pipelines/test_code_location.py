import json
import socket

import dagster as dg
import pytest

from pipelines.code_location import address_of, answers, fail, in_progress
from resources.dagster_internals import GRPC_INFO_TAG, stored_run
from tests.deploy.postgres import free_port

STARTED, SUCCESS, FAILURE = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


def told(**address):
    return {GRPC_INFO_TAG: json.dumps(address)}


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_runs_that_ended_and_those_of_the_command_line_are_left_alone(instance):
    address = told(host="127.0.0.1", port=free_port())
    lost = stored_run(instance, status=STARTED, tags=address)
    ended = stored_run(instance, status=SUCCESS, tags=address)
    by_hand = stored_run(instance, status=STARTED)
    of_one_person = stored_run(instance, status=STARTED, tags=told(host="localhost", socket="/tmp/gone"))
    assert in_progress(instance) == [instance.get_run_by_id(lost.run_id)]
    fail(instance, [lost.run_id, ended.run_id, by_hand.run_id, of_one_person.run_id], pause=0, longest=0)
    status = {run.run_id: run.status for run in instance.get_runs()}
    assert status == {
        lost.run_id: FAILURE,
        ended.run_id: SUCCESS,
        by_hand.run_id: STARTED,
        of_one_person.run_id: STARTED,
    }
    assert any("Lost: its process ended" in entry.message for entry in instance.all_logs(lost.run_id))


def test_a_code_location_that_listens_answers_and_one_that_is_gone_does_not(instance):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = told(host="127.0.0.1", port=listening.getsockname()[1])
        run = stored_run(instance, status=STARTED, tags=address)
        assert answers(address_of(run))
    assert not answers(address_of(run))


def test_a_run_is_not_marked_before_the_code_location_is_back_or_given_up(instance):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))  # and does not listen yet
        run = stored_run(instance, status=STARTED, tags=told(host="127.0.0.1", port=listening.getsockname()[1]))
        seen = []

        def pause(seconds, status=lambda: instance.get_run_by_id(run.run_id).status):
            seen.append((seconds, status()))
            listening.listen()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipelines.code_location.time.sleep", pause)
            fail(instance, [run.run_id], pause=15)
    assert seen == [(1, STARTED), (15, STARTED)]
    assert instance.get_run_by_id(run.run_id).status == FAILURE
