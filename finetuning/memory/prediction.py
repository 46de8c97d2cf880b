"""What a training needs at most, before it starts, by what it is needed for.

recipe, config = load("smollm2-135m"), AutoConfig.from_pretrained(model_folder)
predict(recipe, config).text() -> "2,855 MiB at its peak (evaluation 888, libraries 580, fragmentation 511, …)"
"""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from peft import PeftModel
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedConfig

from finetuning.fused.layers import fuse_others
from finetuning.fused.products import fuse_products
from finetuning.lora.config import trains_head
from finetuning.memory.gpu_layers import as_on_gpu
from finetuning.memory.savings import with_settings
from finetuning.memory.shapes import (
    FLASH,
    Passes,
    adapted_model,
    leave_meta,
    mixed_precision,
    passes,
    size_of,
    tensors_of,
)
from finetuning.recipe.recipe import Recipe
from finetuning.training.attention import attention_backend
from finetuning.training.layers import layers_of
from finetuning.training.supervised_loss import CHUNK_BYTES

MIB = 2**20
Device = Literal["cpu", "cuda"]

# The resident size of a process that trained a model of a few kilobytes: Python, torch and the Hugging Face libraries.
# tests/finetuning/memory/test_prediction.py measures it again.
LIBRARIES = 580 * MIB
# A CUDA context with torch's kernels. An allowance: nothing of this was measured on a GPU.
CUDA_CONTEXT = 512 * MIB
# What malloc leaves free between tensors when a forward pass ends, as a share of those that passed: of SmolLM2-135M and
# rows of 128 tokens 0.13 (173 of 1,333 MiB) at 4 rows, 0.13 (690 of 5,329) at 16, and 0.11 (399 of 3,477) at 8 with
# checkpointing (fordblks of mallinfo2, glibc 2.36). Before glibc 2.38 posix_memalign, from which torch has its memory
# on a CPU, cannot put a tensor where one of its size was (https://sourceware.org/bugzilla/show_bug.cgi?id=14581), so
# that holes stay between those that are kept. On a GPU torch keeps freed blocks by size itself.
FRAGMENTATION = 0.12
# The same while the eval loss is measured, where no activations are kept and chance decides: six trainings of
# SmolLM2-135M that measured it with 32 rows of 72 tokens left from 10 to 355 MiB of 7,895 that passed, 198 in the mean.
EVAL_FRAGMENTATION = 0.025
# Layers of a sharded model that are there at once: the one in use, the next one, and what that comes in. An allowance:
# nothing of this was measured on a GPU.
GATHERED = 3
# Tokens and vocabulary of one tile of trl's head (trl.kernels.chunked_logprob, trl.trainer.utils).
TRL_TILE = (4096, 32768)
# bitsandbytes' optimizers: the least numbers that are kept in 8 bits, that are paged, and how many share a scale.
IN_8_BITS_FROM, PAGED_FROM, SCALED_TOGETHER = 4096, 100_000, 256


@dataclass(frozen=True)
class Prediction:
    """The most that a training holds at once, in bytes, by what holds it."""

    weights: int
    """The frozen base model, or what one of several processes holds of it."""
    adapters: int
    """What is trained, in float32."""
    gradients: int
    exchange: int
    """Their copy that several processes, each with the whole base model, add up over all of them."""
    optimizer: int
    """What the optimizer keeps beside each trained number."""
    activations: int
    """What a forward and a backward pass hold at their peak beside gradients, logits left out."""
    head: int
    """What logits and their gradient add to that peak."""
    evaluation: int
    """What measuring the eval loss adds to that peak."""
    fragmentation: int
    """What the allocator leaves unused between tensors."""
    libraries: int
    """The interpreter with its libraries; on a GPU, the CUDA context."""
    paged: int
    """What the optimizer may move from the GPU to the machine's memory; no part of the total."""

    @property
    def total(self) -> int:
        """All of it but what is paged."""
        return sum(asdict(self).values()) - self.paged

    def towards(self, other: "Prediction", share: float) -> "Prediction":
        """What is needed between this and another one, each part at that share of the way."""
        mine, others = asdict(self), asdict(other)
        return Prediction(**{name: round(mine[name] + share * (others[name] - mine[name])) for name in mine})

    def text(self) -> str:
        """One line for a person: MiB in all, and of each part, largest first."""
        parts = {name: size for name, size in asdict(self).items() if name != "paged"}
        paged = f"; {self.paged // MIB:,} MiB more may go to the machine's memory" if self.paged else ""
        return f"{at_its_peak(parts)}{paged}"


