"""What a step may cost on a GPU beside its arithmetic: how often the host waits for it, and how many kernels it starts.

Numbers may fall, and are then written lower here.
"""

from functools import cache
from typing import Any

import pytest

from finetuning.memory.savings import with_settings
from finetuning.recipe.loading import load
from tests.fake_gpu.device import obstacle
from tests.fake_gpu.models import config_of
from tests.fake_gpu.traces import Trace, Training

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=str(obstacle()))

# Of the host for the GPU, in a pass: for whether there are several rows in one, and for where the supervised positions
# are, twice forward and once backward.
WAITS = 4
# Of a layer of Mistral-7B in 4 bits, forward and backward, without its attention's and optimizer's own.
KERNELS = 193
SHORT = {"chat.max_length": 512, "training.per_device_train_batch_size": 2, "training.gradient_accumulation_steps": 1}
PADDED = (512, 300)  # tokens of the rows of a pass


@pytest.fixture(scope="module")
def traced(h100):
    """A function that traces a recipe's first layers (Mistral-7B's) with other settings than its own."""

    @cache
    def traced(layers: int = 2, name: str = "mistral-7b-fennec", **changes: Any) -> Trace:
        settings = SHORT | {key.replace("__", "."): value for key, value in changes.items()}
        recipe = with_settings(load(name), settings)
        passes = 2 * recipe.training.gradient_accumulation_steps
        return h100(Training(recipe, config_of(name, layers), [*PADDED] * passes))

    return traced


def waits(trace: Trace, phase: str = "step 2") -> int:
    return sum(trace.waits.get(phase, {}).values())


@pytest.mark.parametrize("kernel", ["sdpa", "flash_attention_2", "varlen"])
def test_the_host_seldom_waits_whatever_the_kernel_and_the_layers(traced, kernel):
    for layers in (2, 4):
        found = traced(layers, base_model__attention=(kernel,))
        assert waits(found) <= WAITS, found.waits["step 2"]


CALLED = {"sdpa": "sdpa: flash", "flash_attention_2": "flash_attention_2: varlen", "varlen": "varlen"}


@pytest.mark.parametrize("kernel", CALLED)
def test_rows_are_read_by_a_flash_kernel_once_a_layer(traced, kernel):
    found = traced(base_model__attention=(kernel,), training__activation_checkpointing=False)
    assert [found.attention[phase] for phase in ("step 1", "step 2")] == [{CALLED[kernel]: 2}] * 2


@pytest.mark.parametrize("kernel", ["flash_attention_2", "varlen"])
def test_where_the_kernel_keeps_rows_apart_nothing_is_computed_of_padding(traced, kernel):
    padded, apart = (traced(base_model__attention=(name,)) for name in ("sdpa", kernel))
    tokens = sum(PADDED) / (len(PADDED) * max(PADDED))
    assert apart.multiplications["step 2"] == pytest.approx(tokens * padded.multiplications["step 2"], rel=0.02)
    assert apart.peaks[1] < padded.peaks[1]


@pytest.mark.parametrize(
    "name", ["mistral-7b-fennec", "zephyr-7b-beta", "llama-3.2-3b", "qwen3-4b-tools", "phi-4-mini"]
)
def test_a_single_row_a_pass_makes_the_host_wait_no_more(traced, name):
    found = traced(4, name, training__per_device_train_batch_size=1)
    assert waits(found) <= WAITS, found.waits["step 2"]


def test_a_step_of_several_passes_waits_no_more_than_each_does(traced):
    found = traced(training__gradient_accumulation_steps=3)
    assert waits(found) <= 3 * WAITS, found.waits["step 2"]


def test_activation_checkpointing_makes_the_host_wait_no_more_and_holds_less(traced):
    kept, computed = (traced(training__activation_checkpointing=value) for value in (False, True))
    assert waits(computed) <= WAITS
    assert computed.peaks[1] < kept.peaks[1]
    assert computed.kernels["step 2"] > kept.kernels["step 2"]


def test_rows_in_one_are_read_by_the_kernel_that_keeps_them_apart(traced):
    found = traced(training__packing=True, training__per_device_train_batch_size=1)
    assert set(found.attention["step 2"]) == {"flash_attention_2: varlen"}
    assert waits(found) <= WAITS, found.waits["step 2"]


@pytest.mark.parametrize("kernel", ["sdpa", "flash_attention_2"])
def test_pairs_of_answers_wait_for_two_passes(traced, kernel):
    preferences = {"training__method": "dpo", "training__beta": 0.1, "training__loss_type": "sigmoid"}
    found = traced(base_model__attention=(kernel,), **preferences)
    # The pass without gradients has no backward pass to wait in.
    assert waits(found) <= 2 * WAITS - 1, found.waits["step 2"]
    assert set(found.attention["step 2"]) == {{"sdpa": "sdpa: flash"}.get(kernel, kernel)}
    assert set(found.products["step 2"]) == {"bfloat16"}


def test_an_evaluation_waits_for_the_loss_of_each_batch_instead_of_a_backward_pass(traced):
    # The loss and the number of its tokens come as one, and are counted as two.
    assert waits(traced(), "evaluation") <= WAITS + 1, traced().waits["evaluation"]


def test_a_layer_starts_no_more_kernels_than_it_did(traced):
    kept = {"training__activation_checkpointing": False, "base_model__attention": ("flash_attention_2",)}
    few, more = (traced(layers, **kept).kernels["step 2"] for layers in (2, 4))
    assert (more - few) / 2 <= KERNELS
