"""Reads a base model's weights, and finds what would be trained in vain: weights made up, no numbers, without a row."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from transformers import GenerationConfig, PreTrainedTokenizerBase

from finetuning.base_model.loading import load_with_report
from finetuning.errors import FinetuningError

# Numbers that older releases wrote beside the weights, and that newer ones compute.
COMPUTED = re.compile(r"(inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids|[kv]_scale)$")
SHOWN = 5
LARGE = 0.01  # share of a layer's numbers from which a block of them counts

# Keys of generation_config.json that only sampling, or only a search by beams, reads.
OF_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def load_whole(folder: Path, where: str, **kwargs: Any) -> tuple[Any, list[str]]:
    """The model in `folder`, loaded by transformers with `kwargs`, and what there is to say of it.

    Raises:
        FinetuningError: the files lack weights of the model or have more of them than its configuration, or some are
            infinite or not a number.
    """
    model, report = load_with_report(folder, **kwargs)
    _require_all(model, report, where)
    beside = _beside(model, report["unexpected_keys"], where)
    require_finite(model, where)
    notes = [f"left out, as the language model has no place for it: {_some(beside)}"] if beside else []
    return model, notes + mend_generation_config(model)


def _require_all(model: Any, report: Mapping[str, Any], where: str) -> None:
    missing = sorted(report["missing_keys"])
    if not missing:
        return
    head = next((name for name, module in model.named_modules() if module is model.get_output_embeddings()), None)
    instead = sorted(name for name in report["unexpected_keys"] if not COMPUTED.search(name))
    hints = []
    if missing == [f"{head}.weight"]:
        hints.append(
            "A model whose head is its embeddings says so: tie_word_embeddings: true in its config.json. One that was "
            "saved as a classifier or an embedder has no head that speaks."
        )
    if instead:
        hints.append(f"Instead they have {_some(instead)}.")
    raise FinetuningError(
        f"{where}: base_model: the files lack {len(missing)} of the weights of {type(model).__name__}: {_some(missing)}"
        ". transformers would fill them with random numbers, and those would be trained and published. "
        + " ".join([*hints, "Name a repo that was saved whole, as a causal language model."])
    )


def _beside(model: Any, unexpected: set[str], where: str) -> list[str]:
    """The weights in the files that belong to something beside the language model.

    Raises:
        FinetuningError: some belong to the language model itself.
    """
    names = sorted(name for name in unexpected if not COMPUTED.search(name))
    modules = dict(model.named_modules())
    stacks = tuple(f"{name}." for name, module in modules.items() if isinstance(module, torch.nn.ModuleList))
    parents = modules.keys() - {""}
    own = [name for name in names if name.startswith(stacks) or name.rpartition(".")[0] in parents]
    if own:
        raise FinetuningError(
            f"{where}: base_model: the files have {len(own)} weights that {type(model).__name__} would leave out: "
            f"{_some(own)}. By them it would be another model than the one that was saved: config.json has fewer "
            "layers, or no biases. Fetch the config.json that belongs to these weights."
        )
    return names


def require_finite(model: Any, where: str) -> None:
    """Check that all weights are finite numbers.

    Raises:
        FinetuningError: one of them is infinite or not a number.
    """
    for name, numbers in _numbers(model):
        if not (finite := torch.isfinite(numbers)).all():
            bad = f"{int((~finite).sum()):,} of {numbers.numel():,} numbers of {name}"
            narrow = " Or they are too large for base_model.dtype: float16; write bfloat16."
            raise FinetuningError(
                f"{where}: base_model: {bad} are infinite or not a number: whatever is trained on them is neither. "
                f"Fetch the weights again, or take another revision.{narrow if numbers.dtype == torch.float16 else ''}"
            )


def _numbers(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """All numbers that a model holds and that can be infinite: weights, and the scales of quantized ones."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and tensor.dtype.itemsize > 1:
            yield name, tensor.detach()
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            weight: Any = module.weight
            state = weight.quant_state
            for part in (state, state.state2):
                if part is not None and part.absmax.is_floating_point():
                    yield f"{name}.weight", part.absmax
        elif isinstance(scales := getattr(getattr(module, "weight", None), "SCB", None), torch.Tensor):
            yield f"{name}.weight", scales


