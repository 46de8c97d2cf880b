"""Makes up chat conversations that tokenize like real ones: the same seed gives the same rows, and no two are equal.

{"messages": [{"role": "user", "content": "Is the mintly 412 of …?"}, {"role": "assistant", "content": "Stardment, …"}]}
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

BATCH_ROWS = 5_000
VOCABULARY_WORDS = 30_000
SINGLE_TURN = 0.7
MOST_TURNS = 4
QUESTION_WORDS, ANSWER_WORDS = 9, 21  # medians; the lengths are log-normal, so that the means are higher
SHORTEST_WORDS, LONGEST_WORDS = 5, 400
SPREAD = 0.5
NUMBERS = 0.03  # of all words
CODE = 0.08  # of all answers
FOREIGN = 0.01  # of the vocabulary
COMMON = """
    the of and to a in is that it for you with on as are this be have or by can from not your which an at one but if all
    will more when there use what has they other would so time each number how up about out them then some many like
    these into way could people than first been its who now find may part over new work after year where most through
    back much good well also because even any give long right same does show why write list explain example system data
    water model language information world state large between order small important problem school company program
    develop include process result create provide public change point following different
"""
ONSETS = ["b", "c", "ch", "d", "f", "g", "gr", "h", "l", "m", "n", "p", "pr", "r", "s", "sh", "st", "t", "tr", "v", "w"]
VOWELS = ["a", "a", "e", "e", "i", "i", "o", "u", "ea"]
CODAS = ["", "n", "r", "s", "l", "t", "m", "nd", "st"]
SUFFIXES = ["", "", "", "s", "ed", "er", "ing", "ly", "ation", "able", "ment", "ness"]
FOREIGN_ENDINGS = ["é", "ção", "ße", "ů", "ский", "ность", "ής", "の", "語", "한", "ة", "🙂"]
# What follows a word, and how often.
ENDINGS = {" ": 0.8, ", ": 0.08, ". ": 0.07, "; ": 0.01, " – ": 0.01, ".\n": 0.01, ".\n\n": 0.01, ":\n- ": 0.01}
CODE_BLOCK = "\n\n```python\ndef {0}({1}, {2}={n}):\n    # {3} {4}\n    return [{1}[i] * {2} for i in range({n})]\n```"


def write(path: Path, *, rows: int | None = None, size: int | None = None, seed: int = 42) -> int:
    """The number of rows that are now in the JSONL file `path`: `rows` of them, or as many as make `size` bytes."""
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for row in conversations(seed):
            if written == rows or (size is not None and file.tell() >= size):
                break
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += 1
    return written


def conversations(seed: int) -> Iterator[dict[str, Any]]:
    """One row after another, without end."""
    rng = np.random.default_rng(seed)
    while True:
        more = rng.integers(2, MOST_TURNS + 1, BATCH_ROWS)
        turns = np.where(rng.random(BATCH_ROWS) < SINGLE_TURN, 1, more)
        texts = iter(_texts(rng, int(turns.sum())))
        for count in turns.tolist():
            pairs = [next(texts) for _ in range(count)]
            contents = zip(("user", "assistant") * count, (text for pair in pairs for text in pair), strict=True)
            yield {"messages": [{"role": role, "content": content} for role, content in contents]}


def _texts(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """So many questions, each with its answer."""
    medians = np.tile([QUESTION_WORDS, ANSWER_WORDS], count)
    lengths = np.clip(medians * rng.lognormal(0, SPREAD, 2 * count), SHORTEST_WORDS, LONGEST_WORDS).astype(int)
    ends = np.cumsum(lengths)
    words = _words(rng, int(ends[-1]), ends - lengths)
    texts = ["".join(words[end - length : end]).rstrip(" ,.;:–-\n") for end, length in zip(ends, lengths, strict=True)]
    codes = rng.random(count) < CODE
    return [
        (f"{question}?", f"{answer}." + (_code(rng) if code else ""))
        for question, answer, code in zip(texts[::2], texts[1::2], codes, strict=True)
    ]


def _words(rng: np.random.Generator, count: int, firsts: np.ndarray) -> list[str]:
    """Running text, word by word, each with what follows it; a text begins at each of `firsts`."""
    lower, capitalised, cumulative = vocabulary()
    ranks = np.searchsorted(cumulative, rng.random(count))
    endings = rng.choice(len(ENDINGS), size=count, p=list(ENDINGS.values()))
    initial = np.roll(np.array(["." in ending for ending in ENDINGS])[endings], 1)
    initial[firsts] = True
    words = np.where(initial, capitalised[ranks], lower[ranks])
    numbers = np.flatnonzero(rng.random(count) < NUMBERS)
    words[numbers] = [str(number) for number in (10 ** rng.uniform(0, 5, len(numbers))).astype(int).tolist()]
    return (words + np.array(list(ENDINGS), dtype=object)[endings]).tolist()


def _code(rng: np.random.Generator) -> str:
    lower, _, _ = vocabulary()
    return CODE_BLOCK.format(*lower[rng.integers(0, VOCABULARY_WORDS, 5)], n=rng.integers(2, 100))


@cache
def vocabulary() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All words, the most frequent first; the same capitalised; and their cumulative shares, by Zipf's law."""
    rng = np.random.default_rng(0)
    common = COMMON.split()
    words: dict[str, None] = dict.fromkeys(common)
    while len(words) < VOCABULARY_WORDS:
        words[_made_up(rng)] = None
    # Frequent words are short, in every language.
    made_up = sorted(list(words)[len(common) :], key=len)
    lower = np.array([*common, *made_up], dtype=object)
    capitalised = np.array([word.capitalize() for word in lower], dtype=object)
    shares = 1 / np.arange(1, VOCABULARY_WORDS + 1)
    return lower, capitalised, np.cumsum(shares / shares.sum())


def _made_up(rng: np.random.Generator) -> str:
    stem = [ONSETS, VOWELS, CODAS] * int(rng.integers(1, 3))
    parts = [*stem, FOREIGN_ENDINGS if rng.random() < FOREIGN else SUFFIXES]
    return "".join(part[rng.integers(len(part))] for part in parts)
