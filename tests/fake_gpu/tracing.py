"""One training by the project's own trainer, on shapes alone. For a process that has a fake GPU."""

import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import TrainerCallback
from transformers.utils import logging
from trl import pack_dataset

from finetuning.base_model import varlen
from finetuning.base_model.loading import layers_in_4_bits, write_out
from finetuning.fused.layers import fuse_others
from finetuning.fused.products import fuse_products
from finetuning.lora.config import keep_master_weights, trains_head
from finetuning.memory import shapes
from finetuning.memory.savings import with_settings
from finetuning.progress import Progress
from finetuning.tokens import NOT_SUPERVISED
from finetuning.training import settings
from finetuning.training.job import BatchSize, TrainingJob, TrainingTask
from finetuning.training.lora_adapter import leave_casts_to_autocast, row_trainer
from finetuning.training.settings import is_sharded, leaves_padding_out, sft_config
from finetuning.training.sharding import shard
from tests.conftest import train_tiny_tokenizer
from tests.fake_gpu.counting import Counter
from tests.fake_gpu.kernels import Kernels, install_kernels
from tests.fake_gpu.processes import first_of, install_processes, without_shapes
from tests.fake_gpu.traces import Trace, Training

STEPS = 2
LEARNED = 5  # any token

install_kernels()
install_processes()
logging.set_verbosity_error()
# The trainer is to find the kernels that it names, for which the prediction of memory has a stand-in.
shapes.MASKED = (*shapes.MASKED, "flash_attention_2", "varlen")
varlen.register()
# Which rows see each other cannot be tried on shapes.
settings.keeps_rows_apart = lambda model: True
# All is on the device already, and what is to be moved there has no data.
torch.nn.Module._apply = lambda self, *_, **__: self
FakeTensorMode.avoid_device_init = property(lambda self: True)


def traced(training: Training) -> Trace:
    """What two steps, and the evaluation after them, need of the GPU."""
    recipe = training.recipe
    model = shapes.adapted_model(recipe, training.config, recipe.base_model.attention[0], [])
    if training.fuses:
        fuse_others(model, on_cpu=False, compiles=True)
    counter = Counter(max(training.lengths), padded=len({*training.lengths}) > 1)
    phases = Phases(counter)
    with tempfile.TemporaryDirectory() as folder, first_of(training.processes), counted(counter, model):
        trainer = phases.trainer = trainer_of(training, model, Path(folder), phases)
        counter.hold([*shapes.tensors_of(model)])
        gc.collect()
        weights = counter.bytes
        trainer.train()
        eval_peak = evaluated(trainer, counter) if training.evaluates else 0
    products, work, waits, attention, collectives, exchanged = (
        {phase: dict(counts) for phase, counts in tally.items()}
        for tally in (
            counter.products,
            counter.work,
            counter.waits,
            counter.attention,
            counter.collectives,
            counter.exchanged,
        )
    )
    return Trace(
        weights,
        phases.peaks,
        eval_peak,
        dict(counter.kernels),
        products,
        multiplications=dict(counter.multiplications),
        work=work,
        waits=waits,
        attention=attention,
        scales_loss=trainer.accelerator.scaler is not None,
        collectives=collectives,
        exchanged=exchanged,
    )


@contextmanager
def counted(counter: Counter, model: torch.nn.Module) -> Iterator[None]:
    """Count what happens in the block, for which the model's shapes are put on the GPU."""
    Kernels.counter = counter
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            with torch.device("cuda"):
                shapes.leave_meta(model)
            # Backward on this thread too: on no other does FakeTensorMode keep index tensors off the device.
            with counter, torch.autograd.set_multithreading_enabled(False):
                yield
    finally:
        Kernels.counter = None


def evaluated(trainer: Any, counter: Counter) -> int:
    """The most bytes that an evaluation held."""
    counter.phase, counter.peak = "evaluation", counter.bytes
    trainer.evaluate()
    return counter.peak


class Phases(TrainerCallback):
    """Tells the counter which step it is, and remembers the most that each has held."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.peaks: list[int] = []
        self.trainer: Any = None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.trainer.keep_activations()
        self.begin()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.counter.phase = f"optimizer {len(self.peaks) + 1}"

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.peaks.append(self.counter.peak)
        self.begin()

    def begin(self) -> None:
        """The next step."""
        self.counter.phase, self.counter.peak = f"step {len(self.peaks) + 1}", self.counter.bytes


def trainer_of(training: Training, model: Any, folder: Path, phases: Phases) -> Any:
    """The trainer as `finetuning.training.lora_adapter` makes it, on rows of such lengths."""
    recipe = with_settings(training.recipe, {"training.train_sampling_strategy": "sequential"})
    kernel, spec = recipe.base_model.attention[0], recipe.training
    job = TrainingJob(
        **TrainingTask.of(recipe).model_dump(),
        chat_dataset=folder,
        base_model=folder,
        model_kwargs={"dtype": recipe.base_model.dtype, "attn_implementation": kernel, "device_map": {"": 0}},
        output=folder / "adapter",
    )
    size = BatchSize(spec.per_device_train_batch_size, spec.gradient_accumulation_steps)
    args = sft_config(job, size, leaves_padding_out(job, size, model))
    args.max_steps, args.report_to, args.dataloader_pin_memory = STEPS, [], False
    args.ddp_find_unused_parameters = False  # which are found in numbers: one collective more, of four bytes for each
    rows = rows_of(training.lengths, training.supervised, spec.method)
    trainer: Any = row_trainer(
        job,
        size,
        model=model,
        args=args,
        train_dataset=pack_dataset(rows, recipe.chat.max_length, "bfd") if spec.packing else rows,
        eval_dataset=rows_of([max(training.lengths)], training.supervised, spec.method),
        processing_class=train_tiny_tokenizer(),
        callbacks=[phases],
        own_head=trains_head(model, recipe.lora, []),
        loraplus_lr_ratio=spec.loraplus_lr_ratio,
        kept_layers=training.kept_layers,
        says=Progress(lambda line: None, ""),
    )
    keep_master_weights(trainer.model)
    leave_casts_to_autocast(trainer)
    if training.fuses:
        fuse_products(trainer.model, on_cpu=False)
    if training.writes_weights_out:
        write_out(trainer.model, layers_in_4_bits(trainer.model))
    trainer._save_checkpoint = lambda *_, **__: None
    trainer.data_collator = without_shapes(trainer.data_collator)
    if is_sharded(job):
        shard(trainer, job.where)
    return trainer


def rows_of(lengths: list[int], supervised: int | None, method: str) -> Dataset:
    """Rows of such lengths, as `chat_dataset` has them for that method."""
    ids = [[LEARNED] * length for length in lengths]
    labels = [[NOT_SUPERVISED] * (n - (supervised or n)) + [LEARNED] * (supervised or n) for n in lengths]
    columns: dict[str, Any] = {"input_ids": ids, "labels": labels}
    if method == "dpo":
        columns |= {"rejected_input_ids": ids, "rejected_labels": labels}
    return Dataset.from_dict(
        columns if method != "kto" else columns | {"desirable": [i % 2 == 0 for i in range(len(ids))]}
    )
