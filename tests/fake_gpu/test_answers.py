"""Every shipped recipe answers on a GPU by shapes alone, as in its exam: prompts of two lengths, and the next token.

Two layers of its base model, with its adapter, in batches of the recipe's own size.
"""

import pytest
from torch._subclasses.fake_tensor import FakeTensorMode

from finetuning.memory.exam import ExamRows, cached, predict_exam
from finetuning.memory.savings import with_settings
from finetuning.memory.shapes import adapted_model, leave_meta
from finetuning.recipe.loading import find, load
from tests.fake_gpu.device import obstacle
from tests.fake_gpu.models import SHAPES, config_of
from tests.fake_gpu.traces import Answering, Answers

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=str(obstacle()))

PROMPTS, TOKENS = (256, 200), 2  # tokens of prompts of a batch, and of each answer
PHASES = ("prompts", "token 2")
# With a mask, as padded prompts have one, torch's flash kernel does not go.
CALLED = {"flash_attention_2": {"flash_attention_2: varlen"}, "sdpa": {"sdpa: efficient"}, "eager": set()}
# Of the host for the GPU, for a token of two layers: for whether all answers have ended and, but where the mask is made
# anyway, whether there is padding; with FlashAttention, in every layer, for where it is and for the longest row.
WAITS = {"flash_attention_2": 2 + 2 * 2, "sdpa": 2, "eager": 1}
# Layers with a window have a mask of their own; Falcon's take keys and values by numbers that the host sends each time.
MORE = {"gemma-3-1b": 1, "falcon-7b": 2 * 2, "falcon-7b-saqr": 2 * 2}
# Of a layer of Mistral-7B in 4 bits, for a token, with FlashAttention's taking out and filling in of padding.
KERNELS = 106
# One of each kind: attention of its own, no kernel of its own, FlashAttention, windows, experts.
KINDS = ["falcon-7b", "phi-2", "mistral-7b-fennec", "gemma-3-1b", "gpt-oss-20b"]


@pytest.fixture(scope="module")
def traced(h100):
    """A function that traces the answers of a recipe's first layers; those of equal models once."""
    found: dict[str, Answers] = {}

    def traced(name: str, layers: int = 2) -> Answers:
        recipe = load(name)
        prompts = [*PROMPTS] * (recipe.evaluation.batch_size // len(PROMPTS))
        key = str((SHAPES[name], recipe.base_model.attention, recipe.lora, len(prompts), layers))
        if key not in found:
            found[key] = h100(Answering(recipe, config_of(name, layers), prompts, TOKENS))
        return found[key]

    return traced


@pytest.mark.parametrize("name", sorted(find()))
def test_answers_are_computed_in_bfloat16_by_the_kernel_that_the_recipe_names(traced, name):
    found, kernel = traced(name), load(name).base_model.attention[0]
    assert {phase: set(found.products[phase]) for phase in PHASES} == {phase: {"bfloat16"} for phase in PHASES}
    assert [set(found.attention.get(phase, ())) for phase in PHASES] == [CALLED[kernel]] * len(PHASES)
    assert sum(found.waits["token 2"].values()) <= WAITS[kernel] + MORE.get(name, 0), found.waits["token 2"]


@pytest.mark.parametrize("name", KINDS)
def test_what_answers_need_of_the_memory_is_predicted_to_a_twentieth(traced, name):
    found, recipe, longest = traced(name), load(name), max(PROMPTS)
    short = with_settings(recipe, {"evaluation.max_new_tokens": TOKENS - 1})
    prediction = predict_exam(short, config_of(name, 2), "cuda", ExamRows(longest, longest, supervised=10))
    assert prediction.total - prediction.libraries == pytest.approx(max(found.peaks), rel=0.05), prediction.text()
    model = adapted_model(recipe, config_of(name, 2), recipe.base_model.attention[0], [])
    with FakeTensorMode(allow_non_fake_inputs=True):
        leave_meta(model)
        (cache,) = cached(model, recipe.evaluation.batch_size, (longest + TOKENS - 1,))
    # A layer with a window keeps one token less: the next one completes it.
    assert cache == pytest.approx(found.cache, rel=0.005)


def test_a_layer_starts_no_more_kernels_for_a_token_than_it_did(traced):
    few, more = (traced("mistral-7b-fennec", layers).kernels["token 2"] for layers in (2, 4))
    assert (more - few) / 2 <= KERNELS
