"""Rules between sections of a recipe: keys that are right by themselves and do not go together.

They read the data as the file has it, so that they are found beside whatever else is wrong there.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from finetuning.recipe.base_model import KEEP_ROWS_APART
from finetuning.recipe.data_rules import (
    ANSWERS,
    answer_rules,
    format_rules,
    knowledge_rules,
    overlap_rules,
    section_of,
)
from finetuning.recipe.judge import judge_rules
from finetuning.recipe.mistakes import KeyPath
from finetuning.recipe.reward import reward_rules

WHOLE = {"dpo": "compares whole rows", "kto": "judges whole rows"}
# Keys whose product is the rows of a step, with their defaults.
ROWS = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
CUT = {"dpo": "whose two answers would be cut at different places", "kto": "whose answers were judged as they are"}
# Keys of `training` that say how an adapter answers.
OF_EXAM = ("bf16",)
LONGEST_NAME = 96  # of a repo on the Hub


def contradictions(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """The place of each contradiction in a recipe's data, and what to do about it."""
    base_model, training, dataset = (section_of(data, name) for name in ("base_model", "training", "dataset"))
    yield from _packing(base_model, training)
    if base_model.get("dtype") == "float16" and training.get("bf16", True) is True:
        yield ("training", "bf16"), "true with base_model.dtype float16; write bf16: false, or dtype: bfloat16"
    quantization = base_model.get("quantization")
    in_8_bits = isinstance(quantization, Mapping) and quantization.get("bits") == 8
    is_fsdp = section_of(data, "resources").get("strategy") == "fsdp"
    if is_fsdp and in_8_bits:
        yield (
            ("resources", "strategy"),
            "fsdp, and base_model.quantization has 8 bits, whose layers cannot be divided; write bits: 4, or "
            "strategy: ddp",
        )
    start = section_of(data, "lora").get("init_lora_weights")
    if start in ("pissa", "olora") and base_model.get("quantization", {}) is not None:
        yield (
            ("lora", "init_lora_weights"),
            f"{start}, which takes the adapter out of the base model's weights, and these are quantized; write "
            "base_model.quantization: null, or init_lora_weights: true",
        )
    if start in ("pissa", "olora") and is_fsdp and section_of(data, "lora").get("use_dora") is True:
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
    if start == "loftq" and section_of(data, "lora").get("use_dora") is True:
        yield ("lora", "use_dora"), "true with init_lora_weights: loftq, which it would start beside; leave one out"
    if data.get("variants") is not None and dataset.get("dev") is None:
        yield (
            ("variants",),
            "without dataset.dev, so that the rows of the exam would choose; write dataset: {dev: {fraction: 0.1}}",
        )
    yield from _tokens_per_step(training, section_of(data, "chat"))
    yield from _start(data)
    yield from _merge(data)
    warmup, steps = training.get("warmup_steps"), training.get("max_steps")
    if isinstance(warmup, (int, float)) and isinstance(steps, int) and 0 < steps < warmup:
        yield (
            ("training", "warmup_steps"),
            f"{warmup:g}, and the training has {steps} steps (max_steps), so that learning_rate would never be reached"
            "; write fewer, or a share below 1",
        )
    name = section_of(data, "hub").get("repo")
    if data.get("merge") is not None and isinstance(name, str) and len(name) > LONGEST_NAME - len("-merged"):
        yield ("hub", "repo"), f"{name!r} with -merged would be longer than the {LONGEST_NAME} characters of the Hub"
    yield from knowledge_rules(data)
    yield from judge_rules(data)
    yield from overlap_rules(dataset)
    yield from format_rules(dataset, training)
    yield from reward_rules(data)
    if training.get("method") in ANSWERS:
        yield from _comparison(data)


def _packing(base_model: Mapping[str, Any], training: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    allowed = base_model.get("attention", ["sdpa"])
    mixing = [kernel for kernel in ("sdpa", "eager") if isinstance(allowed, list) and kernel in allowed]
    if training.get("packing") is True and mixing:
        yield (
            ("training", "packing"),
            f"true, and base_model.attention allows {' and '.join(mixing)}, which would let packed rows attend to each "
            f"other; write packing: false, or allow only {', '.join(KEEP_ROWS_APART)}",
        )


def _start(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What does not go with `lora.from`."""
    lora, method = section_of(data, "lora"), section_of(data, "training").get("method", "sft")
    if not lora.get("from"):
        return
    start = lora.get("init_lora_weights", True)
    if start is not True:
        yield (
            ("lora", "init_lora_weights"),
            f"{start} beside lora.from, which says where the adapter starts; leave one of the two out",
        )
    if method in ANSWERS:
        yield (
            ("lora", "from"),
            f"an adapter to go on from with training.method: {method}, which compares with the base model as it was; "
            "make one model of the two (merge), and name that in base_model.repo instead",
        )


def _merge(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What does not go with `lora.merge`: all that says how an adapter is trained."""
    lora, training = section_of(data, "lora"), section_of(data, "training")
    if not lora.get("merge"):
        return
    for key in lora:
        if key != "merge":
            yield ("lora", key), "beside lora.merge, where the adapters that are merged decide it; leave it out"
    for key in training:
        if key not in OF_EXAM:
            yield ("training", key), "with lora.merge, which trains nothing; leave it out"
    if data.get("variants") is not None:
        yield (
            ("variants",),
            "with lora.merge, which trains nothing; leave it out, and compare recipes by their exams",
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


def _comparison(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What does not go with `training.method: dpo` or `kto`."""
    training, lora = section_of(data, "training"), section_of(data, "lora")
    method = training["method"]
    if training.get("packing") is True:
        yield ("training", "packing"), f"true with method: {method}, which {WHOLE[method]}; write packing: false"
    if training.get("neftune_noise_alpha") is not None:
        yield (
            ("training", "neftune_noise_alpha"),
            f"noise with method: {method}, which would compare it with a model that has none; write null",
        )
    # The reference is the model with its adapter switched off, which has to be the model as it was.
    if lora.get("bias", "none") != "none":
        yield (
            ("lora", "bias"),
            f"{lora['bias']} with training.method: {method}, which needs the base model's own; write none",
        )
    if lora.get("init_lora_weights") in ("pissa", "olora", "loftq"):
        yield (
            ("lora", "init_lora_weights"),
            f"{lora['init_lora_weights']} with training.method: {method}, which needs the base model as it was; write "
            "true",
        )
    if section_of(data, "chat").get("over_length") == "truncate":
        yield (
            ("chat", "over_length"),
            f"truncate with training.method: {method}, {CUT[method]}; write drop",
        )
    rows, parts = (training.get(key, default) for key, default in ROWS.items())
    if method == "kto" and rows == parts == 1 and training.get("tokens_per_step") is None:
        yield (
            ("training", "per_device_train_batch_size"),
            "1 with method: kto and gradient_accumulation_steps: 1; a step needs several rows, whose answers tell how "
            "far the model has gone as a whole; write 8",
        )
    yield from answer_rules(section_of(data, "dataset"), method)
