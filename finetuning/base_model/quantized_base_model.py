"""The frozen base model that adapters are trained on, quantized by bitsandbytes, and what quantization cost it."""

import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoTokenizer, GgufConfig, PreTrainedModel

from finetuning.base_model.loading import dequantize, is_quantized, load_model
from finetuning.base_model.loftq import write_factors
from finetuning.base_model.quantization_summary import QuantizationSummary, QuantizedLayer
from finetuning.base_model.source import gguf_file, readable
from finetuning.errors import FinetuningError
from finetuning.quantization import bitsandbytes_config
from finetuning.recipe.base_model import BaseModelSpec

MIB = 2**20


def load_dense(spec: BaseModelSpec, folder: Path, dtype: str, where: str) -> PreTrainedModel:
    """The base model with plain weights, on the CPU.

    Raises:
        FinetuningError: `folder` has neither safetensors nor the GGUF file that the recipe names.
    """
    gguf = gguf_file(spec, folder, where)
    if not gguf and not list(folder.glob("*.safetensors")):
        raise FinetuningError(
            f"{where}: base_model: {folder} has no *.safetensors file. Weights are read from safetensors or GGUF only; "
            "convert the model (its repo may have a revision that is converted already) and name that."
        )
    plain = {"quantization_config": GgufConfig(dequantize=True)} if gguf else {}
    with readable(spec, where):
        return load_model(
            folder,
            **gguf,
            **plain,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=spec.trust_remote_code,
        )


def quantize(
    spec: BaseModelSpec,
    folder: Path,
    out: Path,
    model_kwargs: dict[str, Any],
    where: str,
    loftq: int | None = None,
) -> QuantizationSummary:
    """Write the model to `out`, quantized as `spec` says or, where it says nothing of that, in full precision.

    Args:
        model_kwargs: for `from_pretrained`; their `dtype` is what 4-bit weights are computed in.
        loftq: the rank of what an adapter is to give back of the difference (`loftq.py`); None for nothing.

    Raises:
        FinetuningError: there are no weights that may be read, or no layer of them can be quantized.
    """
    dense = load_dense(spec, folder, model_kwargs["dtype"], where)
    with readable(spec, where):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, **gguf_file(spec, folder, where), trust_remote_code=spec.trust_remote_code
        )
    tokenizer.save_pretrained(out)
    full_size = dense.get_memory_footprint()
    summary = QuantizationSummary(
        parameters=dense.num_parameters(),
        full_size_mb=round(full_size / MIB, 1),
        size_mb=round(full_size / MIB, 1),
        quantization_error=0.0,
        layers=[],
    )
    if spec.quantization is None:
        dense.save_pretrained(out)
        return summary
    with TemporaryDirectory(dir=out) as plain:
        if spec.gguf:  # transformers does not quantize a GGUF file while it reads it
            dense.save_pretrained(plain)
        source = plain if spec.gguf else folder
        config = bitsandbytes_config(spec.quantization, model_kwargs["dtype"])
        model = load_model(source, quantization_config=config, **model_kwargs)
    layers, error = compare_layers(dense, model)
    if not layers:
        raise FinetuningError(
            f"{where}: base_model.quantization: no layer of {type(model).__name__} could be quantized. Set it to null."
        )
    model.save_pretrained(out)
    if loftq:
        write_factors(((name, difference) for name, _, difference in differences(dense, model)), loftq, out)
    size = round(model.get_memory_footprint() / MIB, 1)
    return summary.model_copy(update={"size_mb": size, "quantization_error": error, "layers": layers})


def compare_layers(dense: PreTrainedModel, quantized: PreTrainedModel) -> tuple[list[QuantizedLayer], float]:
    """Return each quantized layer with its relative error, and the relative error of all of them together."""
    layers, errors, norms = [], [], []
    for name, weight, difference in differences(dense, quantized):
        error = difference.square().sum().item()
        norm = max(weight.square().sum().item(), torch.finfo(torch.float32).tiny)
        layers.append(QuantizedLayer(name, "x".join(map(str, weight.shape)), round(math.sqrt(error / norm), 4)))
        errors.append(error)
        norms.append(norm)
    return layers, math.sqrt(sum(errors) / sum(norms)) if layers else 0.0


def differences(dense: PreTrainedModel, quantized: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yield each quantized layer's name, its weight, and that less the quantized one (outputs, inputs), in float32."""
    exact = dict(dense.named_modules())
    for name, module in quantized.named_modules():
        if is_quantized(module):
            weight: Any = exact[name].weight
            weight = weight.detach().float()
            yield name, weight, weight - dequantize(module).to("cpu", torch.float32)