def experts_in_full(model: Any) -> list[str]:
    """What there is to say of weights that bitsandbytes leaves as they are, though they are matrices; if there are any.

    transformers 5 keeps the experts of a layer in one parameter of three dimensions, and bitsandbytes quantizes linear
    layers alone.
    """
    blocks = [p for p in model.parameters() if p.dim() == 3 and min(p.shape[1:]) > 1 and p.is_floating_point()]
    # Smaller ones are none of a layer's matrices.
    experts = [
        p
        for p in blocks
        if p.numel() > LARGE * model.num_parameters() / model.config.get_text_config().num_hidden_layers
    ]
    if not experts:
        return []
    count, size = sum(p.numel() for p in experts), sum(p.nbytes for p in experts) / 2**20
    return [
        f"experts: {count:,} numbers ({size:,.0f} MiB) stay in full, for bitsandbytes quantizes linear layers alone, "
        "and the experts of a layer are one block of numbers"
    ]


def mend_generation_config(model: Any) -> list[str]:
    """Take out of the model's settings of generation those with which it could not be saved; say which, if any."""
    config = getattr(model, "generation_config", None)
    if config is None or (fault := _fault_of(config)) is None:
        return []
    before, default = config.to_diff_dict(), GenerationConfig()
    for key in OF_SAMPLING:
        setattr(config, key, getattr(default, key, None))
    if _fault_of(config) is not None:
        # What is left of it is what generation cannot do without.
        config = GenerationConfig(**{key: getattr(config, key) for key in TOKENS})
        model.generation_config = config
    left = sorted(key for key in before.keys() - config.to_diff_dict().keys() if key != "transformers_version")
    return [f"generation_config.json cannot be saved as it is ({fault}); taken out of it: {', '.join(left)}"]


def _fault_of(config: GenerationConfig) -> str | None:
    try:
        config.validate(strict=True)
    except ValueError as error:
        return " ".join(str(error).split())[:200]
    return None


def require_rows(model: Any, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Check that the model has a row for each special token.

    Raises:
        FinetuningError: the number of one of them is beyond the embeddings.
    """
    rows = len(model.get_input_embeddings().weight)
    for attribute in tokenizer.SPECIAL_TOKENS_ATTRIBUTES:
        token, number = getattr(tokenizer, attribute, None), getattr(tokenizer, f"{attribute}_id", None)
        if isinstance(number, int) and number >= rows and not (attribute == "unk_token" and _knows_all(tokenizer)):
            raise FinetuningError(
                f"{where}: base_model: the tokenizer's {attribute} {token!r} has the number {number}, and the model's "
                f"embeddings have {rows} rows (0 to {rows - 1}). Name another {attribute} in tokenizer_config.json, "
                "one that has a row (a pad_token may be the eos_token), or give the model rows "
                "(resize_token_embeddings) and save both."
            )
    for file, config in (("config.json", model.config), ("generation_config.json", model.generation_config)):
        for key in TOKENS:
            require_row(getattr(config, key, None), rows, f"{where}: base_model: {file}: {key}")


def _knows_all(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether no text has a piece that the tokenizer does not know, as with one that falls back on bytes."""
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    return model is not None and getattr(model, "unk_token", None) is None


def require_row(numbers: Any, rows: int, key: str) -> None:
    """Check that the embeddings have a row for one token's number, or for each of several.

    Raises:
        FinetuningError: they have none.
    """
    for number in numbers if isinstance(numbers, list) else [numbers]:
        if isinstance(number, int) and number >= rows:
            raise FinetuningError(
                f"{key} is {number}, and the model's embeddings have {rows} rows (0 to {rows - 1}). Write the number "
                "that the tokenizer has for it."
            )


def _some(names: list[str]) -> str:
    """The first of the names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f", and {more} more" if more > 0 else "")
