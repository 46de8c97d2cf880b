"""A recipe's `lora` section as peft's configuration, held against the layers that the model has."""

from typing import Any

import torch
from peft import LoraConfig

from finetuning.errors import FinetuningError
from finetuning.lora.embeddings import has_bias
from finetuning.recipe.lora import LoraSpec
from finetuning.recipe.mistakes import nearest


def linear_layers(model: torch.nn.Module) -> set[str]:
    """The last part of the names of all linear layers."""
    return {name.rsplit(".")[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def lora_config(spec: LoraSpec, model: Any, tokens: list[int], where: str) -> LoraConfig:
    """The adapter as the recipe wants it, and beside it the rows of new `tokens` in the embeddings and in the head.

    Raises:
        FinetuningError: the recipe targets the head as well.
    """
    settings: dict[str, Any] = spec.model_dump() | {"task_type": "CAUSAL_LM"}
    if spec.init_lora_weights == "loftq":  # by finetuning/base_model/loftq.py, once the adapter is there
        settings["init_lora_weights"] = True
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    if names[id(head)].rsplit(".")[-1] in settings["target_modules"]:
        raise FinetuningError(
            f"{where}: lora.target_modules: {names[id(head)]} cannot be a target: trl's loss would pass its adapter "
            f"by. Take it off the list; modules_to_save: [{names[id(head)]}] trains it whole."
        )
    if not tokens:
        return LoraConfig(**settings)
    apart = not has_bias(head) and head.weight is not embeddings.weight
    settings["trainable_token_indices"] = {names[id(layer)]: tokens for layer in ([embeddings, head][: 1 + apart])}
    return LoraConfig(**settings)


def trains_head(model: Any, spec: LoraSpec, tokens: list[int]) -> bool:
    """Whether something of the head is trained that trl's own loss would pass by; `tokens` are the new ones."""
    head = model.get_output_embeddings()
    name = next(name for name, module in model.named_modules() if module is head)
    return bool(tokens and has_bias(head)) or name.rsplit(".")[-1] in (spec.modules_to_save or ())


def require_target_modules(model: torch.nn.Module, spec: LoraSpec, where: str) -> None:
    """Check that the model has the linear layers that the recipe targets.

    Raises:
        FinetuningError: the recipe targets a module that the model does not have.
    """
    layers = linear_layers(model)
    wanted = [] if isinstance(spec.target_modules, str) else spec.target_modules
    for name in wanted:
        if name.rsplit(".")[-1] not in layers:
            raise FinetuningError(
                f"{where}: lora.target_modules: {name!r} is no linear layer of {type(model).__name__}, which has "
                f"{', '.join(sorted(layers))}{nearest(name, layers)}. Or write all-linear."
            )


def keep_master_weights(model: torch.nn.Module) -> None:
    """Store what is trained in float32; the trainer's autocast computes with it in bfloat16.

    trl stores the adapters of a quantized model in bfloat16, whose eight bits of precision lose most updates once the
    learning rate has fallen: a step smaller than 1/256 of a weight rounds to nothing.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
