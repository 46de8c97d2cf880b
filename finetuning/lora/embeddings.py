"""Rows of the embeddings and of the head for tokens that are new to a base model: their start, and their training."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetuning.chat.vocabulary import new_tokens
from finetuning.errors import FinetuningError

ADAPTER = "default"  # peft's name for the only one


def give_rows(
    model: Any, tokenizer: PreTrainedTokenizerBase, base_model: Path, where: str, trust_remote_code: bool = False
) -> list[int]:
    """The ids that are new to the base model in the folder `base_model`; `model` then has a row for each.

    A new row starts as the mean of the rows that the model came with: the middle of what it knows, and the same in
    training and in evaluation. A head with a bias keeps its rows as they are: its adapter adds to them (`adapt_head`).

    Raises:
        FinetuningError: the embeddings would have to grow, or are tied, under a head that has a bias.
    """
    tokens = new_tokens(tokenizer, AutoTokenizer.from_pretrained(base_model, trust_remote_code=trust_remote_code))
    if not tokens:
        return []
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    before = len(embeddings.weight)
    if has_bias(head) and (len(tokenizer) > before or head.weight is embeddings.weight):
        raise FinetuningError(
            f"{where}: base_model.chat_template: it needs tokens that are new to {type(model).__name__}, whose head "
            f"has a bias and {'no row to spare' if len(tokenizer) > before else 'the weights of its embeddings'}: such "
            "rows cannot be trained. Write `chat_template: instruction`, which needs no new token."
        )
    means = [_mean(layer, before) for layer in (embeddings, head)]
    if len(tokenizer) > before:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for layer, mean in zip((model.get_input_embeddings(), model.get_output_embeddings()), means, strict=True):
        if not has_bias(layer):
            layer.weight.data[tokens] = mean
    return tokens


def _mean(layer: Any, rows: int) -> torch.Tensor:
    return layer.weight.data[:rows].mean(0, dtype=torch.float32).to(layer.weight.dtype)


def has_bias(head: Any) -> bool:
    """Whether a model's head adds a bias, as Phi's does; peft's own way to train rows would leave it out."""
    return getattr(head, "bias", None) is not None


def adapt_head(model: PeftModel, tokens: list[int]) -> None:
    """Train the head's rows for new `tokens` too, where `lora_config` does not see to it.

    A head with a bias gets an adapter of its own, whose rank is enough for any change of those rows. It comes after
    trl's trainer was made, which refuses one because its own loss would pass it by.
    """
    head: Any = model.get_output_embeddings()
    if not tokens:
        return
    if isinstance(head, AuxiliaryTrainingWrapper):
        head.__dict__["bias"] = None  # trl's loss asks for it
    elif has_bias(head):
        base: Any = model.get_base_model()
        name = next(name for name, module in base.named_modules() if module is head)
        config: Any = model.peft_config[ADAPTER]
        config.target_modules = {*config.target_modules, name}
        config.rank_pattern[name] = config.alpha_pattern[name] = len(tokens)
        adapted = Linear(head, ADAPTER, config, r=len(tokens), lora_alpha=len(tokens))
        _train_only(adapted, tokens)
        base.set_output_embeddings(adapted)


def _train_only(layer: Any, rows: list[int]) -> None:
    """Train what an adapted layer adds to its outputs `rows` alone."""
    mask = torch.zeros(layer.out_features, 1)
    mask[rows] = 1
    for name, parameter in layer.named_parameters():
        if "lora_B" in name or "magnitude" in name:
            kept = mask.view(-1, *[1] * (parameter.dim() - 1))
            parameter.register_hook(lambda gradient, kept=kept: gradient * kept.to(gradient))


def untrained_rows(model: torch.nn.Module) -> list[str]:
    """Names of layers whose rows of new tokens are still what they were at the start."""
    return [name for name, layer in _token_layers(model) if not _has_learned(layer)]


def _token_layers(model: torch.nn.Module) -> Iterable[tuple[str, Any]]:
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, TrainableTokensLayer))


def _has_learned(layer: Any) -> bool:
    start = layer.trainable_tokens_original
    return any(
        not torch.equal(rows.float(), start[name].float()) for name, rows in layer.trainable_tokens_delta.items()
    )
