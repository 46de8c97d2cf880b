"""The frozen base model that adapters are trained on, quantized by bitsandbytes, and what quantization cost it."""

import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoTokenizer, FineGrainedFP8Config, GgufConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils.quantization_config import Mxfp4Config

from finetuning.base_model.kinds import BITSANDBYTES, require_model, stored_quantization
from finetuning.base_model.loading import dequantize, freeing_models, is_quantized, load_model
from finetuning.base_model.loftq import write_factors
from finetuning.base_model.quantization_summary import QuantizationSummary, QuantizedLayer
from finetuning.base_model.source import gguf_file, readable
from finetuning.base_model.weights import experts_in_full, load_whole, mend_generation_config, require_rows
from finetuning.errors import FinetuningError
from finetuning.quantization import bitsandbytes_config
from finetuning.recipe.base_model import BaseModelSpec

MIB = 2**20


def load_dense(spec: BaseModelSpec, folder: Path, dtype: str, where: str) -> PreTrainedModel:
    """The base model with plain weights, on the CPU.

    Raises:
        FinetuningError: `folder` has neither safetensors nor the GGUF file that the recipe names, or weights that would
            be trained in vain.
    """
    return read_dense(spec, folder, dtype, where)[0]


def read_dense(spec: BaseModelSpec, folder: Path, dtype: str, where: str) -> tuple[PreTrainedModel, list[str]]:
    """The same, and what there is to say of it."""
    gguf = gguf_file(spec, folder, where)
    if not gguf and not list(folder.glob("*.safetensors")):
        raise FinetuningError(
            f"{where}: base_model: {folder} has no *.safetensors file. Weights are read from safetensors or GGUF only; "
            "convert the model (its repo may have a revision that is converted already) and name that."
        )
    undone = undoing(spec, folder)
    with readable(spec, where):
        model, notes = load_whole(
            folder,
            where,
            **gguf,
            **({"quantization_config": undone} if undone else {}),
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=spec.trust_remote_code,
        )
    if undone and not gguf:
        # How the weights were read; transformers 5.23 would undo a part of that when these are saved.
        model._weight_conversions = None
        notes = [f"its weights came in {stored_as(folder)}, and were written out in {dtype}", *notes]
    return model, notes


def undoing(spec: BaseModelSpec, folder: Path) -> Any:
    """What makes transformers write out weights that are stored in fewer bits; None for plain ones."""
    if spec.gguf:
        return GgufConfig(dequantize=True)
    ways = {"mxfp4": Mxfp4Config, "fp8": FineGrainedFP8Config}
    way = ways.get(stored_as(folder) or "")
    return way(dequantize=True) if way else None


def stored_as(folder: Path) -> str | None:
    """The name of the way in which the weights in the folder are quantized; None for weights in full."""
    held = stored_quantization(folder)
    return None if held is None else str(held["quant_method"])


@freeing_models()
def quantize(
    spec: BaseModelSpec,
    folder: Path,
    out: Path,
    model_kwargs: dict[str, Any],
    where: str,
    loftq: int | None = None,
) -> QuantizationSummary:
    """Write the model to `out`, quantized as `spec` says or, where it says nothing of that, in full precision.

    One that bitsandbytes has quantized already is kept as it is.

    Args:
        model_kwargs: for `from_pretrained`; their `dtype` is what 4-bit weights are computed in.
        loftq: the rank of what an adapter is to give back of the difference (`loftq.py`); None for nothing.

    Raises:
        FinetuningError: there are no weights that may be read, they would be trained in vain, or no layer of them can
            be quantized.
    """
    require_model(spec, folder, where)
    with readable(spec, where):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, **gguf_file(spec, folder, where), trust_remote_code=spec.trust_remote_code
        )
    tokenizer.save_pretrained(out)
    if stored_as(folder) == BITSANDBYTES and not spec.gguf:
        return keep_quantized(spec, folder, out, model_kwargs, where, loftq)
    dense, notes = read_dense(spec, folder, model_kwargs["dtype"], where)
    require_rows(dense, tokenizer, where)
    full_size = dense.get_memory_footprint()
    summary = QuantizationSummary(
        parameters=dense.num_parameters(),
        full_size_mb=round(full_size / MIB, 1),
        size_mb=round(full_size / MIB, 1),
        quantization_error=0.0,
        layers=[],
        notes=tuple(notes),
    )
    if spec.quantization is None:
        dense.save_pretrained(out)
        return summary
    with TemporaryDirectory(dir=out) as plain:
        # transformers does not quantize while it writes out weights that are stored in fewer bits.
        is_written_out = undoing(spec, folder) is not None
        if is_written_out:
            dense.save_pretrained(plain)
        config = bitsandbytes_config(spec.quantization, model_kwargs["dtype"])
        model = load_model(plain if is_written_out else folder, quantization_config=config, **model_kwargs)
    layers, error = compare_layers(dense, model)
    if not layers:
        raise FinetuningError(
            f"{where}: base_model.quantization: no layer of {type(model).__name__} could be quantized. Set it to null."
        )
    mend_generation_config(model)
    model.save_pretrained(out)
    if loftq:
        write_factors(((name, difference) for name, _, difference in differences(dense, model)), loftq, out)
    size = round(model.get_memory_footprint() / MIB, 1)
    found = {"size_mb": size, "quantization_error": error, "layers": layers}
    return summary.model_copy(update=found | {"notes": (*notes, *experts_in_full(model))})


def keep_quantized(
    spec: BaseModelSpec, folder: Path, out: Path, model_kwargs: dict[str, Any], where: str, loftq: int | None
) -> QuantizationSummary:
    """Write a model that bitsandbytes has quantized already to `out`, as it is.

    Raises:
        FinetuningError: its weights would be trained in vain, or what quantization took is to be given back.
    """
    if loftq:
        raise FinetuningError(
            f"{where}: lora.init_lora_weights: loftq, which gives back what quantization took, and {spec.repo} is "
            "quantized already: what was taken is not there. Write true, or name the repo in full precision."
        )
    with readable(spec, where):
        model, notes = load_whole(folder, where, **model_kwargs)
    require_rows(model, AutoTokenizer.from_pretrained(out, trust_remote_code=spec.trust_remote_code), where)
    # How the weights were read; transformers 5.23 knows no way back for those of 8 bits, which are saved as they lie.
    model._weight_conversions = None
    model.save_pretrained(out)
    size, parameters = model.get_memory_footprint(), model.num_parameters()
    return QuantizationSummary(
        parameters=parameters,
        full_size_mb=round(parameters * model.dtype.itemsize / MIB, 1),
        size_mb=round(size / MIB, 1),
        quantization_error=0.0,
        layers=[],
        as_it_came=True,
        notes=(
            "its weights came quantized by bitsandbytes, and are taken as they are",
            *notes,
            *experts_in_full(model),
        ),
    )


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
            dense_layer: Any = exact[name]
            weight = dense_layer.weight.detach().float()
            # GPT-2's own layers keep it the other way round (inputs, outputs); bitsandbytes turns it.
            weight = weight.T if isinstance(dense_layer, Conv1D) else weight
            yield name, weight, weight - dequantize(module).to("cpu", torch.float32)
