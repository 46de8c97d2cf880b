"""Tiny random models of the architectures that recipes name, built from their config classes."""

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from tests.conftest import train_tiny_tokenizer

# Zephyr's own form of turns, which end with the end-of-text token.
ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {"intermediate_size": 128}

# The architecture of each shipped recipe's base model.
CONFIGS: dict[str, tuple[type[PreTrainedConfig], dict]] = {
    # Multi-query attention and parallel blocks, as the 7B has them.
    "falcon-7b": (FalconConfig, {"multi_query": True, "parallel_attn": True, "bias": False}),
    "falcon-7b-saqr": (FalconConfig, {"multi_query": True, "parallel_attn": True, "bias": False}),
    "phi-2": (PhiConfig, {**WIDE, "partial_rotary_factor": 0.5}),
    "mistral-7b-fennec": (MistralConfig, {**WIDE, "num_key_value_heads": 2, "sliding_window": None}),
    "zephyr-7b-beta": (MistralConfig, {**WIDE, "num_key_value_heads": 2, "sliding_window": 64}),
    "gemma-2b": (GemmaConfig, {**WIDE, "num_key_value_heads": 1, "head_dim": 32}),
    "smollm2-135m": (LlamaConfig, {**WIDE, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen": (Qwen2Config, {**WIDE, "num_key_value_heads": 2}),
}


def save_tiny_model(name: str, folder: Path, chat_template: str | None = None) -> Path:
    """`folder`, which then holds safetensors, configuration and tokenizer of a random model like `name`'s."""
    torch.manual_seed(0)
    tokenizer = train_tiny_tokenizer()
    tokenizer.chat_template = chat_template
    config_class, particulars = CONFIGS[name]
    config = config_class(
        **SMALL,
        **particulars,
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
