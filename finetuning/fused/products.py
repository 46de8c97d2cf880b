"""The adapter's part of a linear layer in training: fewer passes over memory than peft's, and less that is kept.

W x + s · B A dropout(x)

peft keeps dropout(x) and its mask of each layer until the backward pass, multiplies B A dropout(x) by s, and adds that
to a copy of W x. Here s is a factor of the small product A dropout(x), the product with B adds to W x in place, and so
does the adapter's part of the gradient of x to the layer's. Kept are x, which layers that read the same x share, and
the small product. On a GPU the backward pass draws dropout(x) again, from the state that the random numbers had, with
the numbers that peft would draw. A CPU keeps which numbers it dropped, and draws them five times as fast as torch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear, LoraLayer
from peft.tuners.lora.bnb import Linear4bit, Linear8bitLt
from torch.autograd.function import once_differentiable

CHANCES = 2**16  # of which a CPU draws one for each number


class Rest(NamedTuple):
    """Of the gradient of a layer's inputs the adapter's part, until the layer's own is there to add it to."""

    small: torch.Tensor
    a: torch.Tensor
    mask: torch.Tensor | None


class How(NamedTuple):
    """How an adapter's product is made."""

    scaling: float
    p: float
    """The share of inputs that are dropped."""
    dtype: torch.dtype
    """In which matrices are multiplied."""
    on_cpu: bool
    rests: list[Rest]
    """What the backward pass of the product leaves to that of the layer."""

    @property
    def factor(self) -> float:
        """Of the small product: on a CPU what is not dropped is as it was, and grows here."""
        return self.scaling / (1 - self.p) if self.on_cpu else self.scaling

    @property
    def growth(self) -> float:
        """Of what is not dropped, where the small product has none of it."""
        return 1 if self.on_cpu else 1 / (1 - self.p)


def fuse_products(model: torch.nn.Module, on_cpu: bool) -> None:
    """Let the adapter of each linear layer compute so while it is trained; else, and of other kinds, it is peft's."""
    for layer in model.modules():
        if isinstance(layer, (Linear, Linear4bit, Linear8bitLt)) and _is_plain(layer):
            own: Any = layer
            own.forward = partial(_forward, layer, on_cpu)


def _is_plain(layer: LoraLayer) -> bool:
    """Whether all that the layer adds are the products of one pair of matrices: no DoRA, no bias."""
    return len(layer.lora_A) == 1 and not layer.lora_variant and not any(layer.lora_bias.values())


def _forward(layer: Any, on_cpu: bool, x: torch.Tensor, *args: Any, **settings: Any) -> torch.Tensor:
    """The layer's output (…, outputs) for `x` (…, inputs)."""
    if not layer.training or layer.disable_adapters or layer.merged or args or settings:
        return type(layer).forward(layer, x, *args, **settings)
    (name,) = layer.lora_A
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    is_mixed = torch.is_autocast_enabled(x.device.type)
    dtype = torch.get_autocast_dtype(x.device.type) if is_mixed else a.dtype
    p = getattr(layer.lora_dropout[name], "p", 0.0)
    how = How(layer.scaling[name], round(CHANCES * p) / CHANCES if on_cpu else p, dtype, on_cpu, [])
    # As a matrix: of what has more dimensions a layer with a bias would give a view, which cannot be added to in place.
    flat = x.reshape(-1, x.shape[-1])
    result = layer.base_layer(_Read.apply(flat, how))
    result = result.clone() if result._is_view() else result
    given = flat if is_mixed else flat.to(dtype)
    out: Any = _Added.apply(result, given.detach(), a, b, how)
    return out.unflatten(0, x.shape[:-1])


class _Read(torch.autograd.Function):
    """Hands the layer its inputs (rows, inputs), and adds the adapter's part to their gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, how: How) -> torch.Tensor:
        ctx.how = how
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,), how = gradients, ctx.how
        small, a, mask = how.rests.pop()
        if mask is not None:
            return gradient.addcmul_(small @ a, mask, value=how.growth), None
        if gradient.dtype == how.dtype:
            return gradient.addmm_(small, a), None
        return gradient.add_(small @ a), None


class _Added(torch.autograd.Function):
    """Adds the adapter's product to `result` (rows, outputs), for inputs `x` (rows, inputs)."""

    @staticmethod
    def forward(ctx: Any, result: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, how: How) -> Any:
        ctx.how, ctx.state = how, None if how.on_cpu or not how.p else _state(x.device)
        dropped, mask = _dropped(x, how)
        narrow_a, narrow_b = a.to(how.dtype), b.to(how.dtype)
        small = _product(dropped.to(how.dtype), narrow_a.T, how.factor)
        ctx.mark_dirty(result)
        ctx.save_for_backward(x, small, narrow_a, narrow_b, mask if how.on_cpu else None)
        if result.dtype == how.dtype:
            return result.addmm_(small, narrow_b.T)
        return result.add_(small @ narrow_b.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        how, (x, small, a, b, mask) = ctx.how, ctx.saved_tensors
        gradient = gradients[0].to(how.dtype)
        for_b = gradient.T @ small
        small = _product(gradient, b, how.factor)
        if mask is not None:
            dropped = x * mask
        else:
            with _drawn_from(ctx.state, x.device):
                dropped, mask = _dropped(x, how)
        for_a = small.T @ dropped.to(how.dtype)
        if ctx.needs_input_grad[0]:  # as the inputs do, or else there is no gradient to add to
            how.rests.append(Rest(small, a, mask))
        return gradients[0], None, for_a, for_b, None


def _dropped(x: torch.Tensor, how: How) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return `x` with some of its numbers zero, and which of them are not (None for all); on a GPU the others grow."""
    if not how.p:
        return x, None
    if not how.on_cpu:
        return torch.native_dropout(x, how.p, True)
    mask = kept_of(x, how.p)
    return x * mask, mask


def kept_of(x: torch.Tensor, p: float) -> torch.Tensor:
    """1 for each number of `x` (contiguous) that is kept, and 0 for a share `p`, drawn four at a time."""
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    chances = draws.view(torch.int16)[: x.numel()].view(x.shape)
    return torch.ge(chances, round(p * CHANCES) - CHANCES // 2, out=torch.empty_like(x))


def _product(left: torch.Tensor, right: torch.Tensor, factor: float) -> torch.Tensor:
    """Return `factor` · `left` `right`, in one kernel."""
    return torch.addmm(left.new_empty(1), left, right, beta=0, alpha=factor)


def _state(device: torch.device) -> torch.Tensor:
    """The state of a device's random numbers; on a GPU sixteen bytes, which the host knows."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


@contextmanager
def _drawn_from(state: torch.Tensor | None, device: torch.device) -> Iterator[None]:
    """Draw random numbers within the block as from that state on."""
    if state is None:
        yield
        return
    before = _state(device)
    _set_state(state, device)
    try:
        yield
    finally:
        _set_state(before, device)


def _set_state(state: torch.Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
