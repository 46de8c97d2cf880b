"""Direct preference optimization (DPO): of two answers to the same prompt, the chosen one is made the likelier one.

prompt "2 + 3?", chosen "5", rejected "6"
-> the reward of an answer is beta times how much likelier (in nats) it has become than the base model found it; the
   loss falls as the reward of "5" rises above that of "6"

Source: Rafailov et al., Direct Preference Optimization (2023), https://arxiv.org/abs/2305.18290.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from finetuning.training.reference import ReferenceTrainer, supervised_tokens

Rows = list[dict[str, Any]]


class Compared(NamedTuple):
    """What there is to say of some pairs, a number for each (pairs,)."""

    loss: torch.Tensor
    margin: torch.Tensor
    """How much larger the reward of the chosen answer is than that of the rejected one."""
    counts: torch.Tensor
    """1, or 0 for a pair of which nothing is learned."""


@dataclass
class PairCollator:
    """Makes a batch of pairs: the chosen conversations and, after all of them, the rejected ones."""

    collate: Callable[[Rows], dict[str, Any]]

    def __call__(self, rows: Rows) -> dict[str, Any]:
        """The batch, with twice as many conversations as there are `rows`."""
        rejected = [{"input_ids": row["rejected_input_ids"], "labels": row["rejected_labels"]} for row in rows]
        return self.collate([*rows, *rejected])


class PreferenceTrainer(ReferenceTrainer):
    """Trains an adapter on pairs of answers that are tokens already.

    Args:
        beta: how strongly the model is held to what it was.
        loss_type: by trl's names: `sigmoid`, `hinge` or `ipo`.
    """

    def __init__(self, *, beta: float, loss_type: str, **settings: Any) -> None:
        self.beta, self.pair_loss = beta, loss_type
        super().__init__(**settings)
        self.data_collator = PairCollator(self.data_collator)
        if self.tokens_per_step:
            self.tokens_per_step //= 2  # the lengths of rows are those of one side

    def compare(self, model: Any, inputs: dict[str, Any]) -> Compared:
        """Loss and margin of each pair of a batch, in one pass of the model and one of the model as it was."""
        chosen, rejected = self.gains(model, inputs).chunk(2)
        tokens = supervised_tokens(inputs["labels"])
        loss = pair_losses(self.pair_loss, self.beta, chosen, rejected, *tokens.chunk(2))
        counts = (tokens.chunk(2)[0] > 0).to(loss.dtype)
        return Compared(loss * counts, self.beta * (chosen - rejected).detach(), counts)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch=None):
        """The sum of the losses of all pairs, divided by the number of pairs in the whole step."""
        compared = self.compare(model, inputs)
        loss = self._share(compared.loss.sum(), compared.counts.sum(), num_items_in_batch)
        return (loss, None) if return_outputs else loss

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The micro-batches of a step, and the number of pairs in it, those of other processes too."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        chosen = [supervised_tokens(batch["labels"]).chunk(2)[0] for batch in batches]
        return batches, self.in_all(sum(int((tokens > 0).sum()) for tokens in chosen), device)

    def measured(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Of a batch of the eval split, the summed loss, the number of pairs, of right ones, and the summed margin."""
        loss, margin, counts = self.compare(self.model, inputs)
        return torch.stack([loss.sum(), counts.sum(), (counts * (margin > 0)).sum(), (counts * margin).sum()])

    def metrics_of(self, sums: list[float]) -> dict[str, float]:
        """The mean loss and margin of the pairs, and the share of those whose chosen answer has the larger reward."""
        loss, pairs, right, margin = sums
        names = ("eval_loss", "eval_reward_accuracy", "eval_reward_margin")
        return {name: value / max(pairs, 1) for name, value in zip(names, (loss, right, margin), strict=True)}


def pair_losses(
    loss_type: str,
    beta: float,
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    chosen_tokens: torch.Tensor,
    rejected_tokens: torch.Tensor,
) -> torch.Tensor:
    """The loss of each pair (pairs,), by how much likelier (nats) its answers have become, as trl computes it.

    Source: `sigmoid` is equation 7 of Rafailov et al. (2023), `hinge` the loss of Zhao et al., SLiC-HF (2023), `ipo`
    equation 17 of Azar et al., A General Theoretical Paradigm (2023), by means over the tokens of an answer.
    """
    if loss_type == "sigmoid":
        return -functional.logsigmoid(beta * (chosen - rejected))
    if loss_type == "hinge":
        return torch.relu(1 - beta * (chosen - rejected))
    apart = chosen / chosen_tokens.clamp(min=1) - rejected / rejected_tokens.clamp(min=1)
    return (apart - 1 / (2 * beta)) ** 2
