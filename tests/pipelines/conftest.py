"""A tiny recipe, and a world in which it has been through the main line once, for each module that asks for them."""

import pytest

from tests.pipelines.command import World, shipped_instance
from tests.pipelines.main_line import PASSES
from tests.tiny_models import ZEPHYR, save_tiny_model


@pytest.fixture(scope="module")
def base_model(tmp_path_factory):
    return save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("base") / "tiny-llama", ZEPHYR)


@pytest.fixture(scope="module")
def recipe(base_model):
    return {
        "summary": "A tiny model that learns nothing much",
        "base_model": {"repo": str(base_model)},
        "dataset": {
            "sources": [
                {
                    "generator": "linear-equations",
                    "format": "question-answer",
                    "columns": {"question": "Problem", "answer": "Solution"},
                    "rows": 24,
                }
            ],
            "eval": {"fraction": 0.25},
        },
        "lora": {"r": 4, "lora_alpha": 8},
        "training": {"max_steps": 2, "per_device_train_batch_size": 2},
        "evaluation": {"metrics": ["exact-match"], "rows": 6, "max_new_tokens": 64, "gate": PASSES},
        "hub": {"repo": "tiny-adapter", "license": "apache-2.0"},
    }


@pytest.fixture(scope="module")
def through_the_line():
    """How the world's first run is made: in a fork, except where the command as users give it is what is tested."""
    return World.materialize_warm


@pytest.fixture(scope="module")
def world(tmp_path_factory, recipe, through_the_line):
    """A world with the instance that is shipped, in which the tiny recipe has been through the main line once."""
    root = tmp_path_factory.mktemp("world")
    world = World(root, instance=shipped_instance(root))
    world.write_recipe("tiny", recipe)
    first = through_the_line(world, "tiny")
    assert first.returncode == 0, first.stdout[-4000:]
    (world.root / "first.log").write_text(first.stdout)
    return world
