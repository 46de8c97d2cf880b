"""Training with trl and peft: a quantized base model and a tokenized data set in, a LoRA adapter out."""

import math
import resource
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from pydantic import BaseModel, ConfigDict
from torch.nn.functional import cross_entropy
from transformers import (
    AutoTokenizer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer, pack_dataset

from finetuning.embeddings import adapt_head, give_rows, has_bias, linear_layers, lora_config
from finetuning.errors import FinetuningError
from finetuning.layouts import NOT_SUPERVISED
from finetuning.progress import Progress
from finetuning.quantization import keep_trainable_on_cpu, load_model
from finetuning.recipe import LoraSpec, TrainingSpec
from finetuning.recipe_errors import nearest

MIB = 2**20


class TrainingJob(BaseModel):
    """All that one training reads and where it writes; paths are folders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str
    lora: LoraSpec
    training: TrainingSpec
    max_length: int
    chat_dataset: Path
    base_model: Path
    model_kwargs: dict[str, Any]
    output: Path


class TrainingProgress(TrainerCallback):
    """Tells `progress` how far training is, keeps the loss curve, and stops at a loss that is no number."""

    def __init__(self, progress: Progress, where: str) -> None:
        self.progress, self.where = progress, where
        self.curve: list[dict[str, float]] = []
        self._started, self._loss = 0.0, math.nan

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        """Starts the clock of the first step."""
        self._started = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        """Says how far training is."""
        elapsed = time.monotonic() - self._started
        left = elapsed / state.global_step * (state.max_steps - state.global_step)
        speed = f"{state.num_input_tokens_seen / elapsed:.0f} tokens/s"
        self.progress.update(
            f"step {state.global_step}/{state.max_steps} · loss {self._loss:.4f} · {speed} · {left:.0f} s left"
        )

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs=None, **kwargs: Any):
        """Keeps the loss.

        Raises:
            FinetuningError: the loss is infinite or not a number.
        """
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        self._loss = float(loss)
        self.require_finite(self._loss, state)
        self.curve.append({"step": state.global_step, "loss": self._loss, "epoch": round(state.epoch or 0.0, 4)})

    def require_finite(self, loss: float, state: TrainerState) -> None:
        """Nothing.

        Raises:
            FinetuningError: `loss` is infinite or not a number.
        """
        if not math.isfinite(loss):
            raise FinetuningError(
                f"{self.where}: training diverged: the loss at step {state.global_step} is {loss}. Lower "
                "training.learning_rate, or set training.max_grad_norm to 0.3."
            )


class CpuTrainer(SFTTrainer):
    """trl's trainer with a head that is fast on a CPU.

    trl never builds the logits of a whole batch, which saves a GPU's memory; the backward pass of its chunked head runs
    in float32 and takes two fifths of a step on a CPU. There, the logits of the supervised positions alone are small.
    """

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch=None):
        """The same loss as trl's `nll`: the sum over supervised tokens, divided by their number in the whole batch."""
        labels = inputs["labels"][:, 1:]
        positions = (labels != NOT_SUPERVISED).any(dim=0).nonzero().flatten()
        rest = {key: value for key, value in inputs.items() if key != "labels"}
        outputs = model(**rest, use_cache=False, logits_to_keep=positions)
        kept = labels[:, positions]
        count = (kept != NOT_SUPERVISED).sum() if num_items_in_batch is None else num_items_in_batch
        logits = outputs.logits.float().flatten(0, 1)
        loss = cross_entropy(logits, kept.flatten(), ignore_index=NOT_SUPERVISED, reduction="sum") / count
        return (loss, outputs) if return_outputs else loss


def train(job: TrainingJob, progress: Progress) -> dict[str, Any]:
    """The summary of the adapter that `job.output` then holds, with its tokenizer.

    Losses are means over supervised tokens, speed is in tokens per second without padding, memory in MiB.

    Raises:
        FinetuningError: the loss is no longer a number.
    """
    progress.update("loading the base model")
    model = load_model(job.base_model, **job.model_kwargs)
    keep_trainable_on_cpu(model)
    require_target_modules(model, job)
    trust = job.model_kwargs["trust_remote_code"]
    tokenizer = AutoTokenizer.from_pretrained(job.chat_dataset / "tokenizer", trust_remote_code=trust)
    new_tokens = give_rows(model, tokenizer, job.base_model, job.where, trust)
    callback = TrainingProgress(progress, job.where)
    own_head = model.device.type == "cpu" or (new_tokens and has_bias(model.get_output_embeddings()))
    trainer = (CpuTrainer if own_head else SFTTrainer)(
        model=model,
        args=sft_config(job),
        train_dataset=train_rows(job),
        eval_dataset=tokens_of(job.chat_dataset / "eval.parquet"),
        processing_class=tokenizer,
        peft_config=lora_config(job.lora, model, new_tokens, job.where),
        callbacks=[callback],
    )
    adapted: Any = trainer.model
    adapt_head(adapted, new_tokens)
    keep_master_weights(adapted)
    started = time.monotonic()
    result = trainer.train()
    seconds = time.monotonic() - started
    progress.update("measuring the loss on the eval split")
    eval_loss = trainer.evaluate()["eval_loss"]
    callback.require_finite(eval_loss, trainer.state)
    # peft would add all embeddings, which are as they were but for rows that it saves by themselves.
    adapted.save_pretrained(job.output, save_embedding_layers=False)
    tokenizer.save_pretrained(job.output)
    return {
        "trainable_parameters": sum(p.numel() for p in adapted.parameters() if p.requires_grad),
        "steps": result.global_step,
        "train_loss": result.training_loss,
        "eval_loss": eval_loss,
        "tokens": trainer.state.num_input_tokens_seen,
        "tokens_per_second": round(trainer.state.num_input_tokens_seen / seconds, 1),
        "training_seconds": round(seconds, 1),
        "peak_memory_mb": peak_memory(),
        "device": str(model.device),
        "attention": model.config._attn_implementation,
        "curve": callback.curve,
    }


def require_target_modules(model: torch.nn.Module, job: TrainingJob) -> None:
    """Nothing.

    Raises:
        FinetuningError: the recipe targets a module that the model does not have.
    """
    layers = linear_layers(model)
    wanted = [] if isinstance(job.lora.target_modules, str) else job.lora.target_modules
    for name in wanted:
        if name.rsplit(".")[-1] not in layers:
            raise FinetuningError(
                f"{job.where}: lora.target_modules: {name!r} is no linear layer of {type(model).__name__}, which has "
                f"{', '.join(sorted(layers))}{nearest(name, layers)}. Or write all-linear."
            )


def keep_master_weights(model: torch.nn.Module) -> None:
    """Nothing; what is trained is stored in float32, and computed with in bfloat16 by the trainer's autocast.

    trl stores the adapters of a quantized model in bfloat16, whose eight bits of precision lose most updates once the
    learning rate has fallen: a step smaller than 1/256 of a weight rounds to nothing.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def sft_config(job: TrainingJob) -> SFTConfig:
    """The recipe's training settings, and those that are not a matter of taste."""
    on_cpu, dtype = job.model_kwargs["device_map"][""] == "cpu", job.model_kwargs["dtype"]
    settings = job.training.model_dump()
    # A GPU without bfloat16 computes in float16, whatever the recipe wishes.
    settings |= {"bf16": settings["bf16"] and dtype == "bfloat16", "fp16": dtype == "float16"}
    return SFTConfig(
        **settings,
        output_dir=str(job.output),
        # Rows come tokenized, with labels, and no longer than chat.max_length.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        # The filter replaces a loss that is not a number by the mean of those before it.
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
    )


def train_rows(job: TrainingJob) -> Dataset:
    """The rows of the train split or, where the recipe packs, bins of at most `max_length` tokens of them.

    trl packs only while it tokenizes, and these rows are tokens already.
    """
    rows = tokens_of(job.chat_dataset / "train.parquet")
    return pack_dataset(rows, job.max_length, "bfd") if job.training.packing else rows


def tokens_of(path: Path) -> Dataset:
    """`input_ids` and `labels` of one split."""
    return Dataset.from_parquet(str(path)).select_columns(["input_ids", "labels"])


def peak_memory() -> int:
    """MiB that this process held at most: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
