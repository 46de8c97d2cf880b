"""The gate of a feed-forward layer, as those of Llama, Mistral, Gemma and Qwen are.

down(f(gate x) · up x)

For the backward pass transformers keeps the gate, f of it, and the other factor; here f is computed again. On a GPU
each way is one kernel.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch.nn.functional import gelu, silu

from finetuning.fused.compiled import one_kernel

WIDTH = 4  # of the layer that is tried
BACK = torch.ops.aten


class Kernels(NamedTuple):
    """How a gate is computed."""

    forward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """Of gate and other factor (…, numbers) the product."""
    backward: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    """Of the product's gradient and both of them, theirs."""


def _silu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return silu(gate).mul_(up)


def _silu_back(gradient: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    of_gate = gradient * up
    BACK.silu_backward.grad_input(of_gate, gate, grad_input=of_gate)
    return of_gate, silu(gate).mul_(gradient)


def _gelu(gate: torch.Tensor, up: torch.Tensor, approximate: str) -> torch.Tensor:
    return gelu(gate, approximate=approximate).mul_(up)


def _gelu_back(
    gradient: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, approximate: str
) -> tuple[torch.Tensor, torch.Tensor]:
    of_gate = gradient * up
    BACK.gelu_backward.grad_input(of_gate, gate, approximate=approximate, grad_input=of_gate)
    return of_gate, gelu(gate, approximate=approximate).mul_(gradient)


KNOWN = [
    (silu, Kernels(_silu, _silu_back)),
    *(
        (
            partial(gelu, approximate=how),
            Kernels(partial(_gelu, approximate=how), partial(_gelu_back, approximate=how)),
        )
        for how in ("tanh", "none")
    ),
]


def fuse_gates(model: torch.nn.Module, compiles: bool) -> None:
    """Let each such layer compute so while it is trained; of another kind, it stays as it is."""
    for module in model.modules():
        if kernels := kernels_of(module):
            own: Any = module
            own.forward = partial(_forward, module, _in_one(kernels) if compiles else kernels)


@cache
def _in_one(kernels: Kernels) -> Kernels:
    return Kernels(*map(one_kernel, kernels))


def _forward(layer: Any, kernels: Kernels, x: torch.Tensor) -> torch.Tensor:
    """The layer's output for `x` (…, inputs)."""
    if not layer.training:
        return type(layer).forward(layer, x)
    gate, up = layer.gate_proj(x), layer.up_proj(x)
    if gate.dtype != up.dtype:
        return layer.down_proj(layer.act_fn(gate) * up)
    return layer.down_proj(_Gated.apply(gate, up, kernels))


class _Gated(torch.autograd.Function):
    """f(gate) · up, of two tensors (…, numbers), which are all that is kept."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        ctx.kernels = kernels
        ctx.save_for_backward(gate, up)
        return kernels.forward(gate, up)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return *ctx.kernels.backward(gradients[0], *ctx.saved_tensors), None


def kernels_of(module: torch.nn.Module) -> Kernels | None:
    """How the gate of such a layer is computed; None for layers of other kinds, by their names and by trial."""
    activation = getattr(module, "act_fn", None)
    if activation is None or not all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj")):
        return None
    x = torch.linspace(-4, 4, 4 * WIDTH).view(4, WIDTH)
    known = KNOWN if _is_gated(type(module)) else []
    return next((ways for function, ways in known if torch.allclose(activation(x), function(x), atol=1e-7)), None)


@cache
def _is_gated(kind: type[torch.nn.Module]) -> bool:
    """Whether layers of that class compute no more and no less than that."""
    layer: Any = kind.__new__(kind)
    torch.nn.Module.__init__(layer)
    with torch.random.fork_rng(devices=[]):  # what is drawn here must not move what training draws
        for name in ("gate_proj", "up_proj", "down_proj"):
            setattr(layer, name, torch.nn.Linear(WIDTH, WIDTH))
    layer.act_fn = torch.tanh
    x = torch.linspace(-1, 2, 2 * WIDTH).view(2, WIDTH)
    try:
        expected = layer.down_proj(torch.tanh(layer.gate_proj(x)) * layer.up_proj(x))
        return torch.equal(kind.forward(layer, x), expected)
    except (AttributeError, TypeError):
        return False
