"""Judges what was counted in the data: how much of a fault there is, where, and what to do about it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from finetuning.checks.counted import Counted, Example
from finetuning.errors import FinetuningError
from finetuning.recipe.checks import CheckSpec
from finetuning.recipe.recipe import Recipe

EXAMPLES = 5
ROUNDING = 1e-6  # of a row: 0.29 × 100 is less than 29

# What each check looks for, for a reader who is no programmer.
RAW_CHECKS = {"unreadable_rows": "Every line of the sources is a row, or no more are broken than the recipe allows."}
CHAT_CHECKS = {
    "bad_rows": "Every row is a conversation: known roles in a right order, no turn empty, the last one an answer.",
    "max_length": "No more rows are longer than the model is trained on than the recipe allows.",
    "supervision": "Of every row something is learned, and not everything: the prompt is not.",
    "stop_token": "Every answer ends in the token that tells the model to stop, and that token is learned.",
    "bos_token": "Every row begins with the token that the model has always seen at a beginning, and has it once.",
    "duplicates": "No row is there twice.",
    "near_duplicates": "No row is nearly the same as another one.",
    "overlap": "No question that the model is examined with is among those that it learns from.",
    "secrets": "No text looks like a password, a key or a token.",
    "special_tokens": "No text spells out one of the marks that separate turns.",
    "round_trip": "Tokens turn back into the text that they were made of.",
}
# What each check found, and what to do. `{rows}` is how many rows, `{of}` of how many.
FOUND = {
    "unreadable_rows": "no row can be read from {rows} of {of} lines",
    "bad_rows": "{rows} of {of} rows hold no conversation",
    "max_length": "{rows} of {of} rows are longer than chat.max_length",
    "supervision": "of {rows} of {of} rows nothing is learned, or everything, the prompt too",
    "stop_token": "{rows} of {of} rows have an answer whose stop token is not learned",
    "bos_token": "{rows} of {of} rows do not begin with exactly one begin-of-sequence token",
    "duplicates": "{rows} of {of} rows repeat another one word for word",
    "near_duplicates": "{rows} of {of} rows nearly repeat another one",
    "overlap": "the questions of {rows} of {of} train rows are in eval as well, word for word or nearly",
    "secrets": "{rows} of {of} rows hold text that looks like a secret",
    "special_tokens": "{rows} of {of} rows spell out a special token, which is learned as plain text",
    "round_trip": "the tokens of {rows} of {of} rows do not decode to the text that they encode",
}
REMEDY = {
    "unreadable_rows": "Mend those lines, which unreadable.parquet lists",
    "bad_rows": "Mend those rows, which dropped.parquet lists",
    "supervision": "Look at the preview and at base_model.chat_template",
    "stop_token": "Raise chat.max_length, or write `over_length: drop`",
    "bos_token": "Write {{{{ bos_token }}}} once, at the beginning of the chat template",
    "duplicates": "Write `dataset.dedup: exact`",
    "near_duplicates": "Write `dataset.dedup: near`",
    "overlap": "They were left out of train; see whether both are meant to be the same data",
    "secrets": "Take them out of the data: a model may repeat what it learned",
    "special_tokens": "Take them out of the data if they are left over from another chat template",
    "round_trip": "The tokenizer does not know this text; use another base model, or take these rows out",
}


@dataclass(frozen=True)
class Judgement:
    """What one check says of the data."""

    name: str
    passed: bool
    severity: str
    rows: int
    of: int
    limit: float
    text: str
    examples: list[Example]


def judge(counted: Mapping[str, Counted], recipe: Recipe) -> list[Judgement]:
    """Judge what each check counted, by the limits of the recipe."""
    return [_judge(name, found, recipe) for name, found in counted.items()]


def require(judgements: Iterable[Judgement]) -> None:
    """Raise an error where a fault is worse than the recipe lets pass.

    Raises:
        FinetuningError: a line for each fault that ends the run.
    """
    failed = [judgement.text for judgement in judgements if not judgement.passed and judgement.severity == "error"]
    if failed:
        raise FinetuningError("\n".join(failed))


def _judge(name: str, counted: Counted, recipe: Recipe) -> Judgement:
    spec = _spec(name, recipe)
    rows, of, examples = counted.rows, counted.of, counted.examples
    passed = rows <= spec.limit * of + ROUNDING
    text = FOUND[name].format(rows=rows, of=of) + f" ({rows / max(of, 1):.2%}; {spec.limit:.2%} may be)"
    if examples:
        text += ": " + "; ".join(_place(example) for example in examples)
        text += "; …" if rows > len(examples) else ""
    if not passed:
        text = f"{recipe.file}: checks.{name}: {text}. {_remedy(name, counted, recipe)}"
    return Judgement(name, passed, spec.severity, rows, of, spec.limit, text, examples)


def _spec(name: str, recipe: Recipe) -> CheckSpec:
    if name != "max_length":
        return getattr(recipe.checks, name)
    return CheckSpec(limit=0.0 if recipe.chat.over_length == "error" else recipe.chat.tolerance)


def _place(example: Example) -> str:
    place = ":".join(filter(None, (example.place, example.field)))
    return f"{place} ({example.detail})" if example.detail else place


def _remedy(name: str, counted: Counted, recipe: Recipe) -> str:
    share = counted.rows / counted.of
    allowed = f"{math.ceil(share * 10_000) / 10_000:g}"
    if counted.percentiles is not None:
        return _longer(counted.percentiles, recipe, allowed)
    return f"{REMEDY[name].format()}, or let them pass with `checks: {{{name}: {{limit: {allowed}}}}}`."


def _longer(percentiles: list[int], recipe: Recipe, allowed: str) -> str:
    longest = percentiles[100]
    enough = percentiles[math.ceil(100 * (1 - recipe.chat.tolerance))]
    text = f"The longest has {longest} tokens. Write `chat: {{max_length: {longest}}}`, which holds them all"
    if enough < longest and recipe.chat.over_length != "error":
        text += f", or `max_length: {enough}`, which holds enough of them"
    if recipe.chat.over_length == "error":
        return text + ", or `over_length: drop`."
    return text + f", or let them pass with `tolerance: {allowed}`."
