"""Loads a base model from its artifact, alone or with an adapter that is seen to act."""

from pathlib import Path
from typing import Any

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedTokenizerBase

from finetuning.base_model.loading import answer_on_cpu, keep_trainable_on_cpu, load_model
from finetuning.errors import FinetuningError
from finetuning.lora.checks import require_effect, require_exact_keys, require_learned
from finetuning.lora.embeddings import give_rows


def load_side(
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: list[int],
    base_model: Path,
    adapter: Path | None,
    model_kwargs: dict[str, Any],
    mixed_precision: bool = True,
) -> Any:
    """The base model, or the one tuned with `adapter`, ready to answer.

    Args:
        mixed_precision: whether the adapter's products were made in the number format of `model_kwargs` in training.
    """
    model = load_base(tokenizer, base_model, model_kwargs, str(adapter or base_model))
    # Not merged into the weights: a merged adapter is rounded to their number format, and another model.
    model = load_adapter(model, adapter, prompt_ids) if adapter else model
    if adapter and mixed_precision:
        compute_as_trained(model)
    answer_on_cpu(model)
    return model


def compute_as_trained(model: PeftModel) -> None:
    """Give the adapter's matrices the number format in which the base model computes.

    They are kept in float32, as the optimizer had them; autocast made their products in training in the model's format.
    """
    dtype = model.get_base_model().dtype
    for module in model.modules():
        if isinstance(module, LoraLayer):
            for name in module.adapter_layer_names:
                if name != "lora_magnitude_vector":  # of which autocast left the products in float32
                    getattr(module, name).to(dtype)


def load_base(tokenizer: PreTrainedTokenizerBase, base_model: Path, model_kwargs: dict[str, Any], where: str) -> Any:
    """The base model from the disk, as whoever uses the published adapter loads it, with rows for new tokens."""
    model = load_model(base_model, **model_kwargs)
    # Before its first answer: the adapter's checks ask it already.
    keep_trainable_on_cpu(model)
    give_rows(model, tokenizer, base_model, where, model_kwargs["trust_remote_code"])
    return model.eval()


def load_adapter(base_model: Any, adapter: Path, prompt_ids: list[int]) -> PeftModel:
    """The base model with the adapter that lies in `adapter`, in eval mode.

    Raises:
        FinetuningError: the adapter's weights are not exactly those that its configuration calls for, something of it
            learned nothing, or the model's logits for `prompt_ids` are what they are without it, or no numbers.
    """
    try:
        model = PeftModel.from_pretrained(base_model, str(adapter))
    except RuntimeError as error:  # of torch, for shapes
        reason = " ".join(str(error).split())[:300]
        raise FinetuningError(
            f"{adapter}: the adapter does not fit the base model: {reason}. Train it again."
        ) from error
    require_exact_keys(model, adapter)
    require_learned(model, adapter)
    model.eval()
    require_effect(model, adapter, prompt_ids)
    return model
