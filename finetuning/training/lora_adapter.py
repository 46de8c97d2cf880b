"""Training with trl and peft: a quantized base model and a tokenized data set in, a LoRA adapter out."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from datasets import Dataset
from peft.tuners.tuners_utils import BaseTunerLayer
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoTokenizer
from transformers.integrations import TensorBoardCallback, get_available_reporting_integrations
from trl import SFTConfig, pack_dataset

from finetuning.batch_size import BatchSize, TooLarge
from finetuning.training.checkpoints import complete, require_space, step_of
from finetuning.lora.embeddings import adapt_head, give_rows, linear_layers, lora_config, trains_head
from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.training.interruption import Interrupted, Interruption, Watchdog
from finetuning.base_model.loftq import start_from_factors
from finetuning.training.peak_memory import peak_memory
from finetuning.training.preferences import PreferenceTrainer
from finetuning.progress import Progress
from finetuning.base_model.quantized_base_model import keep_trainable_on_cpu, load_model
from finetuning.recipe.recipe import LoraSpec, Method, Strategy, TrainingSpec
from finetuning.recipe.mistakes import nearest
from finetuning.training.sharding import shard
from finetuning.training.trainer import AdapterTrainer, Saved, nothing
from finetuning.training.callback import BEST, TrainingProgress

MIB = 2**20
# What an evaluation of preferences gives beside a loss.
REWARDS = ("reward_accuracy", "reward_margin")
UNPREDICTED = (
    "Set training.on_oom to halve-batch, lower training.per_device_train_batch_size (and raise "
    "gradient_accumulation_steps by as much), lower chat.max_length, set training.activation_checkpointing to true, or "
    "quantize the base model."
)
# Keys of the recipe's section that are this project's own; the others are transformers'.
OURS = {
    "method",
    "beta",
    "loss_type",
    "train_sampling_strategy",
    "loraplus_lr_ratio",
    "tokens_per_step",
    "eval_steps",
    "early_stopping_patience",
    "report_to",
    "on_oom",
    "save_steps",
    "save_minutes",
    "save_total_limit",
    "step_timeout_minutes",
}


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
    strategy: Strategy = "ddp"
    """What each of several processes holds of the base model."""
    batch_size: BatchSize | None = None
    """Where memory ran out before: how a step's rows are cut, instead of as the recipe says."""
    fit: str | None = None
    """What to say and to change when memory runs out, where it was predicted."""
    checkpoints: Path = Field(default_factory=lambda job: job["output"].with_name(f"{job['output'].name}.checkpoints"))
    """Checkpoints of this very job, which outlive a failure."""


class UnplacedConfig(SFTConfig):
    """The settings of a trainer that leaves the model where it is."""

    @property
    def place_model_on_device(self) -> bool:
        """False."""
        return False


