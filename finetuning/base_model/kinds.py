"""What kind of model lies in a folder, by its small files: an adapter is none, and some are quantized already."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetuning.errors import FinetuningError
from finetuning.recipe.base_model import BaseModelSpec, QuantizationSpec

# By which peft, and transformers with it, knows an adapter; it would be loaded into the model without a word.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")

BITSANDBYTES = "bitsandbytes"

# Ways of quantization out of which transformers brings weights while it reads them.
UNDONE = ("mxfp4", "fp8")


def require_model(spec: BaseModelSpec, folder: Path, where: str) -> None:
    """Check that the folder holds a model, and no adapter, and that the recipe can train it as it is stored.

    Raises:
        FinetuningError: it is an adapter, has one beside its weights, or is quantized in a way that the recipe does
            not ask for, or that nothing can be trained on.
    """
    there = [name for name in ADAPTER_FILES if (folder / name).is_file()]
    name = spec.repo or spec.package
    if there and not (folder / "config.json").is_file() and not spec.gguf:
        base = _read(folder / "adapter_config.json").get("base_model_name_or_path") or "ITS BASE MODEL"
        raise FinetuningError(
            f"{where}: base_model: {name} is an adapter (it has {', '.join(there)}), and no model. Write base_model: "
            f"{{repo: {base}}}; to go on from the adapter, write lora: {{from: {name}}} as well."
        )
    if there:
        raise FinetuningError(
            f"{where}: base_model: {name} has an adapter beside its weights ({', '.join(there)}), which transformers "
            "would load into the model without a word. Move these files into a folder of their own; to go on from that "
            "adapter, name that folder in lora.from."
        )
    config = _read(folder / "config.json")
    rows, pad = config.get("vocab_size"), config.get("pad_token_id")
    if isinstance(rows, int) and isinstance(pad, int) and pad >= rows > 0:
        raise FinetuningError(
            f"{where}: base_model: config.json: pad_token_id is {pad}, and the model's embeddings have {rows} rows "
            f"(0 to {rows - 1}). Write the number that the tokenizer has for it, or null."
        )
    held = stored_quantization(folder)
    if held is not None and not spec.gguf:
        _require_trainable(spec, held, where)


def require_own_code(folder: Path, where: str) -> None:
    """Check that the code which a model's files name is its own: of another repo's no fingerprint knows.

    Raises:
        FinetuningError: one of them names a repo.
    """
    for name in ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        named = _read(folder / name).get("auto_map")
        for by, classes in named.items() if isinstance(named, dict) else ():
            for one in classes if isinstance(classes, list) else [classes]:
                if "--" in str(one):
                    raise FinetuningError(
                        f"{where}: base_model.trust_remote_code: {name}: auto_map.{by} is {one}: code of another repo, "
                        "which may change with nobody told. Copy that file beside the model's own, in a folder that "
                        "base_model.repo names, and write auto_map without the repo."
                    )


def stored_quantization(folder: Path) -> Mapping[str, Any] | None:
    """How the weights in the folder are quantized already, by `config.json`; None for weights in full."""
    held = _read(folder / "config.json").get("quantization_config")
    if isinstance(held, dict) and "quant_method" not in held and (held.get("load_in_4bit") or held.get("load_in_8bit")):
        return {**held, "quant_method": BITSANDBYTES}
    return held if isinstance(held, dict) else None


def _require_trainable(spec: BaseModelSpec, held: Mapping[str, Any], where: str) -> None:
    method, name = str(held.get("quant_method")), spec.repo or spec.package
    if method in UNDONE:
        return
    if method != BITSANDBYTES:
        raise FinetuningError(
            f"{where}: base_model: {name} is quantized already, by {method}, and adapters are not trained on that "
            "here. Name the repo that has the same model in full precision (its card usually links it), or one that "
            "bitsandbytes has quantized; base_model.quantization then says how it is stored while it trains."
        )
    there = quantization_held(held)
    asked = spec.quantization
    if asked is None or (asked.bits, asked.type) != (there.bits, there.type):
        raise FinetuningError(
            f"{where}: base_model.quantization: {_in_words(asked)}, and {name} is quantized already, by bitsandbytes: "
            f"{_in_words(there)}. Write quantization: {_in_words(there)}, or name the repo that has the same model in "
            "full precision."
        )


def quantization_held(held: Mapping[str, Any]) -> QuantizationSpec:
    """The quantization of weights that bitsandbytes has stored, as a recipe would ask for it."""
    if held.get("load_in_8bit"):
        return QuantizationSpec(bits=8)
    nf4 = held.get("bnb_4bit_quant_type") == "nf4"  # fp4 is what transformers has where nothing is said
    return QuantizationSpec(bits=4, type="nf4" if nf4 else "fp4", double=bool(held.get("bnb_4bit_use_double_quant")))


def _in_words(spec: QuantizationSpec | None) -> str:
    if spec is None:
        return "null"
    return f"{{bits: 4, type: {spec.type}}}" if spec.bits == 4 else "{bits: 8}"


def _read(path: Path) -> Mapping[str, Any]:
    """The JSON object in the file; an empty one where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