def at_its_peak(parts: dict[str, int]) -> str:
    """Write bytes by what holds them for a person: MiB in all, and of each part, largest first."""
    large = {name: size // MIB for name, size in parts.items() if size >= MIB}
    shown = ", ".join(f"{name} {large[name]:,}" for name in sorted(large, key=lambda name: -large[name]))
    return f"{sum(parts.values()) // MIB:,} MiB at its peak ({shown})"


def predict(
    recipe: Recipe,
    config: PreTrainedConfig,
    device: Device = "cpu",
    longest: int | None = None,
    supervised: int | None = None,
    new_tokens: Iterable[int] = (),
) -> Prediction:
    """Predict what training that recipe, with the first of its kernels, on a model of that configuration needs.

    Args:
        longest: tokens of the longest row; `chat.max_length` unless said otherwise.
        supervised: how many of these are supervised; all of them unless said otherwise.
        new_tokens: ids that the chat template adds to the base model's.

    Raises:
        FinetuningError: the recipe targets the head.
    """
    length, kernel = longest or recipe.chat.max_length, recipe.base_model.attention[0]
    tokens = list(new_tokens)
    if recipe.lora.use_dora and recipe.base_model.quantization:
        return quantized_dora(recipe, config, device, length, supervised, tokens)
    # On a GPU, sdpa runs a flash kernel wherever it gets no mask.
    model = adapted_model(recipe, config, FLASH if (device, kernel) == ("cuda", "sdpa") else kernel, tokens)
    fuse_others(model, on_cpu=device == "cpu", compiles=False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        leave_meta(model)
        lasting = lasting_parts(model, recipe, device)
        own_head = device == "cpu" or trains_head(model, recipe.lora, tokens)
        learned = min(supervised or length, length - 1)
        used = both_passes(model, recipe, device, length, measured_length(recipe, length, learned), kernel)
    heads = both_heads(model, recipe, length, learned, own_head)
    if device == "cpu":
        return Prediction(**lasting, **on_cpu(*used, *heads))
    passing = on_gpu(*used, heads, lasting["gradients"], accumulates(recipe, device))
    return Prediction(**lasting, **passing)


def quantized_dora(recipe: Recipe, *given: Any) -> Prediction:
    """What DoRA needs on quantized weights: what it needs on others, but for the weights.

    peft starts it from the values of the weights, and quantized ones without data have none to show it.
    """
    dense, plain = {"base_model.quantization": None}, {"lora.use_dora": False}
    weights = predict(with_settings(recipe, plain), *given).weights
    return replace(predict(with_settings(recipe, dense), *given), weights=weights)


def lasting_parts(model: PeftModel, recipe: Recipe, device: Device) -> dict[str, int]:
    """The parts of a prediction that stay from step to step.

    The model has gradients from then on, where a pass finds those of another one.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adapters, model_bytes = size_of(trained), size_of([*tensors_of(model)])
    state, paged = optimizer_state(recipe.training.optim, [parameter.shape for parameter in trained], device)
    for parameter in trained if accumulates(recipe, device) else ():
        parameter.grad = torch.zeros_like(parameter)
    return {
        "weights": model_bytes - adapters - elsewhere(model, recipe, device),
        "adapters": adapters,
        "gradients": adapters,
        "exchange": adapters if device == "cuda" and workers_of(recipe) > 1 and not is_divided(recipe) else 0,
        "optimizer": state,
        "paged": paged,
        "libraries": LIBRARIES if device == "cpu" else CUDA_CONTEXT,
    }


def accumulates(recipe: Recipe, device: Device) -> bool:
    """Whether a pass begins with gradients of one before it; on a CPU as if it always did.

    There, what the first pass of a step has freed is not the process's to give to gradients.
    """
    return device == "cpu" or recipe.training.gradient_accumulation_steps > 1


def elsewhere(model: PeftModel, recipe: Recipe, device: Device) -> int:
    """Bytes of the base model that other processes hold, less what is gathered of them at a time.

    On a CPU, where the whole model is loaded, as if there were none.
    """
    workers = workers_of(recipe)
    if device == "cpu" or not is_divided(recipe) or workers == 1:
        return 0
    layers = [
        size_of([parameter for parameter in layer.parameters() if not parameter.requires_grad])
        for layer in layers_of(model.get_base_model())
    ]
    return max(0, sum(layers) * (workers - 1) // workers - GATHERED * max(layers, default=0))


def workers_of(recipe: Recipe) -> int:
    """How many processes train together."""
    return recipe.resources.workers or 1


def is_divided(recipe: Recipe) -> bool:
    """Whether several processes would each hold a part of the base model."""
    return recipe.resources.strategy == "fsdp"


def on_cpu(step: Passes, evaluation: Passes, head: int, eval_head: int) -> dict[str, int]:
    """The parts of a prediction that come and go, where memory is malloc's.

    It gives large blocks, as logits are, back at once. Smaller ones, as activations are, stay with the process: later
    ones fit into them, logits do not, so that their peaks add up whenever they come.
    """
    return {
        "activations": step.peak,
        "head": head,
        "evaluation": max(0, evaluation.peak - step.peak) + max(0, eval_head - head),
        "fragmentation": int(FRAGMENTATION * step.passed + EVAL_FRAGMENTATION * evaluation.passed),
    }


def on_gpu(
    step: Passes, evaluation: Passes, heads: tuple[int, int], gradients: int, accumulates: bool
) -> dict[str, int]:
    """The parts of a prediction that come and go, where torch gives what is free to whatever comes next.

    Args:
        accumulates: whether a pass begins with `gradients`; else they are made as activations are freed.
    """
    head, eval_head = heads
    before = gradients if accumulates else 0
    activations = max(0, before + step.peak - gradients)
    peak = max(activations, before + step.kept + head - gradients)
    eval_peak = max(evaluation.peak, evaluation.kept + eval_head)
    return {
        "activations": activations,
        "head": peak - activations,
        "evaluation": max(0, eval_peak - gradients - peak),
        "fragmentation": 0,
    }


def both_passes(
    model: PeftModel, recipe: Recipe, device: Device, length: int, measured: int, kernel: str
) -> tuple[Passes, Passes]:
    """What a pass of training holds, and one that measures the loss of rows of `measured` tokens, logits left out."""
    # Kernels that can do without a mask get none.
    masked = kernel == "eager"
    base, (rows, eval_rows) = model.get_base_model(), rows_of(recipe, length)
    dtype = recipe.base_model.dtype
    fuse_products(model, on_cpu=device == "cpu")
    if device == "cuda":
        as_on_gpu(model, dtype if is_mixed(recipe) else None)
    with mixed_precision(dtype) if is_mixed(recipe) and device == "cpu" else nullcontext():
        evaluation = passes(model, eval_rows, measured, masked, gradients=False)
        if recipe.training.activation_checkpointing:
            model.enable_input_require_grads()
            base.activation_checkpointing_enable()  # pyright: ignore[reportCallIssue]
        with attention_backend(device, length):
            return passes(model, rows, length, masked), evaluation


def rows_of(recipe: Recipe, length: int) -> tuple[int, int]:
    """Conversations of that length in a pass of training, and in one that measures the eval loss."""
    training = recipe.training
    sides, rows = 2 if training.method == "dpo" else 1, training.per_device_train_batch_size
    if training.tokens_per_step:
        rows = max(1, training.tokens_per_step // (sides * length * training.gradient_accumulation_steps))
    # Before a step, kto reads its rows with the answers of others as it reads those of the eval split.
    read = rows if training.method == "kto" else 1
    return sides * rows, max(read, sides * training.per_device_eval_batch_size)


def measured_length(recipe: Recipe, length: int, supervised: int) -> int:
    """The most tokens of a row that is only measured: with `kto` a prompt may have the longest answer of all."""
    return min(recipe.chat.max_length, length + supervised) if recipe.training.method == "kto" else length


def is_mixed(recipe: Recipe) -> bool:
    """Whether the trainer computes in a format of its own, beside float32."""
    dtype = recipe.base_model.dtype
    return dtype == "float16" or (dtype == "bfloat16" and recipe.training.bf16)


def both_heads(model: PeftModel, recipe: Recipe, length: int, supervised: int, own: bool) -> tuple[int, int]:
    """What the loss of a pass of training and of one that measures it holds, with so many supervised tokens a row."""
    rows, eval_rows = rows_of(recipe, length)
    return (
        head_bytes(model, recipe, rows * supervised, own, gradients=True),
        head_bytes(model, recipe, eval_rows * supervised, own, gradients=False),
    )


def head_bytes(model: PeftModel, recipe: Recipe, tokens: int, own: bool, gradients: bool) -> int:
    """What the loss of so many supervised tokens holds beside activations, with the gradient of its logits or without.

    Args:
        own: whether it is `supervised_loss`; else it is trl's.
    """
    head: Any = model.get_output_embeddings()
    vocabulary, hidden = head.weight.shape
    if not own:
        # A tile of logits; what the head gets, and the gradient of that, in float32 and as it goes on.
        tile = min(tokens, TRL_TILE[0]) * TRL_TILE[1]
        return 2 * tile + tokens * hidden * (2 + 4 + 2 if gradients else 2)
    # accelerate turns what a model in mixed precision returns into float32.
    size = 4 if is_mixed(recipe) or recipe.base_model.dtype == "float32" else 2
    narrow = 2 if is_mixed(recipe) else 0
    logits = tokens * vocabulary
    held = logits * (2 * size if gradients else size) + 2 * min(4 * logits, CHUNK_BYTES)
    return max(held, logits * (size + narrow))


def optimizer_state(name: str, shapes: list[torch.Size], device: Device) -> tuple[int, int]:
    """Bytes that an optimizer keeps of numbers in these shapes: in place, and paged. A CPU has no paging."""
    held = paged = 0
    for shape in shapes:
        size = state_bytes(name, shape)
        if name.startswith("paged") and device == "cuda" and shape.numel() >= PAGED_FROM:
            paged += size
        else:
            held += size
    return held, paged


def state_bytes(name: str, shape: torch.Size) -> int:
    """Bytes that an optimizer of transformers' name keeps of trained numbers in one shape."""
    numbers = shape.numel()
    if name == "sgd":
        return 0
    if name == "adafactor":  # a sum for each row and each column of a matrix
        return 4 * (numbers // shape[-1] + numbers // shape[-2] if len(shape) > 1 else numbers)
    states = 1 if "lion" in name else 2
    if name.endswith("8bit") and numbers >= IN_8_BITS_FROM:
        return states * (numbers + 4 * -(-numbers // SCALED_TOGETHER))
    return states * numbers * 4
