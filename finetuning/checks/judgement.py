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
    "refused_rows": "No more conversations are such that the chat template does not take them than the recipe allows.",
    "max_length": "No more rows are longer than the model is trained on than the recipe allows.",
    "supervision": "Of every row something is learned, and not everything: the prompt is not.",
    "stop_token": "Every answer ends in the token that tells the model to stop, and that token is learned.",
    "bos_token": "Every row begins with the token that the model has always seen at a beginning, and has it once.",
    "duplicates": "No row is there twice, but for white space.",
    "near_duplicates": "No row is nearly the same as another one.",
    "overlap": "No question that the model is examined with is among those that it learns from.",
    "secrets": "No text looks like a password, a key or a token.",
    "special_tokens": "No text spells out one of the marks that separate turns.",
    "round_trip": "Tokens turn back into the text that they were made of.",
    "eval_size": "There are as many rows to examine the model with as the recipe asks for.",
    "eval_likeness": "The rows that the model is examined with are like those that it learns from.",
}
DOCUMENT_CHECKS = {
    "unreadable_documents": "Text was read from every document, or from no fewer than the recipe allows."
}
PASSAGE_CHECKS = {"cut_passages": "Every passage ends where a paragraph does."}
# Of recipes with `knowledge` alone.
KNOWLEDGE_CHECKS = {
    "evidence": "Every row's evidence is in a passage of the document that it names.",
    "document_leak": "No document that the model is examined about is among those that it learns about.",
}
# What each check found, and what to do. `{rows}` is how many rows, `{of}` of how many.
FOUND = {
    "unreadable_rows": "no row can be read from {rows} of {of} lines",
    "bad_rows": "{rows} of {of} rows hold no conversation",
    "refused_rows": "{rows} of {of} rows are left out, for the chat template does not take them",
    "max_length": "{rows} of {of} rows are longer than chat.max_length",
    "supervision": "of {rows} of {of} rows nothing is learned, or everything, the prompt too",
    "stop_token": "{rows} of {of} rows have an answer whose stop token is not learned",
    "bos_token": "{rows} of {of} rows do not begin with exactly one begin-of-sequence token",
    "duplicates": "{rows} of {of} rows repeat another one word for word, white space aside",
    "near_duplicates": "{rows} of {of} rows nearly repeat another one",
    "overlap": "the questions of {rows} of {of} train rows are in eval as well, word for word or nearly",
    "secrets": "{rows} of {of} rows hold text that looks like a secret",
    "special_tokens": "{rows} of {of} rows spell out a special token, which is learned as plain text",
    "round_trip": "the tokens of {rows} of {of} rows do not decode to the text that they encode",
    "unreadable_documents": "no text can be read from {rows} of {of} documents",
    "cut_passages": "{rows} of {of} passages end within a paragraph",
    "evidence": "of {rows} of {of} rows no passage has the evidence",
    "document_leak": "{rows} of {of} rows are about a document that eval asks about as well",
    "eval_size": "eval is {rows} of {of} rows away from what is asked for",
    "eval_likeness": "{rows} of {of} eval rows would have to be others for eval to be like train",
}
# What was found instead where the most frequent reason begins so.
FOUND_OF_REASON = {
    "chosen and rejected": "{rows} of {of} rows hold no two answers to compare",
    "no answer in it is to be learned": "{rows} of {of} rows are left out, for none of their answers is to be learned",
}
REMEDY = {
    "unreadable_rows": "Mend those lines, which unreadable.parquet lists",
    "bad_rows": "Mend those rows or take them out of the data; dropped.parquet lists them",
    "refused_rows": "Write a base_model.chat_template that takes them, or take them out of the data; dropped.parquet "
    "lists them",
    "supervision": "Look at the rows in findings.parquet and at base_model.chat_template",
    "stop_token": "Raise chat.max_length, or write `over_length: drop`",
    "bos_token": "Write {{ bos_token }} once, at the beginning of the chat template",
    "duplicates": "Write `dataset.dedup: exact`",
    "near_duplicates": "Write `dataset.dedup: near`",
    "overlap": "They were left out of train; see whether both are meant to be the same data",
    "secrets": "Take them out of the data: a model may repeat what it learned",
    "special_tokens": "Take them out of the data if they are left over from another chat template",
    "round_trip": "The tokenizer cannot write this text; use another base model, or take these rows out",
    "unreadable_documents": "Mend them or leave them out of `files`; unreadable.parquet lists them",
    "cut_passages": "Raise `knowledge.passages.max_tokens`, as far as the embedding model reads",
    "evidence": "Quote a sentence of the document word for word, and name the document as documents.parquet does; "
    "dropped.parquet lists them",
    "document_leak": "They were left out of train; ask about other documents in eval",
    "eval_size": "Rows that ask the same or nearly the same stay together, and their groups do not add up to what is "
    "asked for. Write `eval: {{fraction: {fraction:.6g}}}`, which is what there is, or name rows of their own in "
    "`dataset.eval.sources`",
    "eval_likeness": "Rows that ask the same or nearly the same go to one side together. Name rows that are like those "
    "to come in `dataset.eval.sources`, or, where eval is as it should be, let it be",
}
# What to do instead where the most frequent reason begins so; `{field}` is where the first row has it.
REMEDY_OF_REASON = {
    "no answer in it is to be learned": "Write a weight of 1 for an answer of each row, take these rows out, or write "
    "`ignore: [weight]` (or train, as the key is called) to learn all answers",
    "a system message, and another one in a column": "Write `ignore: [{field}]` in the source, which leaves that "
    "column out, or take one of the two out of the data",
    "a tool call with the key": "Write its arguments under `arguments`, or `ignore` with that key in the source",
    "an empty list of calls": "Write what the model says where no tool fits, or take these rows out",
    "unknown role": "Call whoever speaks system, user, assistant or tool, or take those turns out",
    "chosen and rejected are the same": "Take them out of the data: there is nothing to tell one answer by",
    "a label that is neither": "Write true or false, or 1 or 0, into {field}",
    "there is no document of that name": "Write the name that documents.parquet has, or its end, into {field}",
    "several documents end in that name": "Write more of its path into {field}",
    "a column is missing": "See whether `columns` of their source names it: {field}",
    "empty answer": "Take them out of the data, or write the answers",
    "not every answer ends in it": "The chat template writes answers that do not end in its stop token: write "
    "`base_model.chat_template: chatml`, or `instruction`",
    "the chat template leaves out the tool": "Write `base_model.chat_template: chatml-tools`, which writes tools, "
    "or another one that does; without one the model cannot learn to call any",
    "the chat template has no place for reasoning_content": "Write `base_model.chat_template: chatml-tools`, which has "
    "one, or the reasoning into content, as <think>…</think>",
    "changes the case": "The tokenizer changes the case of letters, so that the model cannot learn it; use another "
    "base model, or write the data as the tokenizer does",
    "loses spaces": "The tokenizer loses line breaks or indentation, so that the model cannot learn them; use another "
    "base model, or take rows with programs, lists and tables out",
}
# Their rows are not trained on. More than so many of them are no exception, and to let them pass is no remedy; one of
# them alone ends no run of others where some may be.
LEFT_OUT = ("unreadable_rows", "bad_rows", "refused_rows", "max_length", "evidence")
FAULTY = (*LEFT_OUT, "supervision", "stop_token", "bos_token", "round_trip")
MOST_TO_PASS = 0.1
SO_MANY = {
    "bad_rows": "So many are no exception: see whether `format` and `columns` of their source are what the rows have",
    "unreadable_rows": "So many are no exception: see whether the file is of another kind than its name says",
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
    may_be = spec.limit * of
    one = name in LEFT_OUT and 0 < may_be < 1 < of
    passed = rows <= (1 if one else may_be) + ROUNDING
    limit = f"{spec.limit:.2%} may be" + (", and one in any case" if one else "")
    found = next((other for reason, other in FOUND_OF_REASON.items() if counted.reason.startswith(reason)), FOUND[name])
    text = found.format(rows=rows, of=of) + f" ({rows / max(of, 1):.2%}; {limit})"
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
    allowed = f"{math.ceil(share * 10_000) / 10_000:g}" if share < 1 else "1"
    if counted.percentiles is not None:
        return _longer(counted.percentiles, recipe, allowed, share)
    remedy = REMEDY[name].format(fraction=counted.fraction or 0) if name == "eval_size" else REMEDY[name]
    remedy = remedy_of(counted.reason, _field(counted)) or remedy
    if name == "unreadable_rows" and any("UTF-8" in example.detail for example in counted.examples):
        remedy += " (a file in another encoding is converted by `iconv -f ENCODING -t UTF-8 OLD > NEW`)"
    if name not in FAULTY or share <= MOST_TO_PASS:
        return f"{remedy}, or let them pass with `checks: {{{name}: {{limit: {allowed}}}}}`."
    return ". ".join(filter(None, (remedy, SO_MANY.get(name)))) + "."


def remedy_of(reason: str, field: str) -> str:
    """What to do about rows with that reason; empty where nothing is known but to mend them."""
    other = next((remedy for start, remedy in REMEDY_OF_REASON.items() if reason.startswith(start)), "")
    return other.replace("{field}", field)


def _field(counted: Counted) -> str:
    return next((example.field for example in counted.examples if example.detail == counted.reason), "")


def _longer(percentiles: list[int], recipe: Recipe, allowed: str, share: float) -> str:
    longest = percentiles[100]
    enough = percentiles[math.ceil(100 * (1 - recipe.chat.tolerance))]
    text = f"The longest has {longest} tokens. Write `chat: {{max_length: {longest}}}`, which holds them all"
    if enough < longest and recipe.chat.over_length != "error":
        text += f", or `max_length: {enough}`, which holds enough of them"
    if recipe.chat.over_length == "error":
        return text + ", or `over_length: drop`."
    if share > MOST_TO_PASS:
        return text + "."
    what = "cut" if recipe.chat.over_length == "truncate" else "left out"
    return text + f", or have them {what} with `tolerance: {allowed}`."
