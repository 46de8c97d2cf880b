"""Rules between sections of a recipe: keys that are right by themselves and do not go together.

They read the data as the file has it, so that they are found beside whatever else is wrong there.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from finetuning.recipe.mistakes import KeyPath

LONGEST_NAME = 96  # of a repo on the Hub


def contradictions(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """The place of each contradiction in a recipe's data, and what to do about it."""
    base_model, training, dataset = (_section(data, name) for name in ("base_model", "training", "dataset"))
    yield from _packing(base_model, training)
    if base_model.get("dtype") == "float16" and training.get("bf16", True) is True:
        yield ("training", "bf16"), "true with base_model.dtype float16; write bf16: false, or dtype: bfloat16"
    quantization = base_model.get("quantization")
    in_8_bits = isinstance(quantization, Mapping) and quantization.get("bits") == 8
    is_fsdp = _section(data, "resources").get("strategy") == "fsdp"
    if is_fsdp and in_8_bits:
        yield (
            ("resources", "strategy"),
            "fsdp, and base_model.quantization has 8 bits, whose layers cannot be divided; write bits: 4, or "
            "strategy: ddp",
        )
    start = _section(data, "lora").get("init_lora_weights")
    if start in ("pissa", "olora") and base_model.get("quantization", {}) is not None:
        yield (
            ("lora", "init_lora_weights"),
            f"{start}, which takes the adapter out of the base model's weights, and these are quantized; write "
            "base_model.quantization: null, or init_lora_weights: true",
        )
    if start in ("pissa", "olora") and is_fsdp and _section(data, "lora").get("use_dora") is True:
        yield (
            ("lora", "use_dora"),
            f"true with init_lora_weights: {start} and resources.strategy: fsdp: such a start cannot be taken off an "
            "adapter of a divided model; write use_dora: false, or strategy: ddp",
        )
    if start == "loftq" and base_model.get("quantization", {}) is None:
        yield (
            ("lora", "init_lora_weights"),
            "loftq, which gives back what quantization takes, and base_model.quantization is null; write "
            "quantization: {bits: 4}, or init_lora_weights: true",
        )
    if start == "loftq" and _section(data, "lora").get("use_dora") is True:
        yield ("lora", "use_dora"), "true with init_lora_weights: loftq, which it would start beside; leave one out"
    yield from _tokens_per_step(training, _section(data, "chat"))
    name = _section(data, "hub").get("repo")
    if data.get("merge") is not None and isinstance(name, str) and len(name) > LONGEST_NAME - len("-merged"):
        yield ("hub", "repo"), f"{name!r} with -merged would be longer than the {LONGEST_NAME} characters of the Hub"
    yield from _overlap(dataset)
    if training.get("method") == "dpo":
        yield from _preference(data)


def _packing(base_model: Mapping[str, Any], training: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    # The flash kernels take the bounds of each sample in a packed row; these two let samples attend to each other.
    allowed = base_model.get("attention", ["sdpa"])
    mixing = [kernel for kernel in ("sdpa", "eager") if isinstance(allowed, list) and kernel in allowed]
    if training.get("packing") is True and mixing:
        yield (
            ("training", "packing"),
            f"true, and base_model.attention allows {' and '.join(mixing)}, which would let packed rows attend to each "
            "other; write packing: false, or allow only flash_attention_2, flash_attention_3, flash_attention_4",
        )


def _tokens_per_step(training: Mapping[str, Any], chat: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    tokens, longest = training.get("tokens_per_step"), chat.get("max_length", 1024)
    if tokens is None:
        return
    for key in ("per_device_train_batch_size", "packing"):
        if training.get(key):
            yield ("training", key), f"{training[key]} beside tokens_per_step, which would overrule it; leave one out"
    sides = 2 if training.get("method") == "dpo" else 1
    if isinstance(tokens, int) and isinstance(longest, int) and tokens < longest * sides:
        answers = f" for each of {sides} answers" if sides > 1 else ""
        yield (
            ("training", "tokens_per_step"),
            f"{tokens}, which is less than one row of chat.max_length ({longest}{answers}) may have; write "
            f"{longest * sides} or more",
        )


def _preference(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What does not go with `training.method: dpo`."""
    training, lora = _section(data, "training"), _section(data, "lora")
    if training.get("packing") is True:
        yield ("training", "packing"), "true with method: dpo, which compares whole rows; write packing: false"
    if training.get("neftune_noise_alpha") is not None:
        yield (
            ("training", "neftune_noise_alpha"),
            "noise with method: dpo, which would compare it with a model that has none; write null",
        )
    # dpo's reference is the model with its adapter switched off, which has to be the model as it was.
    if lora.get("bias", "none") != "none":
        yield (
            ("lora", "bias"),
            f"{lora['bias']} with training.method: dpo, which needs the base model's own; write none",
        )
    if lora.get("init_lora_weights") in ("pissa", "olora", "loftq"):
        yield (
            ("lora", "init_lora_weights"),
            f"{lora['init_lora_weights']} with training.method: dpo, which needs the base model as it was; write true",
        )
    if _section(data, "chat").get("over_length") == "truncate":
        yield (
            ("chat", "over_length"),
            "truncate with training.method: dpo, whose two answers would be cut at different places; write drop",
        )
    yield from _without_preferences(_section(data, "dataset"))


def _without_preferences(dataset: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    for section, path in ((dataset, ("dataset",)), (_section(dataset, "eval"), ("dataset", "eval"))):
        for index, source in enumerate(_sources(section)):
            if source.get("format") not in (None, "preference"):
                yield (
                    (*path, "sources", index, "format"),
                    f"{source['format']} has no rejected answers, and training.method: dpo needs them; write "
                    "preference, or method: sft",
                )


def _overlap(dataset: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    trained = [_origin(source) for source in _sources(dataset)]
    for index, source in enumerate(_sources(_section(dataset, "eval"))):
        if any(_origin(source)[:3]) and _origin(source) in trained:
            yield (
                ("dataset", "eval", "sources", index),
                f"the same rows as dataset.sources[{trained.index(_origin(source))}], so the model would be tested on "
                "what it learned; name another split, or write eval: {fraction: 0.05}",
            )


def _origin(source: Mapping[str, Any]) -> list[Any]:
    return [source.get(key) for key in ("hub", "files", "generator", "config")] + [source.get("split", "train")]


def _sources(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    sources = data.get("sources")
    return [source if isinstance(source, Mapping) else {} for source in sources] if isinstance(sources, list) else []


def _section(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = data.get(name)
    return section if isinstance(section, Mapping) else {}
