"""The loss of supervised tokens alone, in one pass over their logits.

supervised_loss(model, head, {"input_ids": …, "labels": …}) -> (tensor(812.4), tensor(411))

A language model's head is a third of a small model's work and most of its memory. Here it computes the logits of the
positions whose next token is supervised, and no others; the gradient of the logits is made while they are at hand, in
their own number format, so that neither float32 logits nor probabilities are kept for the backward pass.

No loss here passes on the mask of a batch. Rows are padded at their ends, where no token of a causal model looks, so
that it changes no number; but with one, FlashAttention takes padding out in every layer, for which the host waits each
time, and `sdpa` does without its flash kernel.
"""

from inspect import signature
from typing import Any

import torch

from finetuning.tokens import NOT_SUPERVISED

CHUNK_BYTES = 32 * 2**20  # of logits in float32 at a time


def supervised_loss(model: Any, head: torch.nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of the negative log likelihoods (nats) of all supervised tokens, and their number."""
    losses, _ = supervised_losses(model, head, inputs)
    return losses.sum(), torch.tensor(len(losses), device=losses.device)


def supervised_losses(model: Any, head: torch.nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """The negative log likelihood (nats) of each supervised token (tokens,), and the row that it is in (tokens,).

    Args:
        model: the model as it is called; what it does to logits after `head` (scaling, a soft cap) is done here too.
        inputs: `input_ids`, `labels` (rows, length) and what else the model takes.
    """
    logits, targets, chosen = supervised_logits(model, head, inputs)
    return CrossEntropy.apply(logits, targets, None), chosen.nonzero()[:, 0]  # pyright: ignore[reportReturnType]


def scored_tokens(
    model: Any, head: torch.nn.Module, inputs: dict[str, Any], temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The log likelihood of each supervised token, and the entropy (nats) of the model there, both (tokens,).

    Args:
        temperature: by which logits are divided.
    """
    logits, targets, _ = supervised_logits(model, head, inputs)
    entropies = torch.zeros(len(targets), device=logits.device)
    losses: Any = CrossEntropy.apply(logits if temperature == 1 else logits / temperature, targets, entropies)
    return -losses, entropies


def supervised_logits(
    model: Any, head: torch.nn.Module, inputs: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The logits (tokens, vocabulary) of all supervised tokens, these (tokens,), and where they are, less one place."""
    targets = inputs["labels"][:, 1:]
    chosen = targets != NOT_SUPERVISED
    hook = head.register_forward_pre_hook(lambda module, given: (given[0][:, :-1][chosen][None], *given[1:]))
    try:
        logits = model(**read_by(model, inputs), use_cache=False).logits[0]
    finally:
        hook.remove()
    return logits, targets[chosen], chosen


def loss_in_tiles(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """The same as `supervised_loss`, by the head that trl gives a model for a GPU, which keeps no logits."""
    count = (inputs["labels"][:, 1:] != NOT_SUPERVISED).sum()
    return -log_probabilities_in_tiles(model, inputs).sum(), count


def log_probabilities_in_tiles(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """The log likelihood (nats) of each supervised token, and 0 of the others (rows, length - 1), by trl's head."""
    read = read_by(model, inputs)
    return model(**read, labels=inputs["labels"], use_cache=False, fused_lm_head=True).log_probs


def read_by(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the model is to read of a batch.

    Of a single row, transformers asks the GPU in every layer whether it is one of several in one, before it calls
    FlashAttention, unless it is told where each of them ends.
    """
    read, ids = {k: v for k, v in inputs.items() if k not in ("labels", "attention_mask")}, inputs["input_ids"]
    whole = getattr(model, "module", model)
    kernel = whole.config._attn_implementation or ""
    if len(ids) > 1 or "cu_seq_lens_q" in read or not kernel.startswith("flash") or not hands_on(whole):
        return read
    ends = torch.arange(2, dtype=torch.int32, device=ids.device) * ids.shape[1]
    length = {"max_length_q": ids.shape[1], "max_length_k": ids.shape[1]}
    return read | {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends} | length


def hands_on(model: Any) -> bool:
    """Whether the model hands on what it does not know to its kernels."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return any(p.kind is p.VAR_KEYWORD for p in signature(base.base_model.forward).parameters.values())


class CrossEntropy(torch.autograd.Function):
    """The cross entropy (rows,) of logits (rows, vocabulary) with targets (rows,), in float32.

    Where there are `entropies` (rows,), they are filled with those of the logits.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor, entropies: torch.Tensor | None) -> torch.Tensor:
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        losses = torch.zeros(len(logits), device=logits.device)
        rows = max(1, CHUNK_BYTES // (4 * logits.shape[1]))
        for start in range(0, len(logits), rows):
            part = slice(start, start + rows)
            log_probabilities = logits[part].float().log_softmax(dim=1)
            losses[part] = -log_probabilities.gather(1, targets[part, None])[:, 0]
            if entropies is not None:
                entropies[part] = -torch.linalg.vecdot(log_probabilities.exp(), log_probabilities)
            if gradient is not None:
                probabilities = log_probabilities.exp_()
                probabilities[torch.arange(len(probabilities), device=logits.device), targets[part]] -= 1
                gradient[part] = probabilities
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        # In place: it is as large as the logits, and nobody goes backward twice.
        return gradient.mul_(gradients[0].to(gradient.dtype)[:, None]), None, None
