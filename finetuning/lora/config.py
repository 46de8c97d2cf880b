"""A recipe's `lora` section as peft's configuration, held against the layers that the model has."""

from copy import deepcopy
from typing import Any

import torch
from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

from finetuning.errors import FinetuningError
from finetuning.lora.embeddings import has_bias
from finetuning.lora.targets import beside_the_text, excluded, last_parts
from finetuning.recipe.lora import LoraSpec


def lora_config(spec: LoraSpec, model: Any, tokens: list[int], where: str) -> LoraConfig:
    """The adapter as the recipe wants it, and beside it the rows of new `tokens` in the embeddings and in the head.

    Raises:
        FinetuningError: the recipe targets the head as well, or blocks of experts with dropout.
    """
    settings: dict[str, Any] = spec.model_dump(exclude={"start_from", "merge"}) | {"task_type": "CAUSAL_LM"}
    if spec.init_lora_weights == "loftq":  # by finetuning/base_model/loftq.py, once the adapter is there
        settings["init_lora_weights"] = True
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    if names[id(head)].rsplit(".")[-1] in settings["target_modules"]:
        why = f"{names[id(head)]} cannot be a target: trl's loss would pass its adapter by"
        if spec.start_from:
            raise FinetuningError(f"{where}: lora.from: the adapter goes to it, and {why}. Go on from another one.")
        raise FinetuningError(
            f"{where}: lora.target_modules: {why}. Take it off the list; modules_to_save: [{names[id(head)]}] trains "
            "it whole."
        )
    # No text goes through them, so that an adapter there would learn nothing.
    settings["exclude_modules"] = excluded(beside_the_text(model))
    _require_no_dropout_on_experts(LoraConfig(**settings), model, where)
    if not tokens:
        return LoraConfig(**settings)
    apart = not has_bias(head) and head.weight is not embeddings.weight
    settings["trainable_token_indices"] = {names[id(layer)]: tokens for layer in ([embeddings, head][: 1 + apart])}
    return LoraConfig(**settings)


def _require_no_dropout_on_experts(config: LoraConfig, model: Any, where: str) -> None:
    """Check that no dropout is wanted of experts that transformers keeps in one block.

    Raises:
        FinetuningError: it is; peft adapts such a block as a whole, where there is no input of one layer to drop.
    """
    if not config.lora_dropout:
        return
    adapted = deepcopy(config)
    convert_peft_config_for_transformers(adapted, model, None)
    if blocks := sorted(adapted.target_parameters or ()):
        layers = sorted(last_part for last_part in last_parts(model) if last_part.endswith("_proj"))
        raise FinetuningError(
            f"{where}: lora.lora_dropout: {config.lora_dropout:g}, and the adapter goes to experts of "
            f"{type(model).__name__} that are kept in one block ({', '.join(blocks)}), which can have none. Write "
            f"lora_dropout: 0, or leave the experts as they are: target_modules: [{', '.join(layers)}]."
        )


def trains_head(model: Any, spec: LoraSpec, tokens: list[int]) -> bool:
    """Whether something of the head is trained that trl's own loss would pass by; `tokens` are the new ones."""
    head = model.get_output_embeddings()
    name = next(name for name, module in model.named_modules() if module is head)
    return bool(tokens and has_bias(head)) or name.rsplit(".")[-1] in (spec.modules_to_save or ())


def keep_master_weights(model: torch.nn.Module) -> None:
    """Store what is trained in float32; the trainer's autocast computes with it in bfloat16.

    trl stores the adapters of a quantized model in bfloat16, whose eight bits of precision lose most updates once the
    learning rate has fallen: a step smaller than 1/256 of a weight rounds to nothing.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