class Curves(TensorBoardCallback):
    """Writes TensorBoard's file into `folder`, until it is told to end.

    The evaluation after the training belongs to it too. transformers would begin another file for that, by the same
    name where the training took less than a second.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.logging_dir = str(folder)

    def on_train_end(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        """Nothing, which is not what it does in transformers."""

    def flush(self) -> None:
        """Nothing; the points so far are in the file."""
        if self.tb_writer:
            self.tb_writer.flush()

    def finish(self) -> None:
        """Nothing; all points are in the file."""
        if self.tb_writer:
            self.tb_writer.close()


def train(
    job: TrainingJob,
    progress: Progress,
    hang: Path | None = None,
    interruption: Interruption | None = None,
    saved: Saved = nothing,
) -> dict[str, Any]:
    """The summary of the adapter that `job.output` then holds, with its tokenizer.

    Goes on from the newest checkpoint in `job.checkpoints`, which is of this very job or there is none. Losses are
    means over supervised tokens, speed is in tokens per second without padding, memory in MiB.

    Args:
        hang: the file that tells, after the process ended itself because nothing went on, where it was.
        interruption: by which whoever runs this may ask for the end, beside signals.
        saved: is called in every process with each checkpoint, once it is complete.

    Raises:
        FinetuningError: the loss is no longer a number, memory ran out, or the disk is full.
        TooLarge: memory ran out, and what was done goes on with smaller passes, in a new process.
        Interrupted: a signal asked for the end; all that was done is in a checkpoint.
    """
    spec = job.training
    size = job.batch_size or BatchSize(spec.per_device_train_batch_size, spec.gradient_accumulation_steps)
    try:
        watchdog = Watchdog(hang or job.checkpoints.with_name("hang.txt"), spec.step_timeout_minutes * 60)
        return _train(job, progress, size, interruption or Interruption(), watchdog, saved)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if spec.on_oom == "error" or size.rows == 1:
            raise InfrastructureError(_out_of_memory(job, size, error)) from error
        raise TooLarge(size.halved()) from error


def _train(
    job: TrainingJob,
    progress: Progress,
    size: BatchSize,
    interruption: Interruption,
    watchdog: Watchdog,
    saved: Saved,
) -> dict[str, Any]:
    progress.update("loading the base model")
    model = load_model(job.base_model, **model_kwargs(job))
    keep_trainable_on_cpu(model)
    require_target_modules(model, job)
    trust = job.model_kwargs["trust_remote_code"]
    tokenizer = AutoTokenizer.from_pretrained(job.chat_dataset / "tokenizer", trust_remote_code=trust)
    new_tokens = give_rows(model, tokenizer, job.base_model, job.where, trust)
    curves = Curves(job.checkpoints / "tensorboard")  # which outlives a failure, as checkpoints do
    callback = TrainingProgress(progress, job.where, job.training, interruption, watchdog)
    trainer = trainer_class(job.training)(
        model=model,
        args=sft_config(job, size),
        train_dataset=train_rows(job),
        eval_dataset=tokens_of(job.chat_dataset / "eval.parquet", job.training.method),
        processing_class=tokenizer,
        peft_config=lora_config(job.lora, model, new_tokens, job.where),
        callbacks=[callback, *([curves] if "tensorboard" in job.training.report_to else [])],
        rows_per_step=job.training.per_device_train_batch_size * job.training.gradient_accumulation_steps * processes(),
        order=job.training.train_sampling_strategy,
        own_head=on_cpu(job) or trains_head(model, job.lora, new_tokens),
        keep=job.training.save_total_limit,
        saved=lambda checkpoint: (curves.flush(), saved(checkpoint)),
        loraplus_lr_ratio=job.training.loraplus_lr_ratio,
        tokens_per_step=job.training.tokens_per_step,
    )
    callback.trainer = trainer
    adapted: Any = trainer.model
    adapt_head(adapted, new_tokens)
    keep_master_weights(adapted)
    leave_casts_to_autocast(trainer)
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
    _run(job, trainer, callback)
    progress.update("measuring the loss on the eval split")
    metrics = trainer.evaluate()
    watchdog.rest()
    if trainer.is_world_process_zero():
        # peft would add all embeddings, which are as they were but for rows that it saves by themselves.
        adapted.save_pretrained(
            job.output, save_embedding_layers=False, path_initial_model_for_weight_conversion=start and str(start)
        )
        if (events := job.checkpoints / "tensorboard").exists():
            curves.finish()
            shutil.copytree(events, job.output / "tensorboard", dirs_exist_ok=True)
        tokenizer.save_pretrained(job.output)
    return _summary(trainer, metrics, size) | sharding


def trainer_class(spec: TrainingSpec) -> Callable[..., AdapterTrainer]:
    """What makes the trainer of the recipe's method."""
    if spec.method == "sft":
        return AdapterTrainer
    settings: dict[str, Any] = spec.model_dump(include={"beta", "loss_type"})
    return partial(PreferenceTrainer, **settings)


def _run(job: TrainingJob, trainer: AdapterTrainer, callback: TrainingProgress) -> None:
    """Nothing; all steps were made, of which the newest checkpoint has the first ones."""
    # Of several processes, transformers makes the folder in the first one only.
    job.checkpoints.mkdir(parents=True, exist_ok=True)
    trained = sum(p.numel() * 4 for p in trainer.trainable().values())
    # What is trained and the optimizer's two numbers for each, in float32, and one checkpoint more while it is written.
    require_space(job.checkpoints, 3 * trained * (trainer.keep + 1) + trained)
    found = complete(job.checkpoints)
    callback.checkpoint = found[-1] if found else None
    if callback.checkpoint:
        callback.progress.log(f"going on from the checkpoint of step {step_of(callback.checkpoint)}")
    with callback.interruption.at_signals():
        try:
            trainer.train(resume_from_checkpoint=callback.checkpoint and str(callback.checkpoint))
        except Interrupted:
            callback.save_interrupted()
            raise
        finally:
            callback.watchdog.rest()
    # The first process has written it, which may have folders of its own, or be the last to come here.
    if trainer.is_world_process_zero() and (job.checkpoints / BEST).exists():
        trainer.set_trainable(job.checkpoints / BEST)
    trainer.hand_trainable_on()


