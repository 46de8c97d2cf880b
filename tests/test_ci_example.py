"""The example for GitHub Actions: its steps are run as they stand there, as far as no machine has to be installed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.pipelines.command import ROOT, World
from tests.waiting import PATIENCE

pytestmark = pytest.mark.long("a smoke run of the whole line, as users' CI starts it")

EXAMPLE = yaml.safe_load((ROOT / "docs" / "examples" / "github-actions.yaml").read_text())
STEPS = {step["name"]: step for job in EXAMPLE["jobs"].values() for step in job["steps"] if "name" in step}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("world"))
    source = {"files": [str(world.root / "rows.jsonl")], "format": "question-answer"}
    (world.root / "rows.jsonl").write_text('{"question": "2 + 3?", "answer": "#### 5"}\n' * 8)
    recipe = {
        "summary": "Adds",
        "base_model": {"repo": "some/model"},
        "dataset": {"sources": [source]},
        "hub": {"repo": "sums", "license": "mit"},
    }
    world.write_recipe("sums", recipe)
    gone = {"sources": [source | {"files": [str(world.root / "gone.jsonl")]}]}
    (world.root / "gone.jsonl").write_text((world.root / "rows.jsonl").read_text())
    world.write_recipe("none", recipe | {"dataset": gone, "hub": {"repo": "none", "license": "mit"}})
    return world


def run(world: World, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a step of that name answered, in the shell that GitHub starts."""
    own = {key: value for key, value in STEPS[name].get("env", {}).items() if "${{" not in value}
    path = f"{Path(sys.executable).parent}:{world.environment['PATH']}"
    # What the step writes in its working directory would lie in the checkout.
    script = STEPS[name]["run"].replace("result.txt", str(world.root / "result.txt"))
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=ROOT,
        env={**world.environment, **own, "PATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_its_actions_have_versions_and_its_secret_is_out_of_reach_of_pull_requests():
    used = [step["uses"] for job in EXAMPLE["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[\w-]+@v\d+", name) for name in used)
    assert "secrets." not in yaml.safe_dump(EXAMPLE["jobs"]["smoke"])
    assert EXAMPLE["jobs"]["train"]["if"] == "github.event_name != 'pull_request'"
    assert STEPS["Smoke run"]["run"] == STEPS["Train"]["run"], "so that what is tested here is what trains"


def test_its_installation_is_the_makefiles():
    (install,) = [step["run"] for step in EXAMPLE["jobs"]["smoke"]["steps"] if step.get("name") == "Install"]
    wanted = re.findall(r"pip install -q -c constraints\.txt .*?(\S+)\n", (ROOT / "Makefile").read_text())
    there = re.findall(r"pip install -q -c constraints\.txt .*?(\S+)\n", install)
    assert (
        there
        == [
            name.replace("benchmarks,cluster,curves,dev,knowledge,postgres,s3", "benchmarks,knowledge")
            for name in wanted
        ]
        and len(there) == 3
    )


def test_the_validation_passes_as_it_stands_there(world):
    answer = run(world, "Validate")
    assert answer.returncode == 0, answer.stdout
    assert "sums: right (Adds)" in answer.stdout and "All code locations passed validation" in answer.stdout


def test_the_smoke_run_ends_well_and_its_failure_is_an_annotation_with_the_code(world):
    summary = world.root / "summary.md"
    environment = {"RECIPE": "sums", "SELECT": "raw_dataset", "GITHUB_STEP_SUMMARY": str(summary)}
    well = run(world, "Smoke run", **environment)
    assert well.returncode == 0 and "::error" not in well.stdout, well.stdout[-3000:]
    assert list((world.root / "artifacts").glob("smoke/raw_dataset/sums/*/artifact.json"))
    (world.root / "gone.jsonl").unlink()
    told = run(world, "Validate")
    assert told.returncode == 1 and "gone.jsonl" in told.stdout
    failed = run(world, "Smoke run", **environment | {"RECIPE": "none"})
    assert failed.returncode == 4
    (line,) = [line for line in failed.stdout.splitlines() if line.startswith("::error")]
    assert line.startswith("::error title=none: Bad recipe or data::none failed by its recipe or data: raw_dataset:")
    assert "no file matches" in line and "no file matches" in summary.read_text()
