"""Compute logs: everything is in them, and a terminal sees the lines of the steps alone."""

import subprocess
import sys
from pathlib import Path

STEP = """
import logging, subprocess, sys, warnings
from resources.compute_logs import FoldedComputeLogs
from resources.dagster_internals import create_console_logger

log = create_console_logger("dagster", logging.INFO)
with FoldedComputeLogs(base_dir=sys.argv[1]).capture_logs(["run", "compute_logs", "step"]):
    log.info("step 1/2\\nof this many")
    warnings.warn("old and deprecated")
    print("{'loss': 2.0}")
    subprocess.run(["sh", "-c", "echo from a child >&2"])
    log.info("step 2/2")
log.info("after the step")
"""


def test_what_libraries_print_is_in_the_files_alone(tmp_path):
    ran = subprocess.run([sys.executable, "-c", STEP, str(tmp_path)], capture_output=True, text=True, check=True)
    folder = tmp_path / "run" / "compute_logs"
    out, err = (Path(folder / f"step.{kind}").read_text() for kind in ("out", "err"))
    assert (folder / "step.complete").exists()
    assert [line.split(" - ")[-1] for line in ran.stderr.splitlines()] == [
        "step 1/2",
        "of this many",
        "step 2/2",
        "after the step",
    ]
    assert ran.stdout == "" and out == "{'loss': 2.0}\n"
    assert all(text in err for text in ("step 1/2\nof this many", "old and deprecated", "from a child", "step 2/2"))
    assert "after the step" not in err


def test_a_step_that_fails_leaves_the_terminal_as_it_was(tmp_path):
    code = STEP.replace('print("{', '1 / 0; print("{')
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "ZeroDivisionError" in ran.stderr and "deprecated" not in ran.stderr
    assert "deprecated" in (tmp_path / "run" / "compute_logs" / "step.err").read_text()
