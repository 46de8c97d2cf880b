"""The deployment at work: health checks, runs through the queue, what is made up for, and what nobody is shown."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.deploy.conftest import SECRETS
from tests.deploy.deployment import COMPOSE, ROOT, RUN, commands, selector
from tests.deploy.postgres import postgres
from tests.pipelines.token_search import forms, places
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.long("PostgreSQL and every service of the deployment")

FEW = 8
RUNS = int(os.environ.get("FINETUNING_RUNS", FEW))
SHOWN = """
query ($repository: RepositorySelector!) {
  instance { info runLauncher { name } daemonHealth { allDaemonStatuses { daemonType healthy } } }
  workspaceOrError { ... on Workspace { locationEntries { name displayMetadata { key value } } } }
  allTopLevelResourceDetailsOrError(repositorySelector: $repository) {
    ... on ResourceDetailsList { results {
      name configuredValues { key value type } configFields { name description defaultValueAsJson }
    } }
  }
  utilizedEnvVarsOrError(repositorySelector: $repository) { ... on EnvVarWithConsumersList { results { envVarName } } }
  runsOrError { ... on Runs { results {
    runId runConfigYaml tags { key value }
    eventConnection { events { ... on MessageEvent { message } } }
  } } }
}
"""
RELOAD = """
mutation ($location: String!) { reloadRepositoryLocation(repositoryLocationName: $location) { __typename } }
"""
PARTITIONS = '{ assetNodes(assetKeys: [{path: ["raw_dataset"]}]) { partitionKeys } }'
MATERIALIZE = ["dagster", "asset", "materialize", "-m", "pipelines.definitions"]
REPOSITORY = {"repositoryLocationName": "pipelines.definitions", "repositoryName": "__repository__"}


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_every_service_starts_and_its_own_health_check_says_so(deployment, service):
    deployment.becomes_healthy(service)


@pytest.fixture(scope="module")
def rows(deployment):
    """A run of the real code location, through the queue, that made the rows of `tiny`."""
    params = {
        "selector": selector("pipelines.definitions", "main_line") | {"assetSelection": [{"path": ["raw_dataset"]}]},
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": "tiny"}]},
    }
    launched = deployment.launch(params)
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return deployment.finished(launched["run"]["runId"])


def idle(job, tag, **config):
    """How a job of the second code location is launched."""
    op = {"no_op": "leave_a_line", "waits": "wait_for_file"}[job]
    return {
        "selector": selector("idle", job),
        "runConfigData": {"ops": {op: {"config": config}}},
        "executionMetadata": {"tags": [{"key": "test", "value": tag}]},
    }


def test_a_partition_is_materialized_through_queue_and_code_location(deployment, rows):
    assert rows["status"] == "SUCCESS"
    assert list((deployment.root / "data" / "artifacts" / "raw_dataset" / "tiny").glob("*/artifact.json"))


def stop_between_launches(deployment):
    """The daemon stands still, and no run is just being handed over, which would take two minutes more."""
    daemon = deployment.processes["daemon"]
    for _ in range(10):
        daemon.send_signal(signal.SIGSTOP)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if "STARTING" not in {run["status"] for run in deployment.runs("at once")}:
                return
            time.sleep(0.3)
        daemon.send_signal(signal.SIGCONT)
        time.sleep(1)


def test_of_runs_launched_at_once_none_is_lost_or_done_twice_when_the_daemon_is_killed(deployment):
    file = deployment.root / "lines"
    params = [idle("no_op", "at once", number=number, file=str(file)) for number in range(RUNS)]
    with ThreadPoolExecutor(8) as pool:
        assert {answer["__typename"] for answer in pool.map(deployment.launch, params)} == {"LaunchRunSuccess"}

    def done():
        return len(file.read_text().splitlines()) if file.exists() else 0

    until(lambda: done() >= RUNS // 4, lambda: deployment.said("daemon"), seconds=PATIENCE + 10 * RUNS)
    if RUNS == FEW:
        stop_between_launches(deployment)
    assert done() < RUNS, "the daemon is to be killed in the middle"
    deployment.kill("daemon")
    deployment.start("daemon")

    def successes():
        return sorted(
            run["rootRunId"] or run["runId"] for run in deployment.runs("at once") if run["status"] == "SUCCESS"
        )

    until(lambda: len(successes()) >= RUNS, lambda: deployment.said("daemon"), seconds=PATIENCE + 10 * RUNS)
    launched = sorted(run["runId"] for run in deployment.runs("at once") if not run["parentRunId"])
    assert successes() == launched and len(launched) == RUNS
    assert sorted(map(int, file.read_text().splitlines())) == list(range(RUNS))


def test_a_run_that_was_lost_with_its_code_location_is_started_again(deployment):
    file = deployment.root / "go on"
    deployment.launch(idle("waits", "lost", file=str(file)))
    until(lambda: [run["status"] for run in deployment.runs("lost")] == ["STARTED"])
    deployment.kill("idle")
    deployment.start("idle")
    file.touch()
    until(lambda: len(deployment.runs("lost")) == 2, lambda: deployment.said("daemon"))
    (first,) = [run for run in deployment.runs("lost") if not run["parentRunId"]]
    assert first["status"] == "FAILURE" and first["runId"] in deployment.said("idle")
    (second,) = [run for run in deployment.runs("lost") if run["parentRunId"]]
    assert deployment.finished(second["runId"])["status"] == "SUCCESS"


def test_a_new_recipe_is_a_partition_after_a_reload_and_a_run_at_work_goes_on(deployment):
    file = deployment.root / "after the reload"
    launched = deployment.launch(idle("waits", "reload", file=str(file)))["run"]["runId"]
    until(lambda: deployment.run(launched)["status"] == "STARTED")
    tiny = deployment.root / "recipes" / "tiny.yaml"
    tiny.with_name("new.yaml").write_text(tiny.read_text())
    for location in ("pipelines.definitions", "idle"):
        deployment.ask(RELOAD, location=location)
    keys = deployment.ask(PARTITIONS)["assetNodes"][0]["partitionKeys"]
    assert {"tiny", "new", "smollm2-135m"} <= set(keys)
    file.touch()
    assert deployment.finished(launched)["status"] == "SUCCESS"


def test_the_read_only_server_shows_and_starts_nothing(deployment, rows):
    params = idle("no_op", "refused", number=0, file=str(deployment.root / "refused"))
    assert deployment.launch(params, "viewer")["__typename"] == "UnauthorizedError"
    assert not deployment.runs("refused")
    assert deployment.ask(RUN, "viewer", id=rows["runId"])["runOrError"]["status"] == "SUCCESS"


def test_no_secret_is_shown_or_written_anywhere(deployment, rows):
    shown = deployment.ask(SHOWN, repository=REPOSITORY)
    assert "PostgresRunStorage" in shown["instance"]["info"]
    assert rows["runId"] in {run["runId"] for run in shown["runsOrError"]["results"]}
    assert {resource["name"] for resource in shown["allTopLevelResourceDetailsOrError"]["results"]} >= {"hub", "gpu"}
    answer = deployment.ask_raw(SHOWN, repository=REPOSITORY).encode()
    for name, secret in SECRETS.items():
        assert not [form for form in forms(secret) if form in answer], name
        assert not places(secret, deployment.root), name


def test_the_hubs_token_is_known_to_the_code_location_alone(deployment):
    knowing = {name for name in COMPOSE["services"] if SECRETS["HF_TOKEN"] in deployment.environment(name).values()}
    assert knowing == {"code"}
    assert not any((ROOT / "deploy" / name).exists() for name in ("storage", "history", ".telemetry"))


def test_what_was_backed_up_by_the_guides_commands_comes_back_by_them(deployment, rows, tmp_path):
    deployment.follow(commands("Backup"), tmp_path)
    deployment.stop()
    with postgres(SECRETS["DAGSTER_PG_PASSWORD"]) as empty:
        deployment.move_to(empty)
        deployment.follow(commands("Restore"), tmp_path)
        migrate = next(line for line in commands("Upgrade").splitlines() if line.endswith("instance migrate"))
        deployment.follow(migrate, tmp_path)
        again = deployment.carry_out([*MATERIALIZE, "--select", "raw_dataset", "--partition", "tiny"], "code")
        assert again.returncode == 0 and "reused," in again.stdout, again.stdout
        history = deployment.carry_out(["dagster", "run", "list"], "code").stdout
        assert rows["runId"] in history and history.count("Run: ") > 1