def _summary(trainer: AdapterTrainer, metrics: dict[str, float], size: BatchSize) -> dict[str, Any]:
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
        "device": str(model.device),
        "processes": processes(),
        "per_device_train_batch_size": size.rows,
        "gradient_accumulation_steps": size.accumulation,
        "activation_checkpointing": trainer.args.activation_checkpointing,
        "attention": model.config._attn_implementation,
        "curve": [{"step": p["step"], "loss": p["loss"], "epoch": round(p["epoch"], 4)} for p in points],
        "eval_curve": [
            {"step": entry["step"], "loss": entry["eval_loss"]} for entry in state.log_history if "eval_loss" in entry
        ],
    }


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on a GPU or on the machine."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


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


def model_kwargs(job: TrainingJob) -> dict[str, Any]:
    """The job's, with the GPU of this process where several train together."""
    # What is going to be sharded need not have room on one GPU before.
    device = "cpu" if on_cpu(job) or is_sharded(job) else int(os.environ.get("LOCAL_RANK", 0))
    return job.model_kwargs | {"device_map": {"": device}}


def on_cpu(job: TrainingJob) -> bool:
    """Whether training is to take place on the CPU."""
    return job.model_kwargs["device_map"][""] == "cpu"


def is_sharded(job: TrainingJob) -> bool:
    """Whether each of several processes holds a part of the base model only."""
    return job.strategy == "fsdp" and processes() > 1


def processes() -> int:
    """How many processes train together, as the launcher of this one said."""
    return int(os.environ.get("WORLD_SIZE", "1"))


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


def leave_casts_to_autocast(trainer: AdapterTrainer) -> None:
    """Nothing; where the trainer computes in a format of its own, peft does not turn what an adapter gets into float32.

    peft knows a GPU's autocast only. On a CPU it would widen what autocast narrows again: the same numbers, with two
    copies of each layer's input.
    """
    model: Any = trainer.model
    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and trainer.accelerator.mixed_precision != "no":
            module.cast_input_dtype_enabled = False  # pyright: ignore[reportAttributeAccessIssue]


def sft_config(job: TrainingJob, size: BatchSize) -> SFTConfig:
    """The recipe's training settings, and those that are not a matter of taste."""
    dtype = job.model_kwargs["dtype"]
    settings = job.training.model_dump(exclude=OURS)
    settings |= {"per_device_train_batch_size": size.rows, "gradient_accumulation_steps": size.accumulation}
    # Where nobody decided, what needs the least memory.
    settings |= {"activation_checkpointing": settings["activation_checkpointing"] is not False}
    # A GPU without bfloat16 computes in float16, whatever the recipe wishes.
    settings |= {"bf16": settings["bf16"] and dtype == "bfloat16", "fp16": dtype == "float16"}
    return (UnplacedConfig if is_sharded(job) else SFTConfig)(
        **settings,
        output_dir=str(job.checkpoints),
        # Rows come tokenized, with labels, and no longer than chat.max_length.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        save_strategy="no",
        report_to=[name for name in trackers(job) if name != "tensorboard"],  # which `Curves` writes
        disable_tqdm=True,
        # The filter replaces a loss that is not a number by the mean of those before it.
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        use_cpu=on_cpu(job),
        dataloader_pin_memory=not on_cpu(job),
    )


def trackers(job: TrainingJob) -> list[str]:
    """The names of the recipe's trackers.

    Raises:
        FinetuningError: one of them is not installed.
    """
    there = get_available_reporting_integrations()
    for name in job.training.report_to:
        if name not in there:
            raise FinetuningError(
                f"{job.where}: training.report_to: {name} is not installed here; there are {', '.join(there)}. Install "
                "its package, or take it off the list."
            )
    return list(job.training.report_to)


def train_rows(job: TrainingJob) -> Dataset:
    """The rows of the train split or, where the recipe packs, bins of at most `max_length` tokens of them.

    trl packs only while it tokenizes, and these rows are tokens already.
    """
    rows = tokens_of(job.chat_dataset / "train.parquet", job.training.method)
    return pack_dataset(rows, job.max_length, "bfd") if job.training.packing else rows


def tokens_of(path: Path, method: Method) -> Dataset:
    """`input_ids` and `labels` of one split, and for `dpo` those of the rejected answers."""
    rejected = ["rejected_input_ids", "rejected_labels"] if method == "dpo" else []
    return Dataset.from_parquet(str(path)).select_columns(["input_ids", "labels", *rejected])
