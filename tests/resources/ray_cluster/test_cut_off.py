"""What a killed process was writing is as it was before, and workers that die at one step are not started for ever."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resources.ray_cluster.board import Board
from resources.ray_internals import name_of_the_checkpoint_list

pytestmark = pytest.mark.long("a Ray cluster")


def test_the_list_of_checkpoints_that_a_killed_process_was_writing_is_as_it_was_before(tmp_path):
    path = tmp_path / name_of_the_checkpoint_list()
    source = f"""
import os
from resources.ray_cluster.training import files_at
files, place = files_at({str(path)!r})
with files.open_output_stream(place) as stream:
    stream.write(b"whole")
stream = files.open_output_stream(place)
stream.write(b"cut")
stream.flush()
os._exit(9)
"""
    assert (
        subprocess.run([sys.executable, "-c", source], env={**os.environ, "PYTHONPATH": str(Path.cwd())}).returncode
        == 9
    )
    assert path.read_bytes() == b"whole"


def test_workers_that_die_again_and_again_at_one_step_are_not_started_for_ever():
    board = Board()
    assert all(board.begin(step) for step in (-1, 4, 4, 8, 8, 8))
    assert not board.begin(8) and not board.may_go_on()
    lines, failure, _ = board.news()
    assert len(lines) == 6 and "died 3 times after step 8" in failure.text and failure.kind == "infrastructure"
