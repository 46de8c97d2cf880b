"""A training by rewards in two processes: killed at some moment, it ends with the same weights."""

import json

import pytest

from resources.launcher import Launcher
from tests.finetuning.reinforcement.group_jobs import SETTINGS, questions, tiny_model
from tests.finetuning.training.test_lost_training import ADAPTER, Training, until
from tests.waiting import PATIENCE

pytestmark = pytest.mark.long("two processes that train")
# Each has half of every group, and learns from the same answers twice.
HALVES = {**SETTINGS, "per_device_train_batch_size": 2, "num_iterations": 2, "max_steps": 12, "save_steps": 3}


class Rewarded(Training):
    """A training by rewards."""

    MODULE = "finetuning.memory.predicted_training"


def make_questions(folder):
    """`folder`, with a base model and questions."""
    model = tiny_model(folder / "model")
    questions(folder, model)
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_questions(tmp_path_factory.mktemp("inputs"))


def test_a_training_of_two_processes_that_was_killed_ends_with_the_same_weights(tmp_path, inputs):
    two = Launcher().start(2)
    whole, killed = (Rewarded(tmp_path / name, inputs, **HALVES) for name in ("whole", "killed"))
    assert whole.start(*two, OMP_NUM_THREADS="1").wait(PATIENCE) == 0, whole.words()[-3000:]
    process = killed.start(*two, OMP_NUM_THREADS="1", warm=False)
    until(lambda: max(killed.steps_saved(), default=0) >= 3, process)
    process.kill()
    process.wait(PATIENCE)
    assert killed.start(*two, OMP_NUM_THREADS="1").wait(PATIENCE) == 0, killed.words()[-3000:]
    assert "going on from the checkpoint of step" in killed.words()
    assert (killed.output / ADAPTER).read_bytes() == (whole.output / ADAPTER).read_bytes()
    curves = [json.loads(json.dumps(one.summary()["reward_curve"])) for one in (killed, whole)]
    assert curves[0] == curves[1] and len(curves[0]) == 6 and killed.summary()["processes"] == 2
