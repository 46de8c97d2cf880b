"""What an exam needs of the memory: a batch of prompts, and keys and values of each token until the last answer ends.

recipe, config = load("smollm2-135m"), AutoConfig.from_pretrained(model_folder)
predict_exam(recipe, config, "cpu", ExamRows(prompt=60, whole=90, supervised=40)).text()
-> "1,250 MiB at its peak (libraries 580, weights 541, cache 80, …)"
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pyarrow.parquet as pq
import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, DynamicCache, PreTrainedConfig

from finetuning.base_model.loading import SPARE_MEMORY, compute_dtype
from finetuning.errors import FinetuningError
from finetuning.memory.prediction import CUDA_CONTEXT, LIBRARIES, MIB, Device, at_its_peak, head_bytes, is_mixed
from finetuning.memory.savings import with_settings
from finetuning.memory.shapes import MASKED, adapted_model, first_layers, leave_meta, passes, size_of, tensors_of
from finetuning.recipe.recipe import Recipe
from finetuning.tokens import NOT_SUPERVISED

BATCH_SIZE = "evaluation.batch_size"
# What malloc leaves free between tensors when the prompts are read, as a share of those that passed: of SmolLM2-135M in
# float32 0.013 with 16 prompts of 60 tokens, 0.008 with 8 of 400, 0.010 with 2 of 900.
FRAGMENTATION = 0.01


class ExamRows(NamedTuple):
    """The most tokens that any row of an exam has."""

    prompt: int
    """Before its last answer."""
    whole: int
    supervised: int


@dataclass(frozen=True)
class ExamPrediction:
    """The most that an exam holds at once, in bytes, by what holds it."""

    weights: int
    """Base model and adapter, as they answer: on a CPU 4-bit weights are written out where memory allows."""
    cache: int
    """Keys and values of a batch's tokens when the longest answer of all ends."""
    activations: int
    """What reading the prompts, computing the next token, or measuring the loss of a row, adds to that."""
    logits: int
    fragmentation: int
    """What the allocator leaves unused between tensors."""
    libraries: int
    """The interpreter with its libraries; on a GPU, the CUDA context."""

    @property
    def total(self) -> int:
        """All of it."""
        return sum(asdict(self).values())

    def text(self) -> str:
        """One line for a person: MiB in all, and of each part, largest first."""
        return at_its_peak(asdict(self))


def require_exam_fits(log: Any, recipe: Recipe, chat: Path, base: Path, device: Device) -> None:
    """Predict what the exam will need; warn where that is not free now, and refuse what this machine does not have.

    Args:
        recipe: with the number format and the kernel of the machine.

    Raises:
        FinetuningError: whatever is trained, its exam would run out of memory.
    """
    try:
        config, rows = AutoConfig.from_pretrained(base), rows_of_exam(chat, recipe.evaluation.rows)
        in_all, free = memory_of(device)

        def needed(batch_size: int) -> ExamPrediction:
            return predict_exam(with_settings(recipe, {BATCH_SIZE: batch_size}), config, device, rows, free)

        prediction = needed(recipe.evaluation.batch_size)
    except Exception as error:  # whatever it is: no training has to fail for want of a prediction
        log.warning(f"memory of the exam: not predicted ({type(error).__name__}: {' '.join(str(error).split())[:300]})")
        return
    if prediction.total <= free:
        log.info(f"memory of the exam: {prediction.text()}; {free // MIB:,} MiB are free")
        return
    what = f"answering {recipe.evaluation.batch_size} prompts together is predicted to take {prediction.text()}"
    ways = way_out(needed, recipe.evaluation.batch_size, free)
    if prediction.total > in_all and ways:
        raise FinetuningError(
            f"{recipe.file}: {BATCH_SIZE}: {what}, and there are {in_all // MIB:,} MiB in all, so that the exam after "
            f"the training could only fail. {ways}"
        )
    log.warning(f"memory of the exam: {what}, and {free // MIB:,} MiB are free. {ways}".rstrip())


def way_out(needed: Callable[[int], ExamPrediction], batch_size: int, free: int) -> str:
    """The largest of ever smaller batches that fits, as advice; empty where none does."""
    while batch_size > 1:
        batch_size //= 2
        if (size := needed(batch_size).total) <= free:
            return f"{size // MIB:,} MiB would do with {BATCH_SIZE}: {batch_size}."
    return ""


def memory_of(device: Device) -> tuple[int, int]:
    """Bytes of a GPU, or of this machine: in all, and free."""
    if device == "cuda":
        free, in_all = torch.cuda.mem_get_info()
        return in_all, free
    memory = psutil.virtual_memory()
    return memory.total, memory.available


