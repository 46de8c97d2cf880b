"""Every shipped recipe trains on a GPU by shapes alone: its number formats, its kernels, its two steps and evaluation.

Two layers of its base model, in passes of the recipe's own size, of which a step has one.
"""

from functools import cache

import pytest

from finetuning.memory.savings import with_settings
from finetuning.recipe.loading import find, load
from finetuning.recipe.recipe import Recipe
from tests.fake_gpu.device import obstacle
from tests.fake_gpu.models import SHAPES, config_of
from tests.fake_gpu.traces import Trace, Training, fake_gpu

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=str(obstacle()))

# What is called where a recipe's first kernel is this one.
CALLED = {"flash_attention_2": {"flash_attention_2"}, "sdpa": {"sdpa: flash"}, "eager": set()}
PHASES = ("step 1", "step 2", "evaluation")


# A layer that looks back less far than a row is long takes a mask, and with it another kernel.
WITH_A_WINDOW = {"gemma-3-1b": {"sdpa: efficient"}}


def training_of(recipe: Recipe) -> Training:
    """Two steps of the recipe, whose passes have rows of the full length and shorter ones."""
    length, rows = recipe.chat.max_length, 2 * recipe.training.per_device_train_batch_size
    one_pass = with_settings(recipe, {"training.gradient_accumulation_steps": 1})
    return Training(one_pass, config_of(recipe.name, layers=2), [length, length * 3 // 4] * rows)


@pytest.fixture(scope="module")
def traced(h100):
    return cache(lambda name: h100(training_of(load(name))))


# Answers that are drawn, and what they are worth, are numbers, which shapes do not have.
TRACED = [name for name in sorted(find()) if load(name).training.method != "grpo"]


@pytest.fixture(params=TRACED)
def trace(request, traced) -> tuple[Recipe, Trace]:
    return load(request.param), traced(request.param)


def test_the_shapes_of_every_recipes_base_model_are_known():
    assert set(SHAPES) == set(find())


def test_two_steps_and_an_evaluation_hold_more_than_the_weights(trace):
    _, found = trace
    assert len(found.peaks) == 2
    assert min(*found.peaks, found.eval_peak) > found.weights > 0


def test_matrices_are_multiplied_in_bfloat16_alone(trace):
    _, found = trace
    assert {phase: set(found.products[phase]) for phase in PHASES} == {phase: {"bfloat16"} for phase in PHASES}


def test_the_kernel_that_the_recipe_names_is_the_one_that_is_called(trace):
    recipe, found = trace
    called = CALLED[recipe.base_model.attention[0]] | WITH_A_WINDOW.get(recipe.name, set())
    # Rows that lie end to end, and a single one too, are told where they end, but by Falcon, which hands nothing on.
    if not recipe.name.startswith("falcon"):
        called = {"flash_attention_2: varlen" if name == "flash_attention_2" else name for name in called}
    assert [set(found.attention.get(phase, ())) for phase in PHASES] == [called] * 3


@pytest.mark.parametrize("name", ["mistral-7b-fennec", "phi-2", "gemma-3-1b"])
def test_a_gpu_without_bfloat16_trains_in_float16_and_scales_its_loss(t4, name):
    changes = {"base_model.dtype": "float16", "base_model.attention": ("sdpa",)}
    found = t4(training_of(with_settings(load(name), changes)))
    assert {phase: set(found.products[phase]) for phase in PHASES} == {phase: {"float16"} for phase in PHASES}
    assert found.scales_loss


@pytest.fixture(scope="module")
def t4():
    with fake_gpu("T4") as traced:
        yield traced
