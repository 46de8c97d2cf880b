"""The gate of a feed-forward layer: transformers' numbers, and less that is kept for the backward pass."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import GemmaConfig, LlamaConfig, Phi3Config
from transformers.activations import ACT2FN
from transformers.models.gemma.modeling_gemma import GemmaMLP
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssMLP
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.phi3.modeling_phi3 import Phi3MLP

from finetuning.fused import gates
from finetuning.fused.gates import Kernels, fuse_gates, kernels_of

SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 96}


def layer_of(activation: str = "silu") -> torch.nn.Module:
    torch.manual_seed(0)
    kind, config = (GemmaMLP, GemmaConfig(**SIZES)) if "gelu" in activation else (LlamaMLP, LlamaConfig(**SIZES))
    layer: Any = kind(config)
    layer.act_fn = ACT2FN[activation]
    return layer.train()


def computed(layer: Any, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """What the layer makes, and the gradients of what it reads and of its weights."""
    x = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    out = layer(x)
    (out * torch.linspace(-1, 1, 32).to(dtype)).sum().backward()
    return out, x.grad, *(p.grad for p in layer.parameters())


@pytest.mark.parametrize("activation", ["silu", "gelu_pytorch_tanh", "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_and_gradients_are_transformers(activation, dtype):
    theirs = layer_of(activation).to(dtype)
    ours = deepcopy(theirs)
    fuse_gates(ours, compiles=False)
    assert "forward" in vars(ours)
    for one, other in zip(computed(ours, dtype), computed(theirs, dtype), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.long("a C++ compiler builds four kernels")
@pytest.mark.parametrize("activation", ["silu", "gelu_pytorch_tanh"])
def test_compiled_numbers_are_the_same(activation):
    theirs = layer_of(activation)
    ours = deepcopy(theirs)
    fuse_gates(ours, compiles=True)
    for one, other in zip(computed(ours), computed(theirs), strict=True):
        torch.testing.assert_close(one, other)


def test_gate_and_other_factor_are_all_that_is_kept():
    layer, kept = layer_of(), []
    fuse_gates(layer, compiles=False)
    layer.requires_grad_(False)
    x = torch.randn(3, 5, 32).requires_grad_()
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer(x)
    assert sum(tensor.shape == (3, 5, 96) for tensor in kept) == 2


def test_a_model_that_answers_has_transformers_steps(monkeypatch):
    layer = layer_of().eval()
    theirs, x = deepcopy(layer), torch.randn(7, 32)
    fuse_gates(layer, compiles=False)
    monkeypatch.setattr(gates, "_Gated", None)
    assert torch.equal(layer(x), theirs(x))


def test_a_layer_is_found_without_a_random_number():
    layer = layer_of()
    gates._is_gated.cache_clear()
    before = torch.get_rng_state()
    fuse_gates(layer, compiles=False)
    assert torch.equal(torch.get_rng_state(), before)


class OtherMLP(LlamaMLP):
    """Another formula by the same names."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x


OTHERS = [
    lambda: OtherMLP(LlamaConfig(**SIZES)),
    lambda: Phi3MLP(Phi3Config(**SIZES, pad_token_id=0)),
    lambda: LlamaMLP(LlamaConfig(**SIZES, hidden_act="relu")),
    lambda: torch.nn.Linear(2, 2),
    lambda: GptOssMLP.__new__(GptOssMLP),
]


@pytest.mark.parametrize("made", OTHERS)
def test_what_computes_otherwise_stays_as_it_is(made):
    layer = made()
    if "_modules" not in vars(layer):
        torch.nn.Module.__init__(layer)
    assert kernels_of(layer) is None
    fuse_gates(layer, compiles=False)
    assert "forward" not in vars(layer)


def test_each_activation_has_its_kernels():
    found: list[Kernels | None] = [kernels_of(layer_of(name)) for name in ("silu", "gelu_pytorch_tanh", "gelu")]
    assert None not in found and len({*found}) == 3
