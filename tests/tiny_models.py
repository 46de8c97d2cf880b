"""Tiny random models of the architectures that recipes name, built from their config classes.

>>> save_tiny_model("gemma-3", tmp_path)  # a folder that `from_pretrained` reads
"""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from tests.conftest import train_tiny_tokenizer

# Zephyr's own form of turns, which end with the end-of-text token.
ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {"intermediate_size": 128}

# As Llama 3 stretches its positions.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# A layer that looks back 16 tokens, and one that looks back to the start.
GEMMA = {
    **WIDE,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"],
}

# The architecture of each shipped recipe's base model, then others that users bring.
CONFIGS: dict[str, tuple[type[PreTrainedConfig], dict]] = {
    # Multi-query attention and parallel blocks, as the 7B has them.
    "falcon-7b": (FalconConfig, {"multi_query": True, "parallel_attn": True, "bias": False}),
    "falcon-7b-saqr": (FalconConfig, {"multi_query": True, "parallel_attn": True, "bias": False}),
    "phi-2": (PhiConfig, {**WIDE, "partial_rotary_factor": 0.5}),
    "mistral-7b-fennec": (MistralConfig, {**WIDE, "num_key_value_heads": 2, "sliding_window": None}),
    "zephyr-7b-beta": (MistralConfig, {**WIDE, "num_key_value_heads": 2, "sliding_window": 64}),
    "gemma-2b": (GemmaConfig, {**WIDE, "num_key_value_heads": 1, "head_dim": 32}),
    "smollm2-135m": (LlamaConfig, {**WIDE, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "llama-3": (LlamaConfig, {**WIDE, "num_key_value_heads": 2, "rope_parameters": LLAMA3_ROPE}),
    "qwen-2": (Qwen2Config, {**WIDE, "num_key_value_heads": 2}),
    "qwen-3": (Qwen3Config, {**WIDE, "num_key_value_heads": 2, "head_dim": 32}),
    "gemma-2": (Gemma2Config, GEMMA),
    "gemma-3": (Gemma3TextConfig, GEMMA),
}


def save_tiny_model(name: str, folder: Path, chat_template: str | None = None, **settings: Any) -> Path:
    """`folder`, which then holds safetensors, configuration and tokenizer of a random model like `name`'s.

    `settings` go to the configuration beside those of `CONFIGS`.
    """
    torch.manual_seed(0)
    tokenizer = train_tiny_tokenizer()
    tokenizer.chat_template = chat_template
    config_class, particulars = CONFIGS[name]
    vocabulary = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = config_class(**{**SMALL, **particulars, **vocabulary, "max_position_embeddings": 512, **settings})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
