"""How many tokens a model reads at most, by its configuration, with what stretches its positions (RoPE scaling).

{"max_position_embeddings": 32768, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}} -> 131072
"""

from collections.abc import Iterator, Mapping
from typing import Any

# Of current models, of GPT-2, and of MPT.
LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len")


def positions_of(config: Mapping[str, Any]) -> int | None:
    """The most tokens that a model of that `config.json` reads at once; None where it names no limit."""
    nested = config.get("text_config")
    config = nested if isinstance(nested, Mapping) else config
    limit = next((config[key] for key in LIMITS if isinstance(config.get(key), int)), None)
    if limit is None or config.get("alibi") is True:
        return None
    return max([limit, *(int(_stretched(rope, limit)) for rope in _ropes(config))])


def _ropes(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """How positions are stretched: for all layers alike, or for each kind of layer."""
    for key in ("rope_parameters", "rope_scaling"):
        found = config.get(key)
        if isinstance(found, Mapping):
            yield found
            yield from (value for value in found.values() if isinstance(value, Mapping))


def _stretched(rope: Mapping[str, Any], limit: int) -> float:
    kind, factor = rope.get("rope_type", rope.get("type")), rope.get("factor")
    if kind not in ("linear", "dynamic", "yarn") or not isinstance(factor, (int, float)):
        return limit  # which others, such as llama3 and longrope, have stretched already
    original = rope.get("original_max_position_embeddings")
    return factor * (original if isinstance(original, int) else limit)
