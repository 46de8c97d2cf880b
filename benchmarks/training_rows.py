"""Makes up questions with answers that are about as long, and differ as much in length, as those of GSM8K.

{"messages": [{"role": "user", "content": "There 412 of mintly …?"}, {"role": "assistant", "content": "Stardment …."}]}
"""

import json
from pathlib import Path

import numpy as np

from benchmarks.conversations import vocabulary

MEDIAN_WORDS = 49  # of question and answer; as ChatML, their mean is about 104 tokens
SPREAD = 0.38  # of the logarithm of that number
ANSWER = (0.45, 0.65)  # its share of the words
NUMBERS = 0.1  # of all words
SHORTEST_WORDS = 3


def write(path: Path, rows: int, seed: int = 42) -> Path:
    """The JSONL file `path`, which then holds so many rows; the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    words = MEDIAN_WORDS * rng.lognormal(0, SPREAD, rows)
    answered = words * rng.uniform(*ANSWER, rows)
    with path.open("w", encoding="utf-8") as file:
        for question, answer in zip((words - answered).tolist(), answered.tolist(), strict=True):
            messages = [
                {"role": "user", "content": f"{_text(rng, question)}?"},
                {"role": "assistant", "content": f"{_text(rng, answer)}."},
            ]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return path


def _text(rng: np.random.Generator, length: float) -> str:
    count = max(SHORTEST_WORDS, round(length))
    lower, _, cumulative = vocabulary()
    words = lower[np.searchsorted(cumulative, rng.random(count))]
    numbers = np.flatnonzero(rng.random(count) < NUMBERS)
    words[numbers] = [str(number) for number in rng.integers(2, 1_000, len(numbers)).tolist()]
    text = " ".join(words.tolist())
    return text[0].upper() + text[1:]
