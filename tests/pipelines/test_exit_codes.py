"""The exit code of `python -m pipelines.results`, after the commands that users run; others are beside their runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from assets.evaluation_report import evaluation_report
from pipelines.results import CODES_IN_WORDS, has_gate
from resources.artifacts import Artifacts
from tests.pipelines.command import IN_PROCESS, ROOT, World


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("world"))
    (world.root / "rows.jsonl").write_text('{"question": "2 + 3?", "answer": "#### 5"}\n' * 8)
    for name, file in (("right", "rows.jsonl"), ("missing", "nowhere.jsonl")):
        world.write_recipe(name, recipe(world, file))
    world.write_recipe("wrong", recipe(world, "rows.jsonl") | {"lora": {"r": -1}})
    return world


def recipe(world: World, file: str) -> dict:
    return {
        "summary": "Adds",
        "base_model": {"repo": "some/model"},
        "dataset": {"sources": [{"files": [str(world.root / file)], "format": "question-answer"}]},
        "hub": {"repo": "sums", "license": "mit"},
    }


def launch(world: World, partition: str):
    """What `dg launch` answered."""
    options = ["--assets", "raw_dataset", "--partition", partition, "--config-json", IN_PROCESS]
    # `-m` would need the name of the package's inner module.
    dg = Path(sys.executable).with_name("dg").read_text()
    return world.python("-c", dg, "launch", *options)


def test_without_a_report_and_for_all_recipes_no_gate_is_spoken_of(tmp_path):
    assert not has_gate(Artifacts(root=str(tmp_path)), "right")
    assert "3 verdict" in CODES_IN_WORDS and "gate" not in CODES_IN_WORDS
    (check,) = evaluation_report.check_specs
    assert "or, where it sets none, the rules" in str(check.description)


def test_what_went_well_is_0_and_needs_no_report(world):
    assert world.materialize("right", select="raw_dataset").returncode == 0
    told = world.results("right", "--after", "0")
    assert (told.returncode, told.stdout.strip()) == (0, "")


def test_a_wrong_recipe_is_4_with_its_message(world):
    assert world.materialize_warm("wrong", select="raw_dataset").returncode == 1
    told = world.results("wrong", "--after", "1")
    assert told.returncode == 4
    assert "wrong failed by its recipe or data:\nraw_dataset: " in told.stdout and "lora.r: -1" in told.stdout


@pytest.mark.long("`dg launch` as users give it")
def test_a_missing_file_is_4_after_dg_launch_as_well_and_mended_it_is_0(world):
    assert launch(world, "missing").returncode == 1
    told = world.results("missing", "--after", "1")
    assert told.returncode == 4 and "no file matches" in told.stdout
    (world.root / "nowhere.jsonl").write_text((world.root / "rows.jsonl").read_text())
    assert launch(world, "missing").returncode == 0
    assert world.results("missing").returncode == 0


def test_an_error_that_nobody_foresaw_is_1(world):
    world.write_recipe("strange", recipe(world, "rows.jsonl"))
    (world.root / "artifacts" / "raw_dataset" / "strange" / ".lock").mkdir(parents=True)
    assert world.materialize_warm("strange", select="raw_dataset").returncode == 1
    told = world.results("strange", "--after", "1")
    assert told.returncode == 1 and "strange failed for a reason that nobody foresaw:\nraw_dataset: " in told.stdout


def test_artifacts_in_the_place_of_a_file_are_told_by_the_variable_that_says_so(world):
    taken = str(world.root / "rows.jsonl")
    assert world.materialize_warm("right", select="raw_dataset", FINETUNING_ARTIFACTS=taken).returncode == 1
    told = world.results("right", "--after", "1")
    assert "FINETUNING_ARTIFACTS" in told.stdout and taken in told.stdout and "nobody foresaw" not in told.stdout


def test_a_command_that_began_no_run_hands_its_own_code_on(world):
    world.write_recipe("idle", recipe(world, "rows.jsonl"))
    told = world.results("idle", "--after", "2")
    assert told.returncode == 2 and "idle: no run began: there is none in this Dagster instance" in told.stdout
    assert world.materialize_warm("idle", select="raw_dataset").returncode == 0
    told = world.results("idle", "--after", "2")
    assert told.returncode == 2 and "idle: no run began: the last one, " in told.stdout


def test_what_was_asked_wrongly_is_2(world):
    unknown = world.results("rihgt")
    assert unknown.returncode == 2 and "nearest is right" in unknown.stdout
    variable = world.results("right", FINETUNING_SMOKE="yes")
    assert variable.returncode == 2 and "FINETUNING_SMOKE: 'yes' is neither 1" in variable.stdout
    assert "Traceback" not in unknown.stdout + variable.stdout


@pytest.mark.long("the demo's own command")
def test_a_demo_that_fails_runs_the_job_and_ends_with_the_message_in_full(world):
    # `-o`: what is installed is not installed anew. A `make` within another says where it is, unless told not to.
    quiet = ["--no-print-directory", "-o", ".venv/installed"]
    command = ["make", *quiet, "demo", "RECIPE=wrong", f"BIN={Path(sys.executable).parent}"]
    told = subprocess.run(
        command,
        cwd=ROOT,
        env=world.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (
        told.returncode == 2 and " - main_line - " in told.stdout
    )  # make's own code; the command's is in its last line
    before, _, last = told.stdout.rpartition("wrong failed by its recipe or data:\n")
    assert "Stack Trace" in before and "Stack Trace" not in last and "Traceback" not in last
    *messages, made = last.splitlines()
    assert made.startswith("make") and "***" in made and made.endswith("Error 4")
    assert messages and all("lora.r: -1 is not a positive number" in message for message in messages)
