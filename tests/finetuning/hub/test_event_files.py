"""TensorBoard's files as they are published: all of the curves, in one file, and nothing else."""

import pytest
from tensorboardX import SummaryWriter

from finetuning.hub.event_files import read_events, write_curves


@pytest.fixture
def events(tmp_path):
    """The files of a training that died after step 30, of which 20 was saved, and went on to step 40."""
    for number, steps in enumerate([(10, 20, 30), (30, 40)]):
        writer = SummaryWriter(log_dir=str(tmp_path / "tensorboard"), filename_suffix=f".{number}")
        writer.add_text("args", '{"output_dir": "/home/me/artifacts", "summary": "a word of the data"}')
        for step in steps:
            writer.add_scalar("train/loss", step + 0.5 * number, step)
        writer.close()
    return tmp_path / "tensorboard"


def test_every_point_is_there_once_as_it_was_made_last(events, tmp_path):
    path = write_curves(events, tmp_path / "runs", "phi-2")
    assert path is not None
    first, *points = read_events(path)
    assert first.file_version == "brain.Event:2"
    assert [(e.step, e.summary.value[0].tag, e.summary.value[0].simple_value) for e in points] == [
        (10, "train/loss", 10.0),
        (20, "train/loss", 20.0),
        (30, "train/loss", 30.5),
        (40, "train/loss", 40.5),
    ]


def test_no_text_and_no_machine_is_named(events, tmp_path):
    path = write_curves(events, tmp_path / "runs", "phi-2")
    assert path is not None and path.name.endswith(".phi-2")
    assert b"home" in b"".join(file.read_bytes() for file in events.iterdir())
    assert b"home" not in path.read_bytes() and b"a word of the data" not in path.read_bytes()


def test_a_file_that_a_dying_process_left_is_read_as_far_as_it_goes(events, tmp_path):
    for file in events.iterdir():
        file.write_bytes(file.read_bytes()[:-3])
    path = write_curves(events, tmp_path / "runs", "phi-2")
    assert path is not None
    assert [event.step for event in read_events(path)][1:] == [10, 20, 30]


def test_without_curves_there_is_no_file(tmp_path):
    assert write_curves(tmp_path / "tensorboard", tmp_path / "runs", "phi-2") is None
    assert not (tmp_path / "runs").exists()
