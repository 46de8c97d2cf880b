"""What only a GPU can prove is tried part by part: one that fails or hangs is on record, and the others go on."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import gpu_acceptance
from benchmarks.acceptance import recipes
from benchmarks.acceptance.findings import Findings
from benchmarks.gpu_acceptance import PARTS, limited


def test_all_parts_together_have_25_minutes_and_each_is_a_command():
    assert sum(part.seconds for part in PARTS) <= 25 * 60
    folder = Path(recipes.__file__).parent
    assert {part.name for part in PARTS} - {"speed"} <= {path.stem for path in folder.glob("*.py")}


def test_a_command_that_hangs_ends_with_all_that_it_started(tmp_path):
    child = "import subprocess, sys, time; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    began, said = limited([sys.executable, "-c", f"print('begun', flush=True); {child}"], 3, tmp_path / "log")
    assert (began, said) == ("after 3 s", "begun\n")


def test_what_ends_in_an_error_is_written_down_and_the_next_is_tried(tmp_path):
    findings = Findings("part", tmp_path / "findings.jsonl")
    for name in ("one", "two"):
        with findings.trying(name):
            raise ValueError(f"no {name}")
    lines = [json.loads(line) for line in findings.file.read_text().splitlines()]
    assert [(line["name"], line["passed"], line["error"]) for line in lines] == [
        ("one", False, "ValueError: no one"),
        ("two", False, "ValueError: no two"),
    ]


@pytest.mark.long("a process for each part")
def test_the_same_code_runs_on_a_cpu_and_a_wrong_number_is_an_exit_code(tmp_path, capsys):
    out = tmp_path / "found.jsonl"
    with pytest.raises(SystemExit) as ended:
        gpu_acceptance.main(["--device", "cpu", "--tiny", "--parts", "agreement", "generation", "--out", str(out)])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ended.value.code == 0 and last["failed"] == []
    first, *found = (json.loads(line) for line in out.read_text().splitlines())
    assert first["versions"].keys() >= {"python", "torch"} and len(found) == last["found"] > 7
    assert {it["name"] for it in found if it["passed"]} >= {"NF4: weights", "varlen, rows end to end"}


def test_without_small_layers_a_cpu_is_refused():
    with pytest.raises(SystemExit) as ended:
        gpu_acceptance.main(["--device", "cpu"])
    assert ended.value.code == 2
