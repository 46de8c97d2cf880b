"""LoftQ: an adapter that starts as the most of what quantization took from the weights.

weights - quantized weights ≈ B A, of rank r: written beside the quantized model, and read when training starts.

The method is that of Li et al. 2023 (https://arxiv.org/abs/2310.08659) with one round. peft's own needs the weights in
full precision when training starts, and is right only where adapters are not scaled (`lora_alpha` equal to `r`).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

FILE = "loftq.safetensors"
# More directions than are wanted, and rounds of power iteration: quantization errors have a flat spectrum.
OVERSAMPLING, ROUNDS = 2, 4


def write_factors(differences: Iterable[tuple[str, torch.Tensor]], rank: int, folder: Path) -> None:
    """Write the factors A (rank, inputs) and B (outputs, rank) of each layer's difference into a file in `folder`.

    Args:
        differences: layers' names, and their weights less the quantized ones (outputs, inputs).
    """
    factors = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the products with random vectors are the same each time
        for name, difference in differences:
            most = min(difference.shape)
            u, s, v = torch.svd_lowrank(difference, min(OVERSAMPLING * rank, most), ROUNDS)
            root = s[:rank].sqrt()
            factors[f"{name}.A"] = (v[:, :rank] * root).T.contiguous()
            factors[f"{name}.B"] = (u[:, :rank] * root).contiguous()
    save_file(factors, folder / FILE)


def start_from_factors(model: Any, folder: Path) -> None:
    """Start the adapter of a peft model with the factors beside the base model in `folder`."""
    factors = load_file(folder / FILE)
    for name, layer in model.get_base_model().named_modules():
        if f"{name}.A" not in factors or not hasattr(layer, "lora_A"):
            continue
        for adapter, scaling in layer.scaling.items():
            a, b = factors[f"{name}.A"], factors[f"{name}.B"] / scaling
            # A matrix that is smaller than the rank has no more than its own size to give back.
            layer.lora_A[adapter].weight.data[: len(a)] = a
            layer.lora_B[adapter].weight.data[:, : len(a)] = b
