"""trl's trainer of supervised rows with batches and a loss of its own; everything else is trl's and transformers'."""

from typing import Any

import torch
from trl import SFTTrainer

from finetuning.training.attention import attention_backend
from finetuning.training.batches import EpochLoader, Order, unpadded_tokens
from finetuning.training.resumable import ResumableTrainer
from finetuning.training.supervised_loss import loss_in_tiles, supervised_loss


class AdapterTrainer(ResumableTrainer, SFTTrainer):
    """Trains an adapter on rows that are tokens already.

    Args:
        rows_per_step: of all processes and micro-batches together.
        tokens_per_step: the same in tokens, padding included, instead; None for rows.
        order: how rows become steps (`StepBatches`).
        own_head: make the logits by the model's own head; trl's needs less memory on a GPU, and twice the time of a
            step's head on a CPU, where its backward pass runs in float32.
        settings: those of `ResumableTrainer` and `SFTTrainer`.
    """

    def __init__(
        self,
        *,
        rows_per_step: int,
        order: Order,
        own_head: bool,
        tokens_per_step: int | None = None,
        **settings: Any,
    ) -> None:
        self.rows_per_step, self.own_head, self.tokens_per_step = rows_per_step, own_head, tokens_per_step
        self.order: Order = order
        self.step_tokens = 0
        super().__init__(**settings)

    def get_train_dataloader(self) -> EpochLoader:
        """The micro-batches of this process."""
        rows: Any = self.train_dataset
        token_rows = self.token_rows(rows)
        batches = self.batches(
            token_rows.lengths,
            self.rows_per_step,
            self.args.gradient_accumulation_steps,
            self.order,
            self.args.seed,
            self.args.process_index,
            self.args.world_size,
            tokens_per_step=self.tokens_per_step,
        )
        # A generator of its own: what is drawn while a loader starts must not move what dropout draws.
        return EpochLoader(
            token_rows,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
            generator=torch.Generator(),
        )

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **settings: Any) -> torch.Tensor:
        """The loss of a micro-batch, whose gradients were added to the parameters'."""
        # Around the backward pass too, in which activation checkpointing goes forward once more.
        ids = inputs["input_ids"]
        with attention_backend(ids.device.type, ids.shape[1]):
            return super().training_step(model, inputs, *args, **settings)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch=None):
        """The same loss as trl's `nll`: the sum over supervised tokens, divided by their number in the whole step.

        Without trl's metrics, for each of which the host would wait for the GPU.
        """
        if self.own_head:
            head: Any = self.accelerator.unwrap_model(model).get_output_embeddings()
            total, count = supervised_loss(model, head, inputs)
        else:
            total, count = loss_in_tiles(model, inputs)
        loss = self._share(total, count, num_items_in_batch)
        return (loss, None) if return_outputs else loss

    def _share(self, total: torch.Tensor, count: torch.Tensor, in_step: Any) -> torch.Tensor:
        """What a micro-batch adds to the mean loss of its step, of which it has `count` items, or a mean by itself."""
        if in_step is None:
            return total / count.clamp(min=1)
        # The number is that of all processes, over which the gradients are averaged.
        return total / in_step * (self.accelerator.num_processes if self.args.average_tokens_across_devices else 1)

    def _prepare_input(self, data: Any) -> Any:
        # From memory that is pinned, the GPU fetches it while the host goes on.
        return data.to(self.args.device, non_blocking=True) if torch.is_tensor(data) else super()._prepare_input(data)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        # What one process counts stays on the host, where the batches are: to send it is to wait for the GPU.
        return super()._get_num_items_in_batch(
            batch_samples, device if self.args.world_size > 1 else torch.device("cpu")
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The micro-batches of a step, and the number of supervised tokens in it, those of other processes too."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        tokens = sum(map(unpadded_tokens, batches))
        if self.args.world_size > 1:
            # Once a step and before its first pass: each time, the host waits for the GPU.
            counts: Any = self.accelerator.gather(torch.tensor(tokens, device=device))
            tokens = int(counts.sum())
        self.step_tokens = tokens
        return batches, items

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        if self.accelerator.sync_gradients:  # the last pass of the step
            self.state.num_input_tokens_seen += self.step_tokens
