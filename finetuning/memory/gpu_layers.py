"""Lets a model without data keep on a CPU what it would keep on a GPU.

>>> as_on_gpu(model, "bfloat16")  # dropout keeps a byte for each number, layer norms compute in float32
"""

from functools import partial
from math import pi, sqrt
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn import Dropout, LayerNorm
from torch.nn.functional import layer_norm
from transformers.activations import NewGELUActivation

from finetuning.fused.norms import is_rms_norm


def as_on_gpu(model: Any, mixed: str | None) -> None:
    """Give the model, and the layers that keep something else on a GPU, the forward pass that they have there.

    Args:
        mixed: the number format of its mixed precision, in which the model computes from then on; None for none.
    """
    for module in model.modules():
        own: Any = module
        if isinstance(module, Dropout):
            own.forward = partial(_with_mask, module)
        elif is_rms_norm(type(module)):
            own.forward = partial(_in_one_kernel, module)
        elif isinstance(module, LayerNorm) and mixed:
            own.forward = partial(_in_float32, module)
        elif isinstance(module, NewGELUActivation) and mixed:
            own.forward = _gelu_with_cubes_in_float32
        elif isinstance(module, BaseTunerLayer) and mixed:
            own.cast_input_dtype_enabled = False
    if mixed:
        # Forward alone: copies of what is trained in that format are gone when the backward pass is over.
        model.forward = torch.autocast("cpu", getattr(torch, mixed))(model.forward)


def _with_mask(dropout: Dropout, hidden: torch.Tensor) -> torch.Tensor:
    """A GPU keeps which numbers it dropped, a CPU what it multiplied them with."""
    if not dropout.training or not dropout.p:
        return hidden
    return torch.native_dropout(hidden, dropout.p, True)[0]


def _in_float32(norm: LayerNorm, hidden: torch.Tensor) -> torch.Tensor:
    """A GPU's mixed precision normalizes in float32, a CPU's does not."""
    weight, bias = (x if x is None else x.float() for x in (norm.weight, norm.bias))
    return layer_norm(hidden.float(), norm.normalized_shape, weight, bias, norm.eps)


def _gelu_with_cubes_in_float32(hidden: torch.Tensor) -> torch.Tensor:
    """As transformers writes it; a GPU's mixed precision makes powers in float32."""
    cubes = torch.pow(hidden.float(), 3.0)
    return 0.5 * hidden * (1.0 + torch.tanh(sqrt(2.0 / pi) * (hidden + 0.044715 * cubes)))


def _in_one_kernel(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """A GPU has a kernel for the whole of a root-mean-square norm (`finetuning.fused.norms`)."""
    if not norm.training or hidden.dtype != norm.weight.dtype:
        return type(norm).forward(norm, hidden)
    return RmsNorm.apply(hidden, norm.weight)  # pyright: ignore[reportReturnType]


class RmsNorm(torch.autograd.Function):
    """What that kernel keeps and makes for rows (…, numbers), and no numbers: its input, and a number for each row."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The output, like the rows."""
        ctx.save_for_backward(hidden, weight, _sums_like(hidden))
        return torch.empty_like(hidden)

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        """The gradients of rows and weight."""
        hidden, weight, _ = ctx.saved_tensors
        return torch.empty_like(hidden), torch.empty_like(weight) if ctx.needs_input_grad[1] else None


class FlashAttention(torch.autograd.Function):
    """What FlashAttention 2 keeps and makes for queries, keys and values (rows, heads, length, width), and no numbers.

    Kept are its inputs, its output and a number for each query. Backward it adds up the gradient of queries in float32,
    and makes those of keys and values that heads share for each head first.
    Source: https://github.com/Dao-AILab/flash-attention, csrc/flash_attn/flash_api.cpp.
    """

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """The output, like the queries."""
        # As a layer goes on with it: the heads of a token side by side.
        out = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        ctx.save_for_backward(query, key, value, out, _sums_like(query))
        return out

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        """The gradients of all three."""
        query, key, value = ctx.saved_tensors[:3]
        held = [_sums_like(query), torch.empty_like(query, dtype=torch.float32)]
        if key.shape != query.shape:
            held += [torch.empty_like(query), torch.empty_like(query)]
        gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        held.clear()
        return gradients


def _sums_like(query: torch.Tensor) -> torch.Tensor:
    """A number in float32 for each row."""
    return torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)


def in_autocast(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in the number format of the CPU's autocast, within one."""
    is_wide = torch.is_autocast_enabled("cpu") and tensor.dtype == torch.float32
    return tensor.to(torch.get_autocast_dtype("cpu")) if is_wide else tensor
