"""Kahneman-Tversky optimization (KTO): answers that were judged good become likelier, and bad ones less likely.

prompt "2 + 3?", completion "6", label false
-> the reward of an answer is beta times how much likelier (in nats) it has become than the base model found it; the
   loss of a good one falls as its reward rises above what answers to other prompts have gained, that of a bad one as
   it falls below

Source: Ethayarajh et al., KTO: Model Alignment as Prospect Theoretic Optimization (2024),
https://arxiv.org/abs/2402.01306, as trl computes it.
"""

from typing import Any, NamedTuple

import torch

from finetuning.training.attention import attention_backend
from finetuning.training.batches import StepBatches, TokenRows
from finetuning.training.judged_rows import JudgedCollator, JudgedRows, MismatchedBatches
from finetuning.training.reference import ReferenceTrainer, supervised_tokens


class Judged(NamedTuple):
    """What there is to say of some rows, a number for each (rows,)."""

    loss: torch.Tensor
    reward: torch.Tensor
    counts: torch.Tensor
    """1, or 0 for a row of which nothing is learned."""


class JudgementTrainer(ReferenceTrainer):
    """Trains an adapter on judged answers that are tokens already.

    Args:
        beta: how strongly the model is held to what it was.
        loss_type: by trl's names: `kto`, or `apo_zero_unpaired`, which compares a reward with 0 alone.
        desirable_weight: what the loss of a good answer counts, as `undesirable_weight` is of a bad one.
        max_length: most tokens of a prompt with the answer to another one; None for no limit.
    """

    def __init__(
        self,
        *,
        beta: float,
        loss_type: str,
        desirable_weight: float = 1.0,
        undesirable_weight: float = 1.0,
        max_length: int | None = None,
        **settings: Any,
    ) -> None:
        self.beta, self.weights, self.max_length = beta, (undesirable_weight, desirable_weight), max_length
        self.compares = loss_type == "kto"
        self.batches = MismatchedBatches if self.compares else StepBatches
        self.divergence = torch.zeros(())
        super().__init__(**settings)
        self.data_collator = JudgedCollator(self.data_collator)

    def token_rows(self, rows: Any) -> TokenRows:
        """The rows of a split, each with the answer of another one where the loss needs it."""
        return JudgedRows(rows, self.max_length) if self.compares else TokenRows(rows)

    def judge(self, model: Any, inputs: dict[str, Any], divergence: torch.Tensor) -> Judged:
        """Loss and reward of each row of a batch, by how far (nats) the model has gone from the base model."""
        tokens = {key: value for key, value in inputs.items() if key not in ("desirable", "mismatched")}
        reward, desirable = self.beta * self.gains(model, tokens), inputs["desirable"]
        side = torch.where(desirable, 1.0, -1.0)
        weight = torch.where(desirable, self.weights[1], self.weights[0])
        counts = (supervised_tokens(inputs["labels"]) > 0).to(reward.dtype)
        # Equation 7 of the paper; with no divergence, the unpaired form of equation 7 of APO (arXiv 2408.06266).
        loss = weight * (1 - torch.sigmoid(side * (reward - self.beta * divergence)))
        return Judged(loss * counts, reward.detach(), counts)

    def divergence_of(self, mismatched: list[dict[str, Any]], device: torch.device, alone: bool) -> torch.Tensor:
        """How much likelier (nats) the answers to other prompts have become in the mean, or 0 where they have not.

        It stands for the Kullback-Leibler divergence of the model from the base model, without dropout in either.

        Args:
            alone: leave out what other processes find.
        """
        adapted: Any = self.model
        was_training = adapted.training
        adapted.eval()
        found = torch.zeros(2, device=device)
        for batch in mismatched:
            inputs: Any = self._prepare_inputs(batch)
            ids = inputs["input_ids"]
            with torch.no_grad(), self.compute_loss_context_manager(), attention_backend(device.type, ids.shape[1]):
                counts = (supervised_tokens(inputs["labels"]) > 0).float()
                found += torch.stack([(self.gains(adapted, inputs).float() * counts).sum(), counts.sum()])
        adapted.train(was_training)
        if not alone:
            gathered: Any = self.accelerator.gather(found[None])
            found = gathered.sum(dim=0)
        return (found[0] / found[1].clamp(min=1)).clamp(min=0)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch=None):
        """The sum of the losses of all rows, divided by the number of rows in the whole step."""
        judged = self.judge(model, inputs, self.divergence)
        loss = self._share(judged.loss.sum(), judged.counts.sum(), num_items_in_batch)
        return (loss, None) if return_outputs else loss

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The micro-batches of a step, and the number of rows in it, those of other processes too.

        How far the model has gone is measured on all of them, so that it does not depend on how the step is cut.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        mismatched = [batch.pop("mismatched") for batch in batches if "mismatched" in batch]
        self.divergence = self.divergence_of(mismatched, device, alone=False)
        rows = sum(int((supervised_tokens(batch["labels"]) > 0).sum()) for batch in batches)
        return batches, self.in_all(rows, device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add to a point of the loss curve how far the model had gone before its last step."""
        if "loss" in logs and self.compares:
            logs = logs | {"kl": self.divergence.item()}
        super().log(logs, start_time)

    def measured(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Of a batch of the eval split: summed loss and divergence, number and summed reward of good and bad rows."""
        mismatched = [inputs["mismatched"]] if "mismatched" in inputs else []
        divergence = self.divergence_of(mismatched, inputs["labels"].device, alone=True)
        loss, reward, counts = self.judge(self.model, inputs, divergence)
        good, bad = counts * inputs["desirable"], counts * ~inputs["desirable"]
        rewards = [good.sum(), (good * reward).sum(), bad.sum(), (bad * reward).sum()]
        return torch.stack([loss.sum(), divergence * counts.sum(), *rewards])

    def metrics_of(self, sums: list[float]) -> dict[str, float]:
        """The mean loss of the rows, the mean reward of good and of bad ones and their difference, and the divergence.

        By trl's names but for the first part; what there are no rows for is left out.
        """
        loss, divergence, good, of_good, bad, of_bad = sums
        found = {"eval_loss": loss / max(good + bad, 1)}
        found |= {"eval_kl": divergence / max(good + bad, 1)} if self.compares else {}
        found |= {"eval_reward_chosen": of_good / good} if good else {}
        found |= {"eval_reward_rejected": of_bad / bad} if bad else {}
        return found | ({"eval_reward_margin": of_good / good - of_bad / bad} if good and bad else {})
