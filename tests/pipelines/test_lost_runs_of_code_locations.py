import json

import dagster as dg
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.test_utils import create_run_for_test

from pipelines.lost_runs import fail_lost_runs

STARTED, SUCCESS = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS


def test_of_the_runs_in_progress_those_are_failed_whose_code_location_does_not_answer(tmp_path):
    gone = {GRPC_INFO_TAG: json.dumps({"host": "localhost", "socket": str(tmp_path / "socket")})}
    with dg.DagsterInstance.ephemeral() as instance:
        lost = create_run_for_test(instance, status=STARTED, tags=gone)
        others = [
            create_run_for_test(instance, status=STARTED),
            create_run_for_test(instance, status=SUCCESS, tags=gone),
        ]
        assert fail_lost_runs(instance) == [lost.run_id]
        assert [run.status for run in instance.get_runs() if run.run_id == lost.run_id] == [dg.DagsterRunStatus.FAILURE]
        assert {instance.get_run_by_id(run.run_id).status for run in others} == {STARTED, SUCCESS}
        assert any("Lost: its process ended" in entry.message for entry in instance.all_logs(lost.run_id))
