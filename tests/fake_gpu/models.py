"""The shapes of the base models of shipped recipes, by recipe.

>>> config_of("phi-2", layers=2).hidden_size
2560
"""

from typing import Any

from transformers import PreTrainedConfig

from tests.tiny_models import CONFIGS, LLAMA3_ROPE, SAME_MODEL, TO_COPY

MISTRAL_7B = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
}
FALCON_7B = {"vocab_size": 65024, "hidden_size": 4544, "num_attention_heads": 71, "num_hidden_layers": 32}
QWEN3_4B = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "num_hidden_layers": 36,
}
SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "num_hidden_layers": 30,
}
SHAPES: dict[str, dict[str, Any]] = {
    "falcon-7b": FALCON_7B,
    "falcon-7b-saqr": FALCON_7B,
    "phi-2": {
        "vocab_size": 51200,
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "partial_rotary_factor": 0.4,
        "resid_pdrop": 0.1,
    },
    "mistral-7b-fennec": MISTRAL_7B,
    "zephyr-7b-beta": MISTRAL_7B | {"sliding_window": 4096},
    "gemma-2b": {
        "vocab_size": 256000,
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_attention_heads": 8,
        "head_dim": 256,
        "num_hidden_layers": 18,
    },
    "smollm2-135m": SMOLLM2,
    "smollm2-135m-grpo": SMOLLM2,
    "smollm2-135m-manuals": SMOLLM2,
    "smollm2-135m-start": SMOLLM2,
    "smollm2-135m-sweep": SMOLLM2,
    "llama-3.2-3b": {
        "vocab_size": 128256,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "rope_parameters": LLAMA3_ROPE | {"factor": 32.0, "original_max_position_embeddings": 8192},
        "num_hidden_layers": 28,
    },
    "qwen3-4b-thinking": QWEN3_4B,
    "qwen3-4b-tools": QWEN3_4B,
    "qwen2.5-1.5b-tools": {
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_attention_heads": 12,
        "num_hidden_layers": 28,
    },
    "gemma-3-1b": {
        "vocab_size": 262144,
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "sliding_window": 512,
        "num_hidden_layers": 26,
    },
    "smollm3-3b": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "num_hidden_layers": 36,
    },
    "phi-4-mini": {
        "vocab_size": 200064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "num_hidden_layers": 32,
    },
    "gpt-oss-20b": {
        "vocab_size": 201088,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "num_local_experts": 32,
        "num_experts_per_tok": 4,
        "num_hidden_layers": 24,
    },
    "mistral-small-24b": {
        "vocab_size": 131072,
        "hidden_size": 5120,
        "intermediate_size": 32768,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "num_hidden_layers": 40,
    },
}


def config_of(recipe: str, layers: int | None = None) -> PreTrainedConfig:
    """The configuration of that recipe's base model, with so many layers or all."""
    config_class, particulars = (CONFIGS | TO_COPY)[SAME_MODEL.get(recipe, recipe)]
    settings = particulars | SHAPES[recipe]
    kinds = settings.pop("layer_types", None)
    count = layers or settings["num_hidden_layers"]
    alternating = {"layer_types": [kinds[i % len(kinds)] for i in range(count)]} if kinds else {}
    settings |= {"no_rope_layers": [1] * count} if "no_rope_layers" in settings else {}
    return config_class(**settings | {"num_hidden_layers": count, "max_position_embeddings": 8192} | alternating)
