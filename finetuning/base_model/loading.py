"""Loads the frozen model that lies in an artifact, so that it can be trained on this device."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import AutoModelForCausalLM
from transformers.models.falcon import modeling_falcon
from transformers.utils import logging

from finetuning.base_model import varlen
from finetuning.errors import FinetuningError

SPARE_MEMORY = 0.5  # share of the free memory that weights which are written out may take


@contextmanager
def freeing_models() -> Iterator[None]:
    """Free the memory of the models that a function with this decorator loaded, once it has returned.

    Each `Linear4bit` and its weight refer to each other: without a model of that kind in use its weights stay until
    Python looks for such circles, which it does after so many small objects, however large these are.
    """
    try:
        yield
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def load_model(folder: Path | str, **kwargs: Any) -> Any:
    """Load the causal language model in `folder` by transformers with `kwargs`, with no progress bar.

    All that is not quantized has the `dtype` of `kwargs`, and layers of 4 bits compute in it, whatever they were saved
    in: transformers 5.23 leaves a checkpoint that is quantized already as it is.

    transformers 5.23 quantizes layers whose type is exactly `torch.nn.Linear`. Falcon's linear layers are a subclass
    that computes the same; they would stay in full precision with no error.

    Raises:
        FinetuningError: the architecture does not have the attention kernel, or is no causal language model.
    """
    return load_with_report(folder, **kwargs)[0]


def load_with_report(folder: Path | str, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
    """The same, and what transformers says of the loading: `missing_keys`, `unexpected_keys` and the like."""
    logging.disable_progress_bar()
    modeling_falcon.FalconLinear = torch.nn.Linear  # pyright: ignore[reportAttributeAccessIssue]
    varlen.register()
    kernel = kwargs.get("attn_implementation")
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **kwargs)
        model, report = loaded
    except KeyError as error:  # Falcon's, whose kernels are in a table of its own
        if error.args != (kernel,):
            raise
        raise no_kernel(kernel, "the architecture of this model") from error
    except ValueError as error:
        if other := re.search(r"Unrecognized configuration class <class '[\w.]*\.(\w+)'>", str(error)):
            raise FinetuningError(
                f"base_model: {other[1]} in config.json is no configuration of a causal language model. Name the repo "
                "of its language model alone; of models with a vision tower those can be trained that transformers "
                "loads by AutoModelForCausalLM, such as Gemma 3."
            ) from error
        architecture, lacks, _ = str(error).partition(" does not support ")
        if not lacks or "attn_implementation" not in kwargs:
            raise
        raise no_kernel(kernel, architecture) from error
    if kernel == varlen.VARLEN and not model._supports_attention_backend:
        raise no_kernel(kernel, type(model).__name__)
    if getattr(model, "is_quantized", False) and "dtype" in kwargs:
        compute_in(model, model.config.dtype)
    return model, report


def no_kernel(kernel: str | None, architecture: str) -> FinetuningError:
    """Return the error of an attention kernel that an architecture does not have."""
    return FinetuningError(
        f"base_model.attention: {kernel} is not a kernel that {architecture} has. Write another one, such as eager, "
        "which every architecture has."
    )


def compute_in(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Give the quantized model another number format, but for its quantized weights and what is in float32."""
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype = dtype
            # What its weight is written out in: bitsandbytes multiplies with one that was never rounded to another.
            module.weight.quant_state.dtype = dtype  # pyright: ignore[reportAttributeAccessIssue]
        for parameter in module.parameters(recurse=False):
            if parameter.dtype in (torch.bfloat16, torch.float16):
                parameter.data = parameter.data.to(dtype)


def is_quantized(module: torch.nn.Module) -> bool:
    """Whether bitsandbytes holds the module's weight in 4 or 8 bits."""
    return isinstance(module, (Linear4bit, Linear8bitLt))


def dequantize(module: Any) -> torch.Tensor:
    """Return the weight of a quantized linear layer as the forward pass sees it (out_features, in_features)."""
    weight: Any = module.weight
    if isinstance(module, Linear4bit):
        if getattr(weight.quant_state, "packing_format_for_cpu", False):
            raise ValueError("a weight that bitsandbytes has packed for its CPU kernel; see keep_trainable_on_cpu")
        return dequantize_4bit(weight.data, weight.quant_state)
    return int8_vectorwise_dequant(weight.data, weight.SCB if module.state.SCB is None else module.state.SCB)


def compute_dtype(layer: Any) -> torch.dtype:
    """Return the number format that a 4-bit layer multiplies in: its configuration's, or that of its weight before."""
    return layer.compute_dtype or layer.weight.quant_state.dtype


class DequantizedLinear(torch.nn.Linear):
    """A 4-bit layer with its weight written out: bitsandbytes' own numbers, without writing it out for every token."""

    def __init__(self, layer: Linear4bit) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = dequantize(layer).to(compute_dtype(layer))
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        bias = None if layer.bias is None else layer.bias.detach().to(weight.dtype)
        self.bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The layer's output (…, out_features), in the number format of its input."""
        return super().forward(input.to(self.weight.dtype)).to(input.dtype)


def answer_on_cpu(model: torch.nn.Module) -> None:
    """Make the 4-bit layers on a CPU compute with the weights that they trained with, and fast where memory allows.

    By itself bitsandbytes would use the kernel that `keep_trainable_on_cpu` tells of, which rounds the scales of the
    weights to bfloat16: another model than the one that was trained, and than other machines make of the same files.
    A model that has answered already, and was not `keep_trainable_on_cpu`, is past this.
    """
    layers = [layer for layer in layers_in_4_bits(model) if layer.weight.device.type == "cpu"]
    keep_trainable_on_cpu(model)
    size = sum(layer.in_features * layer.out_features * compute_dtype(layer).itemsize for layer in layers)
    if size <= SPARE_MEMORY * psutil.virtual_memory().available:
        write_out(model, layers)


def layers_in_4_bits(model: torch.nn.Module) -> list[Linear4bit]:
    """The layers whose weights bitsandbytes holds in 4 bits."""
    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def write_out(model: torch.nn.Module, layers: list[Linear4bit]) -> None:
    """Put a `DequantizedLinear` in the place of each of these layers of the model, one after the other."""
    names = {module: name for name, module in model.named_modules()}
    for layer in layers:
        parent, _, own_name = names.pop(layer).rpartition(".")
        setattr(model.get_submodule(parent), own_name, DequantizedLinear(layer))
        # Its weight refers to it: the memory of both would stay until Python looks for such circles.
        layer.weight = None  # pyright: ignore[reportAttributeAccessIssue]


def keep_trainable_on_cpu(model: torch.nn.Module) -> None:
    """Keep gradients through 4-bit layers right on a CPU after the model was evaluated.

    On a CPU with AVX512-BF16 bitsandbytes 0.50 repacks a layer's weight at the first forward pass in eval mode, for
    good, and from then on uses a kernel that has no backward pass: the loss of a training that evaluates on its way
    rises, with nothing but a warning (`gemv_4bit: an autograd kernel was not registered`).
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
