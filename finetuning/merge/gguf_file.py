"""A model as one GGUF file, which llama.cpp and the programs that are built on it read, and transformers again.

write_gguf(folder, folder / "phi-2.q8_0.gguf", "q8_0")    # folder: config.json, safetensors, tokenizer

An architecture has its own names and layouts of weights there, and whoever reads a file takes what it does not say to
be as in the architecture's first model. So only families are exported of which a test reads a file back, and of them
only models that are read back with the settings that they have.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from gguf import (
    GGML_QUANT_SIZES,
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFWriter,
    LlamaFileType,
    get_tensor_name_map,
)
from gguf.quants import quant_shape_to_byte_shape, quantize
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from finetuning.chat.tokenization import token_ids
from finetuning.errors import FinetuningError
from finetuning.merge.gguf_vocabulary import add_vocabulary, read_space_prefix
from finetuning.recipe.merge import GgufType

# By transformers' model type.
FAMILIES = {
    "gemma2": MODEL_ARCH.GEMMA2,
    "gemma3_text": MODEL_ARCH.GEMMA3,
    "llama": MODEL_ARCH.LLAMA,
    "mistral": MODEL_ARCH.LLAMA,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
}
TYPES = {
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
# Of a configuration, what no token that the model says depends on; whether the head is the embeddings, and how many
# positions the model was trained for, are told otherwise.
WITHOUT_EFFECT = {
    "_model_name_or_path",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "initializer_range",
    "max_position_embeddings",
    "max_window_layers",
    "model_type",
    "pad_token_id",
    "pretraining_tp",
    "tie_word_embeddings",
    "transformers_version",
    "unk_token_id",
    "use_cache",
}
# Words, numbers, spaces, line breaks, code, other scripts, and characters of several bytes.
TEXTS = [
    "Solve for x: 3 - 47 = -2x + 1990.5",
    "  two spaces,\ttabs\n\n\nand lines ",
    "I've said it's DON'T, we'll see… naïve café",
    "for i in range(10):\n    print(i ** 2, f'{i!r}')\n",
    "速い茶色の狐 Быстрая лиса ثعلب 🚀👩‍👩‍👧",
]


@dataclass(frozen=True)
class Tensor:
    """One weight: where it lies, and how it is called and stored in the GGUF file."""

    source: Path
    name: str
    gguf_name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType


def write_gguf(folder: Path, file: Path, type: GgufType) -> None:
    """Write the model and the tokenizer of `folder` to `file`, with one weight at a time in memory.

    Raises:
        FinetuningError: a GGUF file cannot hold this model; `require_exportable` tells that beforehand.
    """
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tensors = list(tensors_of(folder, config, TYPES[type][0]))
    writer = described(config, tokenizer, file)
    writer.add_file_type(TYPES[type][1])
    writer.add_quantization_version(2)  # of the blocks' layout; there is no other
    for tensor in tensors:
        size = math.prod(quant_shape_to_byte_shape(tensor.shape, tensor.type))
        writer.add_tensor_info(tensor.gguf_name, tensor.shape, np.dtype(np.float32), size, raw_dtype=tensor.type)
    write(writer, tensors, config)


def write(writer: GGUFWriter, tensors: list[Tensor], config: PreTrainedConfig) -> None:
    """Write the file of `writer`, with these weights."""
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(quantize(weight_of(tensor, config), tensor.type))
    finally:
        writer.close()


def require_exportable(base_model: Path, tokenizer: Path, where: str) -> None:
    """Check that a GGUF file of such a model is read back with the same settings, and gives the same tokens.

    It reads no weights, so that a training need not end with the news.

    Args:
        base_model: folder of the base model, whose adapter will be merged into it.
        tokenizer: folder of the adapter's tokenizer.
        where: the recipe's file.

    Raises:
        FinetuningError: it is of another family, or a file would not tell all of it.
    """
    try:
        with TemporaryDirectory() as folder:
            _require_read_back(base_model, tokenizer, Path(folder) / "no-weights.gguf")
    except FinetuningError as error:
        raise FinetuningError(f"{where}: merge.gguf: {error}. Write `gguf: null` for safetensors alone.") from error


def _require_read_back(base_model: Path, tokenizer_folder: Path, file: Path) -> None:
    model_type = json.loads((base_model / "config.json").read_text())["model_type"]
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise FinetuningError(f"models of type {model_type} cannot be exported; those that can: {known}")
    config, tokenizer = AutoConfig.from_pretrained(base_model), AutoTokenizer.from_pretrained(tokenizer_folder)
    config.vocab_size = max(config.vocab_size, len(tokenizer))  # the embeddings will have grown by then
    write(described(config, tokenizer, file), [], config)
    require_same_settings(config, file)
    require_same_tokens(tokenizer, file)


def described(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, file: Path) -> GGUFWriter:
    """A writer of `file` that knows the model's settings and its tokenizer, and no weights yet.

    Raises:
        FinetuningError: a GGUF file cannot hold the tokenizer.
    """
    writer = GGUFWriter(file, MODEL_ARCH_NAMES[FAMILIES[config.model_type]])
    writer.add_type("model")
    writer.add_name(file.stem)
    add_settings(writer, config)
    add_vocabulary(writer, tokenizer, config.vocab_size)
    return writer


def add_settings(writer: GGUFWriter, config: Any) -> None:
    """Hand the numbers of the architecture to `writer`."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = rope_of(config, "full_attention")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(positions_of(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(rope["rope_theta"])
    if config.model_type in ("gemma2", "gemma3_text"):
        writer.add_sliding_window(config.sliding_window)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def rope_of(config: Any, layer_type: str) -> Mapping[str, Any]:
    """The settings of the rotary positions; of those layers, where they differ."""
    return config.rope_parameters.get(layer_type, config.rope_parameters)


