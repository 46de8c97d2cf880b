"""The positions of queries and keys: transformers' numbers, in fewer steps."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers import FalconConfig, Gemma3TextConfig, GptOssConfig, LlamaConfig, Phi3Config, PhiConfig, Qwen3Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM
from transformers.models.falcon import modeling_falcon
from transformers.models.glm import modeling_glm
from transformers.models.gpt_oss import modeling_gpt_oss
from transformers.models.llama import modeling_llama

from finetuning.fused.rotations import NAME, Rotation, _rotate, fuse_rotations, is_rotation, turned, turned_back

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "pad_token_id": 0,
}
MODELS = {
    "llama": LlamaConfig(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    "gemma3": Gemma3TextConfig(**SIZES, head_dim=16),
    "phi": PhiConfig(**SIZES, partial_rotary_factor=0.5),
    "phi3": Phi3Config(**SIZES, partial_rotary_factor=0.5),  # whose function turns half of the width itself
    "falcon": FalconConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=64, alibi=False),
}


def model_of(name: str) -> Any:
    torch.manual_seed(0)
    config = deepcopy(MODELS[name])
    config._attn_implementation = "eager"
    return AutoModelForCausalLM.from_config(config).train()


def computed(model: Any) -> list[torch.Tensor]:
    """The loss, and the gradients of all weights."""
    ids = torch.randint(0, 64, (3, 9), generator=torch.Generator().manual_seed(1))
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return [loss, *(p.grad for p in model.parameters())]


def fused(model: Any) -> list[str]:
    return [name for name, module in model.named_modules() if "forward" in vars(module)]


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_transformers(name):
    theirs, ours = model_of(name), model_of(name)
    fuse_rotations(ours, compiles=False)
    assert len(fused(ours)) == 2
    for one, other in zip(computed(ours), computed(theirs), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.long("a C++ compiler builds four kernels")
def test_compiled_numbers_are_the_same():
    theirs, ours = model_of("llama"), model_of("llama")
    fuse_rotations(ours, compiles=True)
    for one, other in zip(computed(ours), computed(theirs), strict=True):
        torch.testing.assert_close(one, other)


def test_other_models_of_the_same_kind_and_one_that_answers_keep_transformers_steps(monkeypatch):
    ours, other = model_of("llama"), model_of("llama")
    fuse_rotations(ours, compiles=False)
    calls = []
    own = modeling_llama.apply_rotary_pos_emb
    monkeypatch.setattr(modeling_llama, NAME, lambda *args: calls.append(1) or own(*args))
    computed(other)
    assert len(calls) == 2
    ours.eval()(input_ids=torch.zeros(1, 3, dtype=torch.long))
    assert len(calls) == 4
    computed(ours.train())
    assert len(calls) == 4


def test_turning_back_is_the_transposed_matrix_of_turning():
    x, y = torch.randn(2, 7, 10, dtype=torch.float64).unbind()
    cos, sin = torch.randn(2, 7, 10, dtype=torch.float64).unbind()
    assert (turned(x, cos, sin) * y).sum() == pytest.approx(float((x * turned_back(y, cos, sin)).sum()))


@pytest.mark.parametrize(("dtype", "width"), [(torch.bfloat16, 4), (torch.float32, 8)])
def test_other_number_formats_and_widths_are_left_to_transformers(dtype, width):
    q = torch.randn(1, 2, 3, width, dtype=dtype)
    cos = torch.randn(1, 3, 4)
    assert _rotate(Rotation(None, None, lambda *_: "theirs"), q, q, cos, cos) == "theirs"


def test_what_turns_otherwise_stays_as_it_is():
    assert is_rotation(modeling_llama.apply_rotary_pos_emb) and is_rotation(modeling_falcon.apply_rotary_pos_emb)
    for module in (modeling_gpt_oss, modeling_glm):  # neighbours or parts of them, and halves of another layout
        assert not is_rotation(module.apply_rotary_pos_emb)
    sizes = {
        "num_hidden_layers": 1,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "layer_types": ["full_attention"],
    }
    model = AutoModelForCausalLM.from_config(GptOssConfig(**(SIZES | sizes), head_dim=8))
    fuse_rotations(model, compiles=False)
    assert not fused(model)
