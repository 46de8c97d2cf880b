"""The attention kernel `varlen`: torch's own for rows of many lengths that lie end to end, with nothing to install.

load_model(folder, attn_implementation="varlen")(input_ids=packed, position_ids=…, cu_seq_lens_q=[0, 5, 12], …)

A token sees the tokens of its own row alone. Other batches, padded or answered token by token, are computed as by
`sdpa`. Where torch has no such kernel (a CPU, a GPU before Ampere, float32), `sdpa` computes the rows one by one.
"""

from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from finetuning.errors import FinetuningError

VARLEN = "varlen"
LEAST = (8, 0)  # compute capability of a GPU that torch's flash attention runs on
WIDEST = 256  # numbers of a head that it takes


class PostponedMask:
    """A mask (rows, 1, queries, keys) that is made when a layer asks for it: of packed rows it would be huge."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    @cached_property
    def whole(self) -> torch.Tensor | None:
        """The mask itself, as `sdpa` takes it."""
        return sdpa_mask(**self.settings)


def register() -> None:
    """Make the kernel known to transformers."""
    AttentionInterface.register(VARLEN, attend)
    AttentionMaskInterface.register(VARLEN, lambda **settings: PostponedMask(settings))


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: PostponedMask | torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """What the heads read (1, tokens, heads, numbers) for queries (1, heads, tokens, numbers), and no weights.

    Args:
        attention_mask: of batches that are not packed; where `settings` has the bounds of packed rows, as trl's
            collator gives them (`cu_seq_lens_q`, `max_length_q`), these are all that counts.

    Raises:
        FinetuningError: the model's attention has a part that neither kernel has.
    """
    if lacking := [name for name in ("softcap", "s_aux") if settings.get(name) is not None]:
        raise FinetuningError(
            f"base_model.attention: varlen, and the attention of {type(module).__name__} has a part that it lacks "
            f"({lacking[0]}). Write flash_attention_2, or eager with training.packing: false."
        )
    bounds = settings.get("cu_seq_lens_q")
    if bounds is None or query.shape[2] != key.shape[2]:
        mask = attention_mask.whole if isinstance(attention_mask, PostponedMask) else attention_mask
        return sdpa_attention_forward(module, query, key, value, mask, dropout, scaling, **settings)
    if query.dtype == torch.float32 and torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if dropout == 0.0 and has_kernel(query):
        read = by_kernel(query, key, value, bounds, settings["max_length_q"], scaling, sliding_window)
    else:
        read = row_by_row(query, key, value, bounds, dropout, scaling, sliding_window)
    return read, None


def has_kernel(query: torch.Tensor) -> bool:
    """Whether torch has a kernel for these queries where they are."""
    is_half = query.dtype in (torch.bfloat16, torch.float16) and query.shape[-1] <= WIDEST
    return is_half and query.is_cuda and torch.cuda.get_device_capability(query.device) >= LEAST


def by_kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    longest: int,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """What the heads read, by torch's kernel."""
    query, key, value = (heads.transpose(1, 2).flatten(0, 1) for heads in (query, key, value))
    # transformers counts the token itself, torch those to its left; none to its right.
    before = window - 1 if window and window < longest else -1
    read: Any = varlen_attn(
        query,
        key,
        value,
        bounds,
        bounds,
        longest,
        longest,
        scale=scaling,
        window_size=(before, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return read[None]


def row_by_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """The same by `sdpa`, one row after the other."""
    read = []
    for start, end in pairwise(bounds.tolist()):
        row = [heads[:, :, start:end] for heads in (query, key, value)]
        mask = None
        if window and window < end - start:
            places = torch.arange(end - start, device=query.device)
            behind = places[:, None] - places
            mask = (behind >= 0) & (behind < window)
        few = query.shape[1] != key.shape[1]
        shared = {"dropout_p": dropout, "scale": scaling, "enable_gqa": few}
        read.append(scaled_dot_product_attention(*row, attn_mask=mask, is_causal=mask is None, **shared))
    return torch.cat(read, dim=2).transpose(1, 2).contiguous()
