"""Follows a training step by step: says how far it is, when it is saved and evaluated, and when it ends early."""

import math
import time
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetuning.errors import FinetuningError
from finetuning.progress import Progress
from finetuning.training.interruption import Interrupted, Interruption, Watchdog
from finetuning.training.job import TrainingJob
from finetuning.training.resumable import Moment, ResumableTrainer

BEST = "best.safetensors"


def last_step(share: float, steps: int) -> int:
    """The step after which that share of a training is done.

    >>> last_step(0.25, 6), last_step(0.5, 1)
    (2, 1)
    """
    return max(1, math.ceil(share * steps))


class Diverged(FinetuningError):
    """The loss is infinite or not a number."""


class Enough(Exception):
    """Training ends before a step, since the steps until then were all."""


class TrainingProgress(TrainerCallback):
    """Tells `progress` how far training is, and stops at a loss that is not a number."""

    def __init__(self, progress: Progress, job: TrainingJob, interruption: Interruption, watchdog: Watchdog) -> None:
        self.progress, self.where, self.spec, self.until = progress, job.where, job.training, job.until
        self.interruption, self.watchdog = interruption, watchdog
        self.trainer: ResumableTrainer
        self.checkpoint: Path | None = None
        # Of the last complete step; None where weights or optimizer are being written.
        self.moment: Moment | None = None
        self._started, self._step, self._saved, self._loss = 0.0, 0, 0.0, math.nan
        self._ending = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        """Starts the clocks, and saves the state before the first step: a full disk is found now or never.

        Raises:
            FinetuningError: the learning rate would still rise when training ends.
        """
        if self.spec.warmup_steps > state.max_steps:
            raise FinetuningError(
                f"{self.where}: training.warmup_steps: {self.spec.warmup_steps:g}, and the training has "
                f"{state.max_steps} steps, so that learning_rate would never be reached. Write fewer, "
                "or a share below 1, such as 0.03."
            )
        self.watchdog.heard()
        self._started, self._step = time.monotonic(), state.global_step
        self._tokens = state.num_input_tokens_seen
        self.trainer.keep_activations()
        self.trainer.begin(self.checkpoint)
        self._save()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        """Remembers where to go back to; one process alone may be interrupted within a step.

        Raises:
            Enough: an earlier run has made all steps that there are to make.
        """
        self.watchdog.heard()
        if self._is_enough(state) or self._has_stalled():
            raise Enough
        self.moment = self.trainer.moment()
        if args.world_size == 1:
            self.interruption.release()

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        """Is alive."""
        self.watchdog.heard()

    def on_prediction_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        """Is alive; what an evaluation found so far is of no use, so that it can be interrupted anywhere."""
        self.watchdog.heard()
        if self.interruption.requested and args.world_size == 1:
            raise Interrupted

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ):
        """The update of the weights is not torn."""
        self.interruption.hold()
        self.moment = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        """Says how far training is, and decides what is due."""
        self._say(state)
        step, spec = state.global_step, self.spec
        last = step >= state.max_steps
        enough = self._is_enough(state)
        due = time.monotonic() - self._saved > spec.save_minutes * 60
        due, self._ending = self._agreed(due, args.world_size)
        control.should_log |= last
        control.should_evaluate |= bool(spec.eval_steps and step % spec.eval_steps == 0)
        control.should_save |= last or enough or due or self._ending
        control.should_save |= bool(spec.save_steps and step % spec.save_steps == 0)
        control.should_training_stop |= enough

    def _agreed(self, due: bool, processes: int) -> tuple[bool, bool]:
        """Whether a checkpoint is due, by the clock of the first process, and whether any was told to end."""
        if processes == 1:
            return due, False
        said = gather_object([(due, self.interruption.requested)])
        return said[0][0], any(ending for _, ending in said)

    def _say(self, state: TrainerState) -> None:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        left = elapsed / (state.global_step - self._step) * (state.max_steps - state.global_step)
        speed = f"{(state.num_input_tokens_seen - self._tokens) / elapsed:.0f} tokens/s"
        loss = "" if math.isnan(self._loss) else f"loss {self._loss:.4f}"
        said = " · ".join(part for part in (self.trainer.in_words() or loss, speed, f"{left:.0f} s left") if part)
        self.progress.update(f"step {state.global_step}/{state.max_steps} · {said}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        """Ends a training of several processes that one of them was told to end."""
        self._saved = time.monotonic()
        if self._ending:
            raise Interrupted

    def _save(self) -> None:
        self.trainer._save_checkpoint(None, None)
        self._saved = time.monotonic()

    def save_interrupted(self) -> None:
        """Save the last complete step, unless none is known."""
        if self.moment:
            self.trainer.go_back(self.moment)
            self._save()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs=None, **kwargs: Any):
        """Keeps the loss.

        Raises:
            Diverged: the loss is infinite or not a number.
        """
        loss = (logs or {}).get("loss")
        if loss is not None:
            self._loss = float(loss)
            self.require_finite(self._loss, state)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        """Keeps the weights with the least eval loss, and ends a training that no longer gets better."""
        patience, found, metrics = self.spec.early_stopping_patience, self.trainer.progress, kwargs["metrics"]
        self.require_finite(metrics["eval_loss"], state)
        if not patience or not self.trainer.is_in_train:
            return
        if found.best is None or metrics["eval_loss"] < found.best:
            found.best, found.stalled = metrics["eval_loss"], 0
            if state.is_world_process_zero:
                draft = Path(args.output_dir or "") / f".{BEST}"
                save_file(self.trainer.trainable(), draft)
                draft.replace(draft.with_name(BEST))
        else:
            found.stalled += 1
        if self._has_stalled():
            # The curve has the steps since its last point too, and the next run need not find this out once more.
            control.should_training_stop = control.should_log = control.should_save = True

    def _is_enough(self, state: TrainerState) -> bool:
        return self.until is not None and state.global_step >= last_step(self.until, state.max_steps)

    def _has_stalled(self) -> bool:
        patience = self.spec.early_stopping_patience
        return patience is not None and self.trainer.progress.stalled >= patience

    def require_finite(self, loss: float, state: TrainerState) -> None:
        """Check that a loss is a finite number.

        Raises:
            Diverged: `loss` is infinite or not a number.
        """
        if not math.isfinite(loss):
            raise Diverged(
                f"{self.where}: training diverged: the loss at step {state.global_step} is {loss}. Lower "
                "training.learning_rate, or set training.max_grad_norm to 0.3."
            )
