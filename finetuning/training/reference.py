"""The base model as what a trained one is compared with: the same model, with its adapter switched off."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from finetuning.tokens import NOT_SUPERVISED
from finetuning.training.resumable import Moment
from finetuning.training.supervised_loss import log_probabilities_in_tiles, supervised_losses
from finetuning.training.trainer import AdapterTrainer


class ReferenceTrainer(AdapterTrainer):
    """A trainer whose loss is about how much likelier an answer has become than the base model found it."""

    def gains(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """How much likelier (nats) all that is supervised in a conversation has become (conversations,).

        In one pass of the model as it was, without gradients, and one of the model.
        """
        adapted: Any = self.accelerator.unwrap_model(model)
        with torch.no_grad(), as_it_was(adapted):
            before = self._log_probabilities(adapted, inputs)
        return self._log_probabilities(model, inputs) - before

    def _log_probabilities(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """The log likelihood (nats) of all that is supervised in each conversation (conversations,)."""
        if not self.own_head:
            return log_probabilities_in_tiles(model, inputs).sum(dim=1)
        head: Any = self.accelerator.unwrap_model(model).get_output_embeddings()
        losses, rows = supervised_losses(model, head, inputs)
        return torch.zeros(len(inputs["labels"]), device=losses.device).index_add(0, rows, -losses)

    def in_all(self, count: int, device: torch.device) -> torch.Tensor:
        """The sum of that number over all processes."""
        if self.args.world_size == 1:
            return torch.tensor(count)  # on the host, which need not wait for the GPU to send it
        counts: Any = self.accelerator.gather(torch.tensor(count, device=device))
        return counts.sum()

    def go_back(self, moment: Moment) -> None:
        """Undo a step that was begun since then, and switch the adapter on, which the step may have switched off."""
        adapted: Any = self.accelerator.unwrap_model(self.model)
        adapted.base_model.enable_adapter_layers()
        super().go_back(moment)


@contextmanager
def as_it_was(model: Any) -> Iterator[None]:
    """Let the model answer within the block as before it was trained, without adapter and dropout."""
    was_training = model.training
    model.eval()
    try:
        with model.disable_adapter():
            yield
    finally:
        model.train(was_training)


def supervised_tokens(labels: torch.Tensor) -> torch.Tensor:
    """How many tokens of each conversation are supervised (conversations,), of `labels` (conversations, length)."""
    return (labels[:, 1:] != NOT_SUPERVISED).sum(dim=1)
