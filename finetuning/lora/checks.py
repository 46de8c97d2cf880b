"""What has to be true of an adapter before its answers count: it came back from the disk whole, and it does something.

>>> model = load_adapter(base_model, Path("artifacts/lora_adapter/phi-2/0a1b…"), prompt_ids)
"""

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.utils.other import ModulesToSaveWrapper
from safetensors import safe_open

from finetuning.errors import FinetuningError
from finetuning.lora.embeddings import ADAPTER, untrained_rows

WEIGHTS = "adapter_model.safetensors"

TRAIN_AGAIN = "What was trained is not what would be evaluated; train it again."
RAISE = "Raise training.learning_rate or the number of steps."


def require_exact_keys(model: PeftModel, adapter: Path, advice: str = TRAIN_AGAIN) -> None:
    """Check that the file has every weight that peft wants of it, and no other; `advice` says what to do otherwise.

    Raises:
        FinetuningError: peft would leave what is missing as it starts, and pass over what it does not know.
    """
    wanted = get_peft_model_state_dict(model, save_embedding_layers=False).keys()
    with safe_open(adapter / WEIGHTS, "pt") as file:
        there = set(file.keys())
    missing, unknown = sorted(wanted - there), sorted(there - wanted)
    if missing or unknown:
        raise FinetuningError(
            f"{adapter / WEIGHTS}: not the weights that its configuration calls for: {_some('missing', missing)}, "
            f"{_some('unknown', unknown)}. {advice}"
        )


def require_learned(model: PeftModel, adapter: Path) -> None:
    """Check that every part of the adapter changed since its start.

    Raises:
        FinetuningError: one of its B matrices is zero all over, a module that is trained whole is still the base
            model's, or so are the rows of new tokens.
    """
    zero = [name for name, weight in model.named_parameters() if "lora_B" in name and not torch.any(weight)]
    if zero:
        raise FinetuningError(
            f"{adapter}: {len(zero)} B matrices of the adapter are zero (the first is {zero[0]}): nothing was learned "
            f"there. {RAISE}"
        )
    whole = [(name, module) for name, module in model.named_modules() if isinstance(module, ModulesToSaveWrapper)]
    same = [name for name, module in whole if _same(module)]
    if same:
        raise FinetuningError(
            f"{adapter}: {same[0]}, which lora.modules_to_save trains whole, is what it was before training. {RAISE}"
        )
    same = untrained_rows(model)
    if same:
        raise FinetuningError(
            f"{adapter}: the rows of the new tokens in {same[0]} are what they were before training: nothing was "
            f"learned there. {RAISE}"
        )


def require_effect(model: PeftModel, adapter: Path, prompt_ids: list[int]) -> None:
    """Check that the adapter changes what the model says of the next token.

    Raises:
        FinetuningError: the logits are not numbers, or equal to those of the base model.
    """
    prompt = torch.tensor([prompt_ids], device=model.device)
    with torch.inference_mode():
        tuned = model(input_ids=prompt).logits[0, -1].float()
        with model.disable_adapter():
            base = model(input_ids=prompt).logits[0, -1].float()
    if not torch.isfinite(tuned).all():
        raise FinetuningError(
            f"{adapter}: {int((~torch.isfinite(tuned)).sum())} of {len(tuned)} logits of the tuned model are no finite "
            "numbers. Lower training.learning_rate."
        )
    if torch.equal(tuned, base):
        raise FinetuningError(
            f"{adapter}: the logits of the tuned model equal those of the base model in all of {len(tuned)} tokens: "
            f"the adapter changes nothing. {RAISE}"
        )


def _some(kind: str, names: list[str]) -> str:
    return f"{len(names)} {kind}" + (f" (the first is {names[0]})" if names else "")


def _same(module: ModulesToSaveWrapper) -> bool:
    own, original = module.modules_to_save[ADAPTER].state_dict(), module.original_module.state_dict()
    return all(torch.equal(own[name].float(), value.float()) for name, value in original.items())
