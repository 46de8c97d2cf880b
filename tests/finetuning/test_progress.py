"""Progress: a line every few seconds, whatever the work does."""

import time

from finetuning.progress import Progress, pause


def test_work_that_says_nothing_is_not_silent():
    lines = []
    with Progress(lines.append, "working", every=0.05):
        time.sleep(0.4)
    assert lines[0] == "working"
    assert len(lines) >= 4


def test_the_newest_state_is_said():
    lines = []
    with Progress(lines.append, "step 1", every=0.05) as progress:
        progress.update("step 2")
        time.sleep(0.12)
    assert lines[-1].startswith("step 2")


def test_nothing_is_said_after_the_work():
    lines = []
    with Progress(lines.append, "working", every=0.05):
        pass
    said = len(lines)
    time.sleep(0.15)
    assert len(lines) == said


def test_the_longer_it_takes_the_fewer_lines_are_said():
    assert [pause(seconds) for seconds in (0, 300, 1800, 3600, 36000)] == [5, 5, 30, 60, 60]
