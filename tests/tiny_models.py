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
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

from tests.conftest import train_tiny_tokenizer
from tests.native_templates import NATIVE, ZEPHYR, Native

__all__ = ["CONFIGS", "OTHERS", "SAME_MODEL", "TO_COPY", "ZEPHYR", "save_native_model", "save_tiny_model", "talkative"]

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {"intermediate_size": 128}
EXPERTS = {"num_key_value_heads": 2, "head_dim": 32, "num_experts_per_tok": 2}

# As Llama 3 stretches its positions.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LLAMA3 = {**WIDE, "num_key_value_heads": 2, "rope_parameters": LLAMA3_ROPE}
QWEN3 = {**WIDE, "num_key_value_heads": 2, "head_dim": 32}
GPT_OSS = {**EXPERTS, "intermediate_size": 64, "num_local_experts": 4}
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
    "llama-3": (LlamaConfig, LLAMA3),
    "qwen-2": (Qwen2Config, {**WIDE, "num_key_value_heads": 2}),
    "qwen-3": (Qwen3Config, QWEN3),
    "gemma-2": (Gemma2Config, GEMMA),
    "gemma-3": (Gemma3TextConfig, GEMMA),
}
# The architecture of each recipe that is shipped to be copied for a model of today.
TO_COPY: dict[str, tuple[type[PreTrainedConfig], dict]] = {
    "llama-3.2-3b": (LlamaConfig, {**LLAMA3, "tie_word_embeddings": True}),
    "qwen3-4b-thinking": (Qwen3Config, {**QWEN3, "tie_word_embeddings": True}),
    "qwen3-4b-tools": (Qwen3Config, {**QWEN3, "tie_word_embeddings": True}),
    "qwen2.5-1.5b-tools": (Qwen2Config, {**WIDE, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "gemma-3-1b": (Gemma3TextConfig, GEMMA),
    # A layer that knows no positions after those that do.
    "smollm3-3b": (SmolLM3Config, {**WIDE, "num_key_value_heads": 2, "no_rope_layers": [1, 0]}),
    # One layer for the three projections of the attention, and one for both of the block's first half.
    "phi-4-mini": (Phi3Config, {**WIDE, "num_key_value_heads": 2, "partial_rotary_factor": 0.75}),
    "gpt-oss-20b": (GptOssConfig, GPT_OSS),
    "mistral-small-24b": (MistralConfig, {**WIDE, "num_key_value_heads": 2, "head_dim": 32, "sliding_window": None}),
}
# Those whose layers are kept in another way than as linear ones.
OTHERS: dict[str, tuple[type[PreTrainedConfig], dict]] = {
    "gpt-2": (GPT2Config, {}),
    # Experts whose weights are one parameter of three dimensions.
    "mixtral": (MixtralConfig, {**WIDE, "num_key_value_heads": 2, "num_local_experts": 4}),
    "qwen-3-moe": (Qwen3MoeConfig, {**WIDE, **EXPERTS, "num_experts": 4, "moe_intermediate_size": 128}),
    "gpt-oss": (GptOssConfig, GPT_OSS),
}


# Recipes whose base model another recipe has too.
SAME_MODEL = dict.fromkeys(
    ("smollm2-135m-grpo", "smollm2-135m-manuals", "smollm2-135m-start", "smollm2-135m-sweep"), "smollm2-135m"
)


def save_native_model(recipe: str, folder: Path) -> Path:
    """`folder`, which then holds a random model like that recipe's, with the chat template and the marks of its own."""
    return save_tiny_model(recipe, folder, NATIVE.get(recipe, ZEPHYR), max_position_embeddings=2048)


def save_tiny_model(name: str, folder: Path, chat_template: str | Native | None = None, **settings: Any) -> Path:
    """`folder`, which then holds safetensors, configuration and tokenizer of a random model like `name`'s.

    `settings` go to the configuration beside those of `CONFIGS`, `OTHERS` or `TO_COPY`.
    """
    torch.manual_seed(0)
    tokenizer = train_tiny_tokenizer()
    if isinstance(chat_template, Native):
        tokenizer.add_tokens(chat_template.marks, special_tokens=True)
        tokenizer.eos_token = chat_template.eos or tokenizer.eos_token
        chat_template = chat_template.text
    tokenizer.chat_template = chat_template
    config_class, particulars = (CONFIGS | OTHERS | TO_COPY)[SAME_MODEL.get(name, name)]
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


def talkative(folder: Path) -> Path:
    """`folder`, whose model then says something else to everything.

    A fresh model says the same to everything, and one whose embeddings outweigh the rest repeats the last token.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.05 if "embed" in name else 0.4)
        elif "norm" not in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    return folder
