"""The positions of queries and keys (rotary embeddings, Su et al. 2021), as Llama and most others write them.

x · cos + (−second half of x, first half of x) · sin

transformers does so in five steps, each with a result of its own; here there are three on a CPU, and one kernel on a
GPU. The backward pass turns the gradient back.
"""

from functools import cache, partial
from types import FunctionType
from typing import Any, NamedTuple

import torch

from finetuning.fused.compiled import one_kernel

NAME = "apply_rotary_pos_emb"  # of the function in transformers' modules


class Rotation(NamedTuple):
    """How a layer's queries and keys are turned."""

    forward: Any
    backward: Any
    given: Any
    """The function of transformers, for what these two do not turn."""


def fuse_rotations(model: torch.nn.Module, compiles: bool) -> None:
    """Let attention layers turn queries and keys so while they are trained; those that turn otherwise stay so."""
    for module in model.modules():
        forward: Any = type(module).forward
        if NAME not in getattr(getattr(forward, "__code__", None), "co_names", ()):
            continue
        if is_rotation(given := forward.__globals__.get(NAME)):
            own: Any = module
            own.forward = partial(_forward, module, _with_rotation(forward, given, compiles))


def _forward(layer: Any, fused: Any, *args: Any, **settings: Any) -> Any:
    """The layer's output."""
    return (fused if layer.training else type(layer).forward)(layer, *args, **settings)


@cache
def _with_rotation(forward: Any, given: Any, compiles: bool) -> FunctionType:
    """The function with another rotation; that of transformers' module, which others read too, stays as it is."""
    way, back = (one_kernel(turned), one_kernel(turned_back)) if compiles else (turned, turned_back)
    names = {**forward.__globals__, NAME: partial(_rotate, Rotation(way, back, given))}
    made = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
    made.__kwdefaults__ = forward.__kwdefaults__
    return made


def _rotate(
    rotation: Rotation,
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    unsqueeze_dim: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys (rows, heads, length, width), turned by cosine and sine (rows, length, width)."""
    is_mixed = not q.dtype == k.dtype == cos.dtype == sin.dtype
    if is_mixed or not q.shape[-1] == k.shape[-1] == cos.shape[-1]:  # some functions turn a part of the width alone
        return rotation.given(q, k, cos, sin, unsqueeze_dim)
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    q, k = (_Turned.apply(x, cos, sin, rotation) for x in (q, k))  # pyright: ignore[reportAssignmentType]
    return q, k


class _Turned(torch.autograd.Function):
    """Queries or keys, turned; kept are cosine and sine, which all layers share."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, rotation: Rotation) -> Any:
        ctx.back = rotation.backward
        ctx.save_for_backward(cos, sin)
        return rotation.forward(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return ctx.back(gradients[0], *ctx.saved_tensors), None, None, None


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """`x` (…, width), each half with the other one: the first loses what the second gains."""
    out, half = x * cos, x.shape[-1] // 2
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out


def turned_back(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """The same by the transposed matrix."""
    out, half = x * cos, x.shape[-1] // 2
    out[..., :half].addcmul_(x[..., half:], sin[..., half:])
    out[..., half:].addcmul_(x[..., :half], sin[..., :half], value=-1)
    return out


@cache
def is_rotation(function: Any) -> bool:
    """Whether the function turns queries and keys so, by trial."""
    q, k = (torch.linspace(-1, 2, 2 * heads * 3 * 4).view(2, heads, 3, 4) for heads in (2, 1))
    cos, sin = torch.linspace(0.1, 1, 24).view(2, 3, 4), torch.linspace(-1, 0.5, 24).view(2, 3, 4)
    try:
        found = function(q, k, cos, sin)
        expected = [turned(x, cos.unsqueeze(1), sin.unsqueeze(1)) for x in (q, k)]
        return all(torch.allclose(one, other) for one, other in zip(found, expected, strict=True))
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False