def rows_of_exam(chat_dataset: Path, rows: int) -> ExamRows:
    """What the first `rows` of the eval split have at most."""
    labels = pq.read_table(chat_dataset / "eval.parquet", columns=["labels"])["labels"].slice(0, rows)
    prompt = whole = supervised = 0
    for row in labels:
        learned = np.asarray(row.values) != NOT_SUPERVISED
        last = np.flatnonzero(learned)[-1] if learned.any() else 0
        before = np.flatnonzero(~learned[:last])
        asked = int(before[-1]) + 1 if before.size else 0
        # Of a text all is learned but a token before it, and the first half is what is asked.
        prompt = max(prompt, asked if asked > 1 else learned.size // 2)
        whole, supervised = max(whole, learned.size), max(supervised, int(learned.sum()))
    return ExamRows(prompt, whole, supervised)


def predict_exam(
    recipe: Recipe, config: PreTrainedConfig, device: Device, rows: ExamRows, free: float = inf
) -> ExamPrediction:
    """Predict what answering the exam of that recipe needs, with a model of that configuration.

    Args:
        free: bytes, of which weights that are written out take a part at most.
    """
    # How an adapter trains embeddings or starts does not matter beside the model; DoRA needs values to start from.
    plain, kernel = with_settings(recipe, {"lora.use_dora": False}), recipe.base_model.attention[0]
    spec, model = recipe.evaluation, adapted_model(plain, config, kernel, [])
    with FakeTensorMode(allow_non_fake_inputs=True):
        leave_meta(model)
        if is_mixed(recipe):
            compute_as_trained(model)
        weights = size_of([*tensors_of(model)])
        if device == "cpu":
            weights += written_out(model, SPARE_MEMORY * free)
        reading = passes(model, spec.batch_size, rows.prompt, kernel in MASKED, gradients=False)
        measuring = passes(model, 1, rows.whole, kernel in MASKED, gradients=False)
        read, answered = cached(model, spec.batch_size, (rows.prompt, rows.prompt + spec.max_new_tokens))
        loss = head_bytes(model, recipe, rows.supervised, own=True, gradients=False)
        with experts_as_answering(model, device):
            answering = passes(model, spec.batch_size, 1, kernel in MASKED, gradients=False)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    # The last position's logits, as the head gives them and in float32.
    logits = spec.batch_size * vocabulary * (4 + torch.finfo(getattr(torch, recipe.base_model.dtype)).bits // 8)
    peaks = [(read, reading.peak, logits), (answered, answering.peak, logits), (0, measuring.peak, loss)]
    cache, activations, logits = max(peaks, key=sum)
    on_cpu = device == "cpu"
    fragmentation = int(FRAGMENTATION * reading.passed) if on_cpu else 0
    return ExamPrediction(weights, cache, activations, logits, fragmentation, LIBRARIES if on_cpu else CUDA_CONTEXT)


def compute_as_trained(model: PeftModel) -> None:
    """Give the adapter the number format in which it answers (`finetuning.lora.loading`)."""
    base: Any = model.get_base_model()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(base.dtype)


@contextmanager
def experts_as_answering(model: PeftModel, device: Device) -> Iterator[None]:
    """Compute experts within the block as transformers does for one token at a time.

    On a GPU each token gets a copy of the weights of its experts.
    """
    base: Any = model.get_base_model()
    before = base.get_experts_implementation()
    copied = {part: "batched_mm" if kind == "grouped_mm" else kind for part, kind in before.items()}
    if device == "cpu" or copied == before:
        yield
        return
    base.set_experts_implementation(copied)
    try:
        yield
    finally:
        base.set_experts_implementation(before)


def written_out(model: PeftModel, spare: float) -> int:
    """Bytes that 4-bit weights take beside themselves where they are written out, which they are if `spare` allows.

    What is written out is freed by Python's collector of cycles alone, whenever that comes.
    """
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    size = sum(layer.in_features * layer.out_features * compute_dtype(layer).itemsize for layer in layers)
    return size if size <= spare else 0


def cached(model: Any, rows: int, lengths: tuple[int, ...]) -> list[int]:
    """Bytes of the keys and values of so many rows, for each length; of a layer with a window those within it."""
    windows = [
        getattr(layer, "sliding_window", None) or inf for layer in DynamicCache(config=text_config(model)).layers
    ]
    with first_layers(model, 1), torch.no_grad():
        ids = torch.zeros(rows, 1, dtype=torch.long)
        cache = DynamicCache()
        model.eval()(input_ids=ids, past_key_values=cache, use_cache=True)
        kept = [[getattr(layer, name, None) for name in ("keys", "values")] for layer in cache.layers]
        a_token = size_of(kept) / len(kept)
    return [int(sum(a_token * min(length, window) for window in windows)) for length in lengths]


def text_config(model: Any) -> PreTrainedConfig:
    """The configuration of the part of a model that writes text."""
    return model.config.get_text_config(decoder=True)
