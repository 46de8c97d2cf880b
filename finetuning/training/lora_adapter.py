"""Training with trl and peft: a quantized base model and a tokenized data set in, a LoRA adapter out."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from datasets import Dataset
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoTokenizer
from trl import SFTConfig

from finetuning.base_model.loading import keep_trainable_on_cpu, layers_in_4_bits, load_model, write_out
from finetuning.base_model.loftq import start_from_factors
from finetuning.base_model.rows_apart import require_rows_apart
from finetuning.errors import InfrastructureError
from finetuning.fused.layers import fuse_layers
from finetuning.lora.config import keep_master_weights, lora_config, trains_head
from finetuning.lora.embeddings import adapt_head, give_rows
from finetuning.lora.start import go_on, restore
from finetuning.lora.targets import require_targets
from finetuning.out_of_memory import is_out_of_memory
from finetuning.progress import Progress
from finetuning.recipe.base_model import KEEP_ROWS_APART
from finetuning.training.callback import BEST, Diverged, Enough, TrainingProgress
from finetuning.training.checkpoints import complete, require_space, step_of
from finetuning.training.curves import Curves
from finetuning.training.interruption import Interrupted, Interruption, Watchdog
from finetuning.training.job import REWARDS, BatchSize, TooLarge, TrainingJob
from finetuning.training.judgements import JudgementTrainer
from finetuning.training.peak_memory import peak_memory, peak_reserved
from finetuning.training.preferences import PreferenceTrainer
from finetuning.training.resumable import ResumableTrainer, Saved, nothing
from finetuning.training.rows import require_rows_for, tokens_of, train_rows, watched
from finetuning.training.settings import is_sharded, leaves_padding_out, model_kwargs, on_cpu, processes, sft_config
from finetuning.training.sharding import shard
from finetuning.training.trainer import AdapterTrainer

MIB = 2**20

UNPREDICTED = (
    "Set training.on_oom to halve-batch, lower training.per_device_train_batch_size (and raise "
    "gradient_accumulation_steps by as much), lower chat.max_length, set training.activation_checkpointing to true, or "
    "quantize the base model."
)


class Kind(NamedTuple):
    """What a training of a method is made of, beside what all trainings are."""

    trainer: Callable[..., ResumableTrainer]
    """Makes the trainer, of the job, of how its steps are cut, and of the settings of all trainers."""
    config: Callable[[TrainingJob, BatchSize, Any], Any]
    """Makes trl's settings, for the model."""
    rows: Callable[[TrainingJob], Dataset]
    """Reads what is trained on."""


def train(
    job: TrainingJob,
    progress: Progress,
    hang: Path | None = None,
    interruption: Interruption | None = None,
    saved: Saved = nothing,
    kind: Kind | None = None,
) -> dict[str, Any]:
    """Train the adapter into `job.output`, with its tokenizer, and return its summary.

    Goes on from the newest checkpoint in `job.checkpoints`, which is of this very job or there is none. Losses are
    means over supervised tokens, speed is in tokens per second without padding, memory in MiB.

    Args:
        hang: the file that tells, after the process ended itself because nothing went on, where it was.
        interruption: by which whoever runs this may ask for the end, beside signals.
        saved: is called in every process with each checkpoint, once it is complete.
        kind: what a training of the job's method is made of; of those that learn from rows alone unless said otherwise.

    Raises:
        FinetuningError: the loss is no longer a number, memory ran out, or the disk is full.
        TooLarge: memory ran out, and what was done goes on with smaller passes, in a new process.
        Interrupted: a signal asked for the end; all that was done is in a checkpoint.
    """
    spec = job.training
    size = job.batch_size or BatchSize(spec.per_device_train_batch_size, spec.gradient_accumulation_steps)
    try:
        watchdog = Watchdog(hang or job.checkpoints.with_name("hang.txt"), spec.step_timeout_minutes * 60)
        callback = TrainingProgress(progress, job, interruption or Interruption(), watchdog)
        return _train(job, size, kind or kind_of(job), callback, saved)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if spec.on_oom == "error" or size.rows == 1:
            raise InfrastructureError(_out_of_memory(job, size, error)) from error
        raise TooLarge(size.halved()) from error


