"""A trainer that may be killed at any step: what it keeps in checkpoints, and how it goes on from one.

Everything else is transformers' and trl's. What is trained, and on what, is for `AdapterTrainer` and others to say.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import broadcast, gather_object
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file, save_file
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME

from finetuning.progress import Progress as Steps
from finetuning.tokens import NOT_SUPERVISED
from finetuning.training.batches import StepBatches, TokenRows
from finetuning.training.checkpoints import checkpoint_of, write_checkpoint
from finetuning.training.layers import layers_of

WEIGHTS, RANDOM, PROGRESS, OWN = "trainable.safetensors", "random.pt", "progress.json", "own.pt"


Saved = Callable[[Path], object]
OwnState = dict[str, Any]


def nothing(checkpoint: Path) -> None:
    """Do nothing with a checkpoint; for trainings that tell nobody of theirs."""


class Moment(NamedTuple):
    """Between two steps, what is not in weights and optimizer and changes during a step."""

    random: dict[str, torch.Tensor]
    """The states of torch's random number generators, which are all that training draws from."""
    loss: torch.Tensor
    """The sum of the losses of steps since the last point of the loss curve."""
    tokens: int
    own: Mapping[str, Any]
    """What this kind of trainer keeps beside (`own_state`)."""


@dataclass
class Progress:
    """What a training has come to, that transformers' own state does not hold."""

    loss: float = 0.0
    """The sum of the losses of steps since the last point of the loss curve, as the mean of all processes."""
    losses: list[float] = field(default_factory=list)
    """The same sum of each process: their mean would be rounded another time."""
    logged: int = 0
    """The step of that point."""
    seconds: float = 0.0
    """Training until `since`."""
    since: float = 0.0
    """By this process's clock."""
    best: float | None = None
    """The least eval loss."""
    stalled: int = 0
    """Evaluations since then."""


KEPT = 2  # checkpoints, where the settings do not say how many


