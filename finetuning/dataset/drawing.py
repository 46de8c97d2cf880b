"""Draws some rows of a source by the seed of the data set."""

import hashlib

import numpy as np

from finetuning.errors import FinetuningError
from finetuning.public_names import without_secrets
from finetuning.recipe.source import SourceSpec


def seed_of(seed: int, stream: str) -> int:
    """The seed of one source's draws; `stream` is what its rows are for, such as `train-00`."""
    return int.from_bytes(hashlib.sha256(f"{seed} {stream}".encode()).digest()[:8])


def chosen_rows(there: int, source: SourceSpec, drawn: int, where: str) -> np.ndarray:
    """The indices, from 0 and rising, of `source.rows` rows out of those `there`; each set of them is equally likely.

    Raises:
        FinetuningError: there are fewer, and the source does not say `at_most`.
    """
    wanted = int(source.rows or 0)
    if wanted > there and not source.at_most:
        raise too_few(there, source, where)
    return np.sort(np.random.default_rng(drawn).choice(there, min(wanted, there), replace=False, shuffle=False))


def too_few(there: int, source: SourceSpec, where: str) -> FinetuningError:
    """The error of a source that has no more than `there` rows."""
    return FinetuningError(
        f"{where}.rows: {source.rows} rows are asked for, and {describe(source)} has {there}. Ask for at most that "
        "many, write `at_most: true`, or leave `rows` out to take them all."
    )


def describe(source: SourceSpec) -> str:
    """The source in a few words: `openai/gsm8k (main, train)`, `data/*.jsonl`, `feedback maths`, `linear-equations`."""
    if source.hub:
        return f"{source.hub} ({', '.join(filter(None, [source.config, source.split]))})"
    if source.feedback:
        return f"feedback {source.feedback}"
    return ", ".join(map(without_secrets, source.files)) if source.files else str(source.generator)
