"""Adapters of other recipes as one, by peft's `add_weighted_adapter`. Nothing is trained.

>>> merge_adapters(spec, [Part("maths", 0.7, folder), Part("code", 0.3, other)], base_model, out, "both.yaml")
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from safetensors import safe_open
from torch import nn

from finetuning.errors import FinetuningError
from finetuning.lora.embeddings import ADAPTER
from finetuning.lora.start import WEIGHTS
from finetuning.recipe.lora import LoraMergeSpec
from finetuning.recipe.spec import listed

A, B = ".lora_A.weight", ".lora_B.weight"
PREFIX = "base_model.model."
# What peft's merge would leave out of the adapter, by the key of its configuration.
LEFT_OUT = {
    "use_dora": "its magnitudes (DoRA)",
    "modules_to_save": "the modules that it trained whole",
    "trainable_token_indices": "the rows of new tokens",
    "target_parameters": "its blocks of experts",
    "rank_pattern": "layers with a rank of their own",
    "alpha_pattern": "layers with a scale of their own",
}


@dataclass(frozen=True)
class Part:
    """One of the adapters that become one."""

    recipe: str
    weight: float
    folder: Path


def settings_of_merged(spec: LoraMergeSpec, parts: Sequence[Part], where: str) -> dict[str, Any]:
    """What the merged adapter will have of the section `lora`: `r`, `lora_alpha`, `lora_dropout`, `target_modules`.

    Raises:
        FinetuningError: the adapters do not go together, or hold what a merge would leave out.
    """
    configs = [_config(part, where) for part in parts]
    layers = [set(_shapes(part)) for part in parts]
    for part, there in zip(parts[1:], layers[1:], strict=True):
        if there != layers[0]:
            more, fewer = sorted(there - layers[0]), sorted(layers[0] - there)
            raise FinetuningError(
                f"{where}: lora.merge: the adapters of {parts[0].recipe} and {part.recipe} go to other layers: "
                f"{_some(parts[0].recipe, fewer)}, {_some(part.recipe, more)}. Write the same lora.target_modules in "
                "both recipes."
            )
    ranks = {part.recipe: config.r for part, config in zip(parts, configs, strict=True)}
    if spec.combination_type != "cat" and len(set(ranks.values())) > 1:
        told = ", ".join(f"{recipe} has {r}" for recipe, r in ranks.items())
        raise FinetuningError(
            f"{where}: lora.merge.combination_type: {spec.combination_type} needs adapters of one rank, and {told}. "
            "Write the same lora.r in their recipes, or combination_type: cat."
        )
    rank = sum(ranks.values()) if spec.combination_type == "cat" else configs[0].r
    names = sorted({layer.rpartition(".")[2] for layer in layers[0]})
    return {"r": rank, "lora_alpha": rank, "lora_dropout": 0.0, "target_modules": names}


def merge_adapters(spec: LoraMergeSpec, parts: Sequence[Part], base_model: Path, out: Path, where: str) -> int:
    """Write the merged adapter into the folder `out`; return how many numbers it has.

    On the CPU, so that the same numbers are drawn on every machine.

    Raises:
        FinetuningError: the adapters do not go together, or come to nothing, or to what is no number.
    """
    decided = settings_of_merged(spec, parts, where)
    names = [f"part{number}" for number in range(len(parts))]
    with torch.random.fork_rng(devices=[]):
        model: Any = PeftModel(_bare_layers(_shapes(parts[0])), _config(parts[0], where), names[0])
        for name, part in zip(names, parts, strict=True):
            model.load_adapter(str(part.folder), name, torch_device="cpu")
        torch.manual_seed(spec.seed)
        model.base_model.add_weighted_adapter(
            names,
            [part.weight for part in parts],
            ADAPTER,
            combination_type=spec.combination_type,
            density=spec.density,
            majority_sign_method=spec.majority_sign_method,
        )
    merged = {name: weight for name, weight in model.named_parameters() if f".{ADAPTER}." in name}
    _require_change(merged, where)
    config = model.peft_config[ADAPTER]
    config.task_type, config.base_model_name_or_path = "CAUSAL_LM", str(base_model)
    # The scale of each part is in the numbers already: that of the whole is 1.
    config.use_rslora, config.lora_dropout = False, decided["lora_dropout"]
    model.save_pretrained(str(out), selected_adapters=[ADAPTER], save_embedding_layers=False)
    return sum(weight.numel() for weight in merged.values())


def _config(part: Part, where: str) -> LoraConfig:
    """The adapter's own configuration.

    Raises:
        FinetuningError: it has something that a merge would leave out.
    """
    config: Any = LoraConfig.from_pretrained(str(part.folder))
    held = [what for key, what in LEFT_OUT.items() if getattr(config, key)]
    held += ["biases"] if config.bias != "none" else []
    if held:
        raise FinetuningError(
            f"{where}: lora.merge.adapters: the adapter of {part.recipe} has {listed(held)}, which peft's merge would "
            f"leave out. Take {part.recipe} off the list, or train it without."
        )
    return config


def _shapes(part: Part) -> dict[str, tuple[int, int]]:
    """The shape of each layer that the adapter goes to, (outputs, inputs), by its whole name in the base model."""
    with safe_open(part.folder / WEIGHTS, "pt") as file:
        shapes = {name.removeprefix(PREFIX): file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    layers = [name.removesuffix(A) for name in shapes if name.endswith(A)]
    return {layer: (shapes[layer + B][0], shapes[layer + A][1]) for layer in layers}


def _bare_layers(shapes: Mapping[str, tuple[int, int]]) -> nn.Module:
    """Modules with these layers alone, whose weights take no memory: a merge of adapters does not look at them."""
    root = nn.Module()
    for name, shape in shapes.items():
        parent, (*path, last) = root, name.split(".")
        for step in path:
            if not hasattr(parent, step):
                parent.add_module(step, nn.Module())
            parent = getattr(parent, step)
        layer = nn.Linear(1, 1, bias=False)
        layer.out_features, layer.in_features = shape
        layer.weight = nn.Parameter(torch.zeros(1).expand(shape), requires_grad=False)
        parent.add_module(last, layer)
    return root


def _require_change(merged: Mapping[str, torch.Tensor], where: str) -> None:
    strange = [name for name, weight in merged.items() if not weight.isfinite().all()]
    if strange:
        raise FinetuningError(
            f"{where}: lora.merge: {len(strange)} matrices hold numbers that are not finite (the first is "
            f"{strange[0]}). Write smaller weights in lora.merge.adapters, or a higher density."
        )
    zero = [name for name, weight in merged.items() if not torch.any(weight)]
    if zero:
        raise FinetuningError(
            f"{where}: lora.merge: {len(zero)} matrices are zero all over (the first is {zero[0]}): the adapters undo "
            "each other there. Write other weights in lora.merge.adapters, or a higher density."
        )


def _some(recipe: str, layers: Sequence[str]) -> str:
    return f"{recipe} alone to {len(layers)}" + (f", such as {layers[0]}" if layers else "")