def _train(job: TrainingJob, size: BatchSize, kind: Kind, callback: TrainingProgress, saved: Saved) -> dict[str, Any]:
    progress, watchdog = callback.progress, callback.watchdog
    progress.update("loading the base model")
    model = load_model(job.base_model, **model_kwargs(job))
    keep_trainable_on_cpu(model)
    require_targets(model, job.lora, job.where)
    trust = job.model_kwargs["trust_remote_code"]
    tokenizer = AutoTokenizer.from_pretrained(job.chat_dataset / "tokenizer", trust_remote_code=trust)
    new_tokens = give_rows(model, tokenizer, job.base_model, job.where, trust)
    require_rows_for(job.chat_dataset, len(model.get_input_embeddings().weight), job.where)
    if job.training.packing and model.config._attn_implementation in KEEP_ROWS_APART and not is_sharded(job):
        require_rows_apart(model, job.where)
    # Asked of the base model as it is; an adapter that training goes on from is in it from then on.
    config = lora_config(job.lora, model, new_tokens, job.where)
    own_head = on_cpu(job) or trains_head(model, job.lora, new_tokens)
    is_started = job.lora.start_from is not None
    model = go_on(model, job.lora, new_tokens, job.where) if is_started else model
    curves = Curves(job.checkpoints / "tensorboard")  # which outlives a failure, as checkpoints do
    trainer = kind.trainer(
        job,
        size,
        model=model,
        args=kind.config(job, size, model),
        train_dataset=kind.rows(job),
        eval_dataset=tokens_of(watched(job.chat_dataset), job.training.method),
        processing_class=tokenizer,
        peft_config=None if is_started else config,
        callbacks=[callback, *([curves] if "tensorboard" in job.training.report_to else [])],
        own_head=own_head,
        saved=lambda checkpoint: (curves.flush(), saved(checkpoint)),
        loraplus_lr_ratio=job.training.loraplus_lr_ratio,
        kept_layers=job.kept_layers,
        says=progress,
    )
    callback.trainer = trainer
    adapted: Any = trainer.model
    adapt_head(adapted, new_tokens)
    keep_master_weights(adapted)
    if is_started:
        restore(adapted, job.lora)
        trainer.keep_start()
    leave_casts_to_autocast(trainer)
    fuse_layers(adapted, on_cpu(job))
    if job.lora.init_lora_weights == "loftq":
        start_from_factors(adapted, job.base_model)
    # These take a part out of the base model's weights; the difference from the start fits the model as it was.
    start = job.checkpoints / "start" if job.lora.init_lora_weights in ("pissa", "olora") else None
    if start:
        adapted.save_pretrained(start, save_embedding_layers=False)
    sharding: dict[str, Any] = {"strategy": "ddp"}
    if is_sharded(job):
        progress.update("dividing the base model")
        sharding = {"strategy": "fsdp", **shard(trainer, job.where)}
        progress.log("fsdp: {weights_held_mb:,} of {weights_mb:,} MiB of weights in each process".format(**sharding))
    if job.writes_weights_out:
        progress.update("writing the weights out")
        write_out(adapted, layers_in_4_bits(adapted))
    try:
        with trainer.trackers_until_evaluated():
            _run(job, trainer, callback)
            progress.update(f"measuring the loss on the {watched(job.chat_dataset).stem} split")
            metrics = trainer.evaluate()
    except Diverged:
        if job.until is None:
            raise
        return reached(trainer, None)
    if job.until is not None:
        watchdog.rest()
        return reached(trainer, metrics["eval_loss"])
    exam, examined = job.chat_dataset / "eval.parquet", {}
    if exam != watched(job.chat_dataset):
        examined = {"exam_loss": trainer.metrics_on(tokens_of(exam, job.training.method))["eval_loss"]}
    watchdog.rest()
    if trainer.is_world_process_zero():
        # peft would add all embeddings, which are as they were but for rows that it saves by themselves.
        adapted.save_pretrained(
            job.output,
            save_embedding_layers=False,
            selected_adapters=["default"],
            path_initial_model_for_weight_conversion=start and str(start),
        )
        if (events := job.checkpoints / "tensorboard").exists():
            shutil.copytree(events, job.output / "tensorboard", dirs_exist_ok=True)
        tokenizer.save_pretrained(job.output)
    written = {"weights_written_out": job.writes_weights_out}
    return _summary(trainer, metrics, size) | examined | sharding | written


def kind_of(job: TrainingJob) -> Kind:
    """What a training from rows is made of, by the job's method."""
    return Kind(row_trainer, row_config, train_rows)


def row_config(job: TrainingJob, size: BatchSize, model: Any) -> SFTConfig:
    """The settings of a training from rows."""
    return sft_config(job, size, leaves_padding_out(job, size, model))


def row_trainer(job: TrainingJob, size: BatchSize, **settings: Any) -> AdapterTrainer:
    """The trainer of the recipe's method."""
    spec = job.training
    settings |= {
        "rows_per_step": spec.per_device_train_batch_size * spec.gradient_accumulation_steps * processes(),
        "order": spec.train_sampling_strategy,
        "tokens_per_step": spec.tokens_per_step,
    }
    if spec.method == "sft":
        return AdapterTrainer(**settings)
    settings |= spec.model_dump(include={"beta", "loss_type"})
    if spec.method == "dpo":
        return PreferenceTrainer(**settings)
    settings |= spec.model_dump(include={"desirable_weight", "undesirable_weight"})
    return JudgementTrainer(max_length=job.max_length, **settings)


