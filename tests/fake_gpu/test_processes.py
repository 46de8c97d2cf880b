"""What one of eight processes does that train together, beside what a process does that trains alone.

Nothing is sent: what is left out is that processes wait for each other, and one collective more, by which torch finds
out which of the trained numbers no process has used.
"""

from functools import cache

import pytest

from finetuning.memory.prediction import Prediction, predict
from finetuning.memory.savings import with_settings
from finetuning.recipe.loading import load
from finetuning.recipe.recipe import Recipe
from tests.fake_gpu.device import obstacle
from tests.fake_gpu.models import config_of
from tests.fake_gpu.test_budgets import waits
from tests.fake_gpu.traces import Trace, Training

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=str(obstacle()))

PROCESSES, PASSES, LAYERS, LENGTH, NAME = 8, 2, 2, 512, "mistral-7b-fennec"
# Of the host for the GPU, once a step: for how many tokens all processes have, sent and read, and how many are learned.
WAITS = 3
# Of a step, all of gradients in one; those that count tokens; buffers of the model, which are the same everywhere.
COLLECTIVES = {"allreduce_": 2, "_allgather_base_": 2, "broadcast_": 1}


def recipe_of(processes: int, strategy: str) -> Recipe:
    changes = {
        "chat.max_length": LENGTH,
        "training.per_device_train_batch_size": 2,
        "training.gradient_accumulation_steps": PASSES,
        "training.activation_checkpointing": False,
        "resources.workers": processes,
        "resources.strategy": strategy,
        "base_model.attention": ("sdpa",),  # as a divided model does not train without padding
    }
    return with_settings(load(NAME), changes)


@pytest.fixture(scope="module")
def traced(h100):
    """A function that traces the first of so many processes."""

    @cache
    def traced(processes: int, strategy: str = "ddp") -> Trace:
        rows = [LENGTH] * (2 * 2 * PASSES * processes)
        recipe = recipe_of(processes, strategy)
        return h100(Training(recipe, config_of(NAME, LAYERS), rows, evaluates=False, processes=processes))

    return traced


@cache
def predicted(processes: int) -> Prediction:
    return predict(recipe_of(processes, "ddp"), config_of(NAME, LAYERS), "cuda")


def test_a_process_of_several_computes_on_as_many_rows_as_one_alone(traced):
    alone, together = traced(1), traced(PROCESSES)
    assert together.multiplications["step 2"] == alone.multiplications["step 2"]
    assert together.attention["step 2"] == alone.attention["step 2"]
    assert together.products["step 2"] == alone.products["step 2"]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_several_processes_wait_once_a_step_for_each_other_and_not_in_every_pass(traced, strategy):
    alone, together = traced(1), traced(PROCESSES, strategy)
    assert waits(together) <= waits(alone) + WAITS, together.waits["step 2"]


def test_gradients_are_exchanged_once_a_step_and_nothing_else_of_size(traced):
    found = traced(PROCESSES)
    called, sizes = found.collectives["step 2"], found.exchanged["step 2"]
    assert all(count <= COLLECTIVES.get(name, 0) for name, count in called.items()), called
    assert sizes.pop("allreduce_") == predicted(1).adapters
    assert sum(sizes.values()) < 2048


def test_a_divided_layer_is_gathered_for_each_direction_of_a_pass(traced):
    whole, found = traced(PROCESSES), traced(PROCESSES, "fsdp")
    called, sizes = found.collectives["step 2"], found.exchanged["step 2"]
    assert called["_allgather_base_"] == 2 * PASSES * LAYERS + COLLECTIVES["_allgather_base_"]
    assert sizes["allreduce_"] == predicted(1).adapters
    config = config_of(NAME)
    attention = 2 * config.hidden_size**2 * (1 + config.num_key_value_heads / config.num_attention_heads)
    numbers = attention + 3 * config.hidden_size * config.intermediate_size  # of a layer, two in a byte
    assert sizes["_allgather_base_"] == pytest.approx(2 * PASSES * LAYERS * numbers / 2, rel=0.001)
    assert whole.multiplications["step 2"] == found.multiplications["step 2"]


def test_the_memory_of_one_of_several_is_predicted_to_a_twentieth(traced):
    """With the gradients that lie in one piece to be exchanged, beside those of each tensor."""
    prediction = predicted(PROCESSES)
    peak = traced(PROCESSES).peaks[-1]
    assert prediction.total - prediction.libraries == pytest.approx(peak, rel=0.05)
    assert peak - traced(1).peaks[-1] == pytest.approx(prediction.exchange, rel=0.01)
