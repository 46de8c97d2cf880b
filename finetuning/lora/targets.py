"""Which layers of a model an adapter goes to, and whether it can: names that match, ranks that fit, no vision tower.

Gemma 3 with its vision tower:  model.language_model.layers.0.self_attn.q_proj   gets an adapter
                                model.vision_tower.….self_attn.q_proj            gets none: no text ever reaches it
"""

import re
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from finetuning.errors import FinetuningError
from finetuning.recipe.lora import LoraSpec
from finetuning.recipe.mistakes import nearest


def linear_layers(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The layers that can have an adapter, by their whole name: linear ones, and GPT-2's own kind of them."""
    return {name: module for name, module in model.named_modules() if isinstance(module, (torch.nn.Linear, Conv1D))}


def last_parts(model: torch.nn.Module) -> set[str]:
    """The last part of the names of all layers that can have an adapter."""
    return {name.rpartition(".")[2] for name in linear_layers(model)}


def is_named(name: str, by: str) -> bool:
    """Whether a module's whole name is meant by a recipe's, as peft reads it."""
    return name == by or name.endswith(f".{by}")


def beside_the_text(model: Any) -> list[str]:
    """The parts of a model that no text goes through, such as its vision tower; an empty list for a language model."""
    config = getattr(model, "config", None)
    if config is None or config.get_text_config() is config:
        return []
    names = {id(module): name for name, module in model.named_modules()}
    text, head = names.get(id(model.get_decoder())), names.get(id(model.get_output_embeddings()))
    if not text:
        return []
    outside = [name for name in linear_layers(model) if name != head and not name.startswith(f"{text}.")]
    return sorted({_apart(name, text) for name in outside})


def _apart(name: str, text: str) -> str:
    """The shortest beginning of `name` that is none of `text`."""
    parts, own = name.split("."), text.split(".")
    same = next((i for i, (a, b) in enumerate(zip(parts, own, strict=False)) if a != b), len(own))
    return ".".join(parts[: same + 1])


def excluded(parts: list[str]) -> str | None:
    """The pattern by which peft leaves out these parts of a model; None for none."""
    return rf"({'|'.join(map(re.escape, parts))})(\..*)?" if parts else None


def targets(model: Any, spec: LoraSpec) -> dict[str, torch.nn.Module]:
    """The layers that the recipe's adapter goes to, by their whole name."""
    head, pattern = model.get_output_embeddings(), excluded(beside_the_text(model))
    layers = {name: layer for name, layer in linear_layers(model).items() if layer is not head}
    if pattern:
        layers = {name: layer for name, layer in layers.items() if not re.fullmatch(pattern, name)}
    if isinstance(spec.target_modules, str):
        return layers
    wanted = spec.target_modules
    return {name: layer for name, layer in layers.items() if any(is_named(name, by) for by in wanted)}


def require_targets(model: Any, spec: LoraSpec, where: str) -> None:
    """Check that the model has what the recipe trains of it, and that an adapter of that rank has room there.

    Raises:
        FinetuningError: the recipe names a module that the model does not have, or that cannot be trained so.
    """
    layers, modules = linear_layers(model), dict(model.named_modules())
    parameters = [name for name, parameter in model.named_parameters() if parameter.dim() == 3]
    for by in () if isinstance(spec.target_modules, str) else spec.target_modules:
        if not any(is_named(name, by) for name in [*layers, *_expert_names(parameters)]):
            known = last_parts(model)
            raise FinetuningError(
                f"{where}: lora.target_modules: {by!r} is no linear layer of {type(model).__name__}, which has "
                f"{', '.join(sorted(known))}{nearest(by.rpartition('.')[2], known)}. Or write all-linear."
            )
    for by in spec.modules_to_save or ():
        found = [module for name, module in modules.items() if name and is_named(name, by)]
        if not found:
            head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
            usual = [name for name, module in modules.items() if module is head or module is embeddings]
            known = {name.rpartition(".")[2] for name in modules if name and not name.rpartition(".")[2].isdigit()}
            raise FinetuningError(
                f"{where}: lora.modules_to_save: {by!r} is no module of {type(model).__name__}, so nothing would be "
                f"trained whole. Its embeddings and head are {', '.join(usual)}{nearest(by, known)}."
            )
        if any(not p.is_floating_point() for module in found for p in module.parameters()):
            raise FinetuningError(
                f"{where}: lora.modules_to_save: {by!r} is quantized, and cannot be trained whole. Name it in "
                "target_modules, or write base_model.quantization: null."
            )
    _require_rank(model, spec, where)


def _expert_names(parameters: list[str]) -> list[str]:
    """What peft knows blocks of experts by: as they are, and as they were before transformers 5 put them together."""
    old = ("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")
    return [*parameters, *(f"{name.rpartition('.')[0]}.{part}" for name in parameters for part in old)]


def _require_rank(model: Any, spec: LoraSpec, where: str) -> None:
    sizes = {name: _size(layer) for name, layer in targets(model, spec).items()}
    small = sorted((min(size), name) for name, size in sizes.items() if min(size) < spec.r)
    if small:
        least, name = small[0]
        raise FinetuningError(
            f"{where}: lora.r: {spec.r} is more than {name} of {type(model).__name__} has room for "
            f"({' x '.join(map(str, sizes[name]))}), and than {len(small) - 1} more of {len(sizes)} targets: an "
            f"adapter of rank {least} can change it in every way. Write r: {least} or less, or leave it out of the "
            "targets."
        )


def _size(layer: Any) -> tuple[int, int]:
    """Outputs and inputs."""
    if isinstance(layer, Conv1D):
        return layer.weight.shape[1], layer.weight.shape[0]
    return layer.out_features, layer.in_features