def positions_of(config: Any) -> int:
    """How many tokens a text may have. Llama's layers look back without bound, so Mistral's window is one."""
    window = config.sliding_window if config.model_type == "mistral" else None
    return min(config.max_position_embeddings, window or config.max_position_embeddings)


def tensors_of(folder: Path, config: PreTrainedConfig, type: GGMLQuantizationType) -> Iterator[Tensor]:
    """Every weight of the model in `folder`.

    Norms and biases stay in float32, as all readers expect; so do, in float16, rows that cannot be cut into blocks.

    Raises:
        FinetuningError: a weight has no place in the family's files.
    """
    names = get_tensor_name_map(FAMILIES[config.model_type], config.num_hidden_layers)
    for source in sorted(folder.glob("*.safetensors")):
        with safe_open(source, "pt") as file:
            for name in file.keys():  # noqa: SIM118 # no dictionary
                gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
                if gguf_name is None:
                    raise FinetuningError(f"{source}: {name} has no place in a GGUF file of {config.model_type}")
                shape = tuple(file.get_slice(name).get_shape())
                yield Tensor(source, name, gguf_name, shape, type_of(shape, type))


def type_of(shape: tuple[int, ...], type: GGMLQuantizationType) -> GGMLQuantizationType:
    """How a weight of that shape is stored in a file of that type."""
    if len(shape) < 2:
        return GGMLQuantizationType.F32
    return type if shape[-1] % GGML_QUANT_SIZES[type][0] == 0 else GGMLQuantizationType.F16


def weight_of(tensor: Tensor, config: Any) -> np.ndarray:
    """The weight in float32, laid out as GGUF files of its family have it."""
    with safe_open(tensor.source, "pt") as file:
        weight = file.get_tensor(tensor.name).to(torch.float32)
    if FAMILIES[config.model_type] is MODEL_ARCH.LLAMA:
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for name, count in heads.items():
            if f".{name}." in tensor.name:
                weight = interleaved(weight, count)
    if config.model_type.startswith("gemma") and tensor.name.endswith("norm.weight"):
        weight = weight + 1  # Gemma multiplies by one more than the weight
    return weight.contiguous().numpy()


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows of each head with the two halves of it taken in turn: what Llama's own code rotates, and llama.cpp."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def require_same_settings(config: PreTrainedConfig, file: Path) -> None:
    """Check that whoever reads the file computes with the settings of `config`.

    Raises:
        FinetuningError: the file does not say one of them, and its readers take another value for it.
    """
    ours, theirs = config.to_dict(), AutoConfig.from_pretrained(file.parent, gguf_file=file.name).to_dict()
    for key in sorted(ours.keys() & theirs.keys() - WITHOUT_EFFECT):
        if not same(ours[key], theirs[key]):
            raise FinetuningError(
                f"this model has {key}: {ours[key]}, and who reads it from a GGUF file of {config.model_type} would "
                f"take {theirs[key]}"
            )


def same(ours: Any, theirs: Any) -> bool:
    """Whether two settings are equal; numbers lie in the file as float32."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=1e-6)
    return ours == theirs


def require_same_tokens(tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    """Check that the file's tokenizer gives the same tokens, of texts and of a conversation in the chat template.

    Raises:
        FinetuningError: it gives others.
    """
    theirs = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    if theirs.chat_template != tokenizer.get_chat_template():
        raise FinetuningError("the chat template is another one in the file")
    read_space_prefix(tokenizer, theirs)
    turns = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, TEXTS, strict=False)]
    texts = [*TEXTS, str(tokenizer.apply_chat_template(turns, tokenize=False))]
    for text, ours, found in zip(texts, token_ids(tokenizer, texts), token_ids(theirs, texts), strict=True):
        if ours != found:
            pairs = enumerate(zip(ours, found, strict=False))
            place = next((i for i, (a, b) in pairs if a != b), min(len(ours), len(found)))
            raise FinetuningError(
                f"the file's tokenizer splits {text!r} otherwise, from token {place} on: "
                f"{theirs.convert_ids_to_tokens(found[place:][:5])} in place of "
                f"{tokenizer.convert_ids_to_tokens(ours[place:][:5])}"
            )
