"""What became of a run, by its kind: well, or gate, input, infrastructure, fault."""

import errno

import dagster as dg
import pytest

from assets.failures import explained
from finetuning.errors import FAULT, GATE, INFRASTRUCTURE, INPUT, CrashError, FinetuningError, GateError, TransientError
from pipelines.outcomes import WELL, outcome_of


def asset_with(name: str, passed: bool, severity=dg.AssetCheckSeverity.ERROR):
    """An asset with one blocking check of that name."""

    @dg.asset(name="data", check_specs=[dg.AssetCheckSpec(name, asset="data", blocking=True)])
    def data():
        found = dg.AssetCheckResult(check_name=name, passed=passed, severity=severity, description="misses by 0.1")
        return dg.MaterializeResult(check_results=[found])

    return data


def failing(error: BaseException, retries: int = 0):
    """An asset whose step fails with that error."""

    @dg.asset(name="model", retry_policy=dg.RetryPolicy(max_retries=retries, delay=0))
    @explained()
    def model():
        raise error

    return model


def outcome(*assets, kind=None):
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize(list(assets), instance=instance, raise_on_error=False)
        found = instance.get_run_by_id(run.run_id)
        assert found
        return outcome_of(instance, found)


class OutOfMemoryError(RuntimeError):
    """Called as torch's is."""


def test_a_run_without_trouble_went_well_and_a_warning_is_none():
    assert outcome(asset_with("verdict", True)) == (WELL, [])
    assert outcome(asset_with("verdict", False, dg.AssetCheckSeverity.WARN)) == (WELL, [])


@pytest.mark.parametrize(
    ("check", "kind"), [("verdict", GATE), ("same_answers", GATE), ("bad_rows", INPUT), ("overlap", INPUT)]
)
def test_a_check_that_ends_a_run_is_of_the_model_or_of_the_data(check, kind):
    assert outcome(asset_with(check, False)) == (kind, [f"{check}: misses by 0.1"])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/artifacts/raw_dataset"), INFRASTRUCTURE),
        (OSError(errno.EROFS, "Read-only file system", "/artifacts"), INFRASTRUCTURE),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "rows.py"), FAULT),
        (FinetuningError("no file matches"), INPUT),
        (GateError("not published"), GATE),
        (CrashError("code 1"), FAULT),
        (KeyError("a slip"), FAULT),
        (OSError(2, "No such file"), FAULT),
        (OSError(28, "No space left on device"), INFRASTRUCTURE),
        (MemoryError(), INFRASTRUCTURE),
        (OutOfMemoryError("CUDA out of memory"), INFRASTRUCTURE),
    ],
    ids=repr,
)
def test_a_step_that_fails_is_of_the_kind_of_its_error(error, kind):
    found = outcome(failing(error))
    assert found.kind == kind
    assert len(found.reasons) == 1 and found.reasons[0].startswith("model: ")


def test_what_passes_is_infrastructure_once_all_tries_are_over():
    assert outcome(failing(TransientError("the hub is out"), retries=2)) == (INFRASTRUCTURE, ["model: the hub is out"])


def test_a_gate_says_nothing_where_something_else_broke():
    gate = asset_with("verdict", False)
    for error, kind in ((MemoryError(), INFRASTRUCTURE), (FinetuningError("bad"), INPUT), (ValueError("slip"), FAULT)):
        found = outcome(gate, failing(error))
        assert found.kind == kind and len(found.reasons) == 2


def test_a_warning_beside_a_failure_is_not_told_as_its_reason():
    warning = asset_with("verdict", False, dg.AssetCheckSeverity.WARN)
    assert outcome(warning, failing(FinetuningError("bad"))) == (INPUT, ["model: bad"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), dg.DagsterExecutionInterruptedError()], ids=repr)
def test_a_run_that_was_interrupted_is_infrastructure(error):
    assert outcome(failing(error)).kind == INFRASTRUCTURE


def test_a_run_that_never_came_to_its_end_is_infrastructure():
    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.define_asset_job("line", selection="data").resolve(
            asset_graph=dg.Definitions(assets=[asset_with("verdict", True)]).resolve_asset_graph()
        )
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        kind, reasons = outcome_of(instance, run)
        assert kind == INFRASTRUCTURE and "is STARTED: it was killed or cancelled, or goes on still" in reasons[0]
        # As the daemon says of a run whose process is gone.
        instance.report_run_failed(run, "Detected run worker status UNKNOWN: 'None'. Marking run as failed")
        failed = instance.get_run_by_id(run.run_id)
        assert failed
        assert outcome_of(instance, failed).kind == INFRASTRUCTURE
