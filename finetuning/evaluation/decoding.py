"""How the next token is chosen: the likeliest one, or one that is drawn.

>>> drawn(torch.tensor([[0.0, 1.0, 0.0]]))
tensor([[1]])

A token is drawn by one random number for its row, where torch's `multinomial` takes one for each token of the
vocabulary: of 49,152 tokens it was three times as slow as all else that choosing takes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

BLOCK = 256  # tokens whose likelihoods are summed first


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen, `limit` of them at most: the likeliest each time, or drawn at a temperature above 0."""

    limit: int
    temperature: float = 0.0
    top_p: float = 1.0

    def settings(self) -> dict[str, Any]:
        """The same as `generate` takes it."""
        if not self.temperature:
            return {"do_sample": False}
        steps = LogitsProcessorList([TemperatureLogitsWarper(float(self.temperature))])
        if self.top_p < 1:
            steps.append(TopPLogitsWarper(self.top_p))
        return {"do_sample": False, "logits_processor": LogitsProcessorList([*steps, OnlyTheDrawn()])}


class OnlyTheDrawn(LogitsProcessor):
    """Leaves one token of each row to choose, which it draws."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, tokens) of 0 for that token and of minus infinity for the others."""
        chosen = drawn(scores.float().softmax(dim=-1))
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)


def drawn(likely: torch.Tensor) -> torch.Tensor:
    """A token (rows, 1) for each row of likelihoods (rows, tokens), each as often as it is likely.

    First it is drawn in which block of tokens, then which one of that block.
    """
    blocks = torch.nn.functional.pad(likely, (0, -likely.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    block = _one_of(blocks.sum(dim=-1))
    inside = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK))[:, 0]
    return block * BLOCK + _one_of(inside)


def _one_of(weights: torch.Tensor) -> torch.Tensor:
    """A place (rows, 1) in each row of weights (rows, places), never one of weight 0."""
    ends = weights.double().cumsum(dim=-1)
    # Below 1 by more than the rounding of the product.
    share = torch.rand(len(weights), 1, dtype=torch.float64, device=weights.device).clamp(max=1 - 1e-12)
    return torch.searchsorted(ends, share * ends[:, -1:], right=True)