def _run(job: TrainingJob, trainer: ResumableTrainer, callback: TrainingProgress) -> None:
    """Make all steps, going on from the newest checkpoint if there is one."""
    # Of several processes, transformers makes the folder in the first one only.
    job.checkpoints.mkdir(parents=True, exist_ok=True)
    trained = sum(p.numel() * 4 for p in trainer.trainable().values())
    # What is trained and the optimizer's two numbers for each, in float32, and one checkpoint more while it is written.
    require_space(job.checkpoints, 3 * trained * (job.training.save_total_limit + 1) + trained)
    found = complete(job.checkpoints)
    callback.checkpoint = found[-1] if found else None
    if callback.checkpoint:
        callback.progress.log(f"going on from the checkpoint of step {step_of(callback.checkpoint)}")
    with callback.interruption.at_signals():
        try:
            trainer.train(resume_from_checkpoint=callback.checkpoint and str(callback.checkpoint))
        except Enough:
            trainer.end_before_a_step()
        except Interrupted:
            callback.save_interrupted()
            raise
        finally:
            callback.watchdog.rest()
    # The first process has written it, which may have folders of its own, or be the last to come here.
    if trainer.is_world_process_zero() and (job.checkpoints / BEST).exists():
        trainer.set_trainable(job.checkpoints / BEST)
    trainer.hand_trainable_on()


def reached(trainer: ResumableTrainer, loss: float | None) -> dict[str, Any]:
    """What a training has come to that goes on another time: `Reached`."""
    state, seconds = trainer.state, round(trainer.progress.seconds, 1)
    return {"step": state.global_step, "steps": state.max_steps, "loss": loss, "seconds": seconds}


def _summary(trainer: ResumableTrainer, metrics: dict[str, float], size: BatchSize) -> dict[str, Any]:
    state, model = trainer.state, trainer.accelerator.unwrap_model(trainer.model)
    points = [entry for entry in state.log_history if "loss" in entry]
    steps = np.diff([point["step"] for point in points], prepend=0)
    seconds = max(trainer.progress.seconds, 1e-9)
    return {
        "trainable_parameters": sum(p.numel() for p in trainer.trainable().values()),
        "steps": state.global_step,
        "train_loss": float(np.average([point["loss"] for point in points], weights=steps)),
        "eval_loss": metrics["eval_loss"],
        **{name: metrics[f"eval_{name}"] for name in REWARDS if f"eval_{name}" in metrics},
        "tokens": state.num_input_tokens_seen,
        "tokens_per_second": round(state.num_input_tokens_seen / seconds, 1),
        "training_seconds": round(seconds, 1),
        "peak_memory_mb": peak_memory(),
        "peak_reserved_mb": peak_reserved(),
        "device": str(model.device),
        "processes": processes(),
        "per_device_train_batch_size": size.rows,
        "gradient_accumulation_steps": size.accumulation,
        "activation_checkpointing": trainer.args.activation_checkpointing,
        "kept_layers": trainer.kept_layers,
        "attention": model.config._attn_implementation,
        "curve": [{"step": p["step"], "loss": p["loss"], "epoch": round(p["epoch"], 4)} for p in points],
        "eval_curve": [
            {"step": entry["step"], "loss": entry["eval_loss"]} for entry in state.log_history if "eval_loss" in entry
        ],
        **trainer.summary(),
    }


def _out_of_memory(job: TrainingJob, size: BatchSize, error: Exception) -> str:
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        there = f"{free // MIB:,} of the GPU's {total // MIB:,} MiB are free"
    else:
        there = f"{psutil.virtual_memory().available // MIB:,} MiB are free"
    tokens = job.training.tokens_per_step
    held = f"{tokens // (size.accumulation * processes())} tokens" if tokens else f"{size.rows} rows"
    return (
        f"{job.where}: training ran out of memory with {held} a pass, in rows of up to {job.max_length} tokens: "
        f"{there} ({str(error).splitlines()[0]}). {job.fit or UNPREDICTED}"
    )


def leave_casts_to_autocast(trainer: ResumableTrainer) -> None:
    """Keep peft from turning an adapter's input into float32 where the trainer computes in mixed precision.

    peft knows a GPU's autocast only. On a CPU it would widen what autocast narrows again: the same numbers, with two
    copies of each layer's input.
    """
    model: Any = trainer.model
    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and trainer.accelerator.mixed_precision != "no":
            module.cast_input_dtype_enabled = False  # pyright: ignore[reportAttributeAccessIssue]