class ResumableTrainer(Trainer):
    """Trains what a checkpoint holds whole.

    Args:
        saved: is called in every process with each checkpoint, once it is complete.
        loraplus_lr_ratio: how much faster the matrices B learn (LoRA+); None for the same speed.
        kept_layers: how many layers, the last ones, keep their activations where the others compute them twice.
        says: is told how far a step is.
    """

    batches: type[StepBatches] = StepBatches
    """Decides which rows are in which batch."""

    def __init__(
        self,
        *,
        saved: Saved = nothing,
        loraplus_lr_ratio: float | None = None,
        kept_layers: int = 0,
        says: Steps | None = None,
        **settings: Any,
    ) -> None:
        self.saved, self.loraplus_lr_ratio, self.kept_layers = saved, loraplus_lr_ratio, kept_layers
        self.says = says or Steps(lambda line: None, "")
        # What a checkpoint keeps beside transformers' own state.
        self.progress = Progress()
        super().__init__(**settings)

    def own_state(self) -> OwnState:
        """What a kind of trainer keeps beside what all do; of tensors, numbers and containers of these."""
        return {}

    def take_own_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `own_state` was."""

    def in_words(self) -> str:
        """What the progress line says of the last step instead of its loss; empty for the loss."""
        return ""

    def summary(self) -> OwnState:
        """What a kind of trainer tells of a training beside what all do."""
        return {}

    def keep_start(self) -> None:
        """Remember the adapter as it is now, before the first step, where that is compared with."""

    def token_rows(self, rows: Any) -> TokenRows:
        """The rows of a split by number, as a batch is made of them."""
        return TokenRows(rows)

    def collated(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch of rows whose loss is measured."""
        return self.data_collator(rows)

    @contextmanager
    def trackers_until_evaluated(self) -> Iterator[None]:
        """Tell the callbacks of the end where this block ends, and not where the steps do.

        The evaluation after them belongs to the training too. A tracker that is told before begins another run for it.
        """
        handler: Any = self.callback_handler
        end = handler.on_train_end
        handler.on_train_end = lambda args, state, control: control
        yield
        handler.on_train_end = end
        self.control = end(self.args, self.state, self.control)

    def evaluate(self, *args: Any, **settings: Any) -> dict[str, float]:
        """The metrics of the rows that training is watched by: `eval_loss`, the mean over all supervised tokens."""
        metrics = self.metrics_on(self.eval_dataset)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def metrics_on(self, rows: Any) -> dict[str, float]:
        """The same of any rows, which no log is told."""
        token_rows, size = self.token_rows(rows), self.args.per_device_eval_batch_size
        batches = [*self.batches(token_rows.lengths, size, 1, "group_by_length", self.args.seed)]
        found: list[list[float]] = []
        adapted: Any = self.model
        was_training = adapted.training
        adapted.eval()
        for first in range(0, len(batches), self.args.world_size):
            mine = first + self.args.process_index
            # A sharded model is called by all processes together: what the last round has no batch for is not counted.
            batch = batches[min(mine, len(batches) - 1)]
            inputs = self._prepare_inputs(self.collated([token_rows[i] for i in batch]))
            with torch.no_grad(), self.compute_loss_context_manager():
                sums = self.measured(inputs).double().tolist()
            found += [sums] if mine < len(batches) else []
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        adapted.train(was_training)
        return self.metrics_of(torch.tensor(gather_object(found), dtype=torch.float64).sum(dim=0).tolist())

    def measured(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Of a batch of the eval split, the summed loss and the number of supervised tokens."""
        count = (inputs["labels"][:, 1:] != NOT_SUPERVISED).sum()
        adapted: Any = self.model
        mean: Any = self.compute_loss(adapted, inputs)
        return torch.stack([mean.double() * count, count.double()])

    def metrics_of(self, sums: list[float]) -> dict[str, float]:
        """What `measured` comes to, summed over all batches."""
        total, count = sums
        return {"eval_loss": total / max(count, 1)}

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The recipe's optimizer; with LoRA+, matrices A and B in groups of their own."""
        if self.loraplus_lr_ratio is None or self.optimizer is not None:
            return super().create_optimizer(model)
        adapted: Any = self.model
        optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, adapted)
        settings |= {"weight_decay": self.args.weight_decay}
        self.optimizer = create_loraplus_optimizer(
            adapted, optimizer_class, loraplus_lr_ratio=self.loraplus_lr_ratio, **settings
        )
        return self.optimizer

    def moment(self) -> Moment:
        """What has to be as it is now when training goes on from here."""
        tokens = self.state.num_input_tokens_seen
        return Moment(_random_state(), self._tr_loss.clone(), tokens, self.own_state())

    def go_back(self, moment: Moment) -> None:
        """Undo a step that was begun since then."""
        _set_random_state(moment.random)
        self._tr_loss = moment.loss
        self.state.num_input_tokens_seen = moment.tokens
        self.take_own_state(moment.own)
        adapted: Any = self.model
        adapted.zero_grad()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        states, own = gather_object([_random_state()]), gather_object([self.own_state()])
        # Each process has the losses of its own rows; the curve has their mean.
        self.progress.losses = losses = gather_object([self._tr_loss.item()])
        self.progress.loss = sum(losses) / len(losses)
        folder, step = Path(self.args.output_dir or ""), self.state.global_step
        if self.is_world_process_zero():
            keep = self.args.save_total_limit or KEPT
            write_checkpoint(folder, step, lambda draft: self._write(draft, states, own), keep)
        self.accelerator.wait_for_everyone()
        self.saved(checkpoint_of(folder, step))

    def _write(self, folder: Path, random_states: list[dict[str, torch.Tensor]], own: list[OwnState]) -> None:
        save_file(self.trainable(), folder / WEIGHTS)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        torch.save(random_states, folder / RANDOM)
        if any(own):
            torch.save(own, folder / OWN)
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        self.progress.logged = self._globalstep_last_logged
        self.progress.seconds += time.monotonic() - self.progress.since
        self.progress.since = time.monotonic()
        (folder / PROGRESS).write_text(json.dumps(asdict(self.progress)))

    def keep_activations(self) -> None:
        """Let the last layers keep their activations, once all layers were told to compute them twice.

        Backward they come first, and have gone when the others compute theirs.
        """
        model: Any = self.accelerator.unwrap_model(self.model)
        layers: list[Any] = [*layers_of(model.get_base_model())]
        for layer in layers[len(layers) - self.kept_layers :]:
            for module in layer.modules():
                if hasattr(module, "gradient_checkpointing"):
                    module.gradient_checkpointing = False

    def begin(self, checkpoint: Path | None) -> None:
        """Start the clock, and count losses, seconds and the best eval loss on from the checkpoint's."""
        if checkpoint:
            self.progress = Progress(**json.loads((checkpoint / PROGRESS).read_text()))
            own = self.progress.losses or [self.progress.loss] * self.args.world_size
            self._tr_loss += own[self.args.process_index]
            self._globalstep_last_logged = self.progress.logged
            if (checkpoint / OWN).exists():
                self.take_own_state(torch.load(checkpoint / OWN)[self.args.process_index])
        self.progress.since = time.monotonic()

    def end_before_a_step(self) -> None:
        """End a training whose checkpoint is its last one; the curve has the steps since its last point too."""
        self.is_in_train = False
        if (steps := self.state.global_step - self._globalstep_last_logged) > 0:
            self.log({"loss": self.progress.loss / steps})

    def trainable(self) -> dict[str, torch.Tensor]:
        """All that is trained, by name."""
        model: Any = self.accelerator.unwrap_model(self.model)
        return {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}

    def set_trainable(self, path: Path) -> None:
        """Give what is trained the values in that file, bit for bit."""
        saved = load_file(path)
        with torch.no_grad():
            for name, parameter in self.trainable().items():
                parameter.copy_(saved[name])

    def hand_trainable_on(self) -> None:
        """Give what is trained the first process's values in all processes."""
        for parameter in self.trainable().values() if self.args.world_size > 1 else ():
            values: Any = broadcast(parameter)
            parameter.copy_(values)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.set_trainable(Path(resume_from_checkpoint) / WEIGHTS)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint:
            _set_random_state(torch.load(Path(checkpoint) / RANDOM)[self.args.process_index])


def _random_state() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else states


def _set_random_state(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
