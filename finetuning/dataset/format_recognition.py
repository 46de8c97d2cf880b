"""Tells which of the known formats the rows of a source are in, by their columns.

["question", "answer"] -> "question-answer"
["Problem", "Solution"] -> an error that says to write `format: question-answer` and
    `columns: {question: Problem, answer: Solution}`
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue

from finetuning.dataset.drawing import describe
from finetuning.dataset.format_advice import (
    CHOSEN,
    REJECTED,
    TURNS,
    are_turns_of,
    beside_a_text,
    listed,
    needed,
    text_advice,
    unknown,
)
from finetuning.dataset.other_formats import is_judged
from finetuning.dataset.raw_folder import read_sources
from finetuning.dataset.raw_summary import JsonRow
from finetuning.dataset.row_columns import not_ignored
from finetuning.errors import FinetuningError
from finetuning.feedback.rows import FORMATS
from finetuning.recipe.columns import MORE_COLUMNS, OF_A_QUESTION, words_of
from finetuning.recipe.data_rules import ANSWERS
from finetuning.recipe.dataset import DatasetSpec, sources
from finetuning.recipe.method import Method
from finetuning.recipe.mistakes import nearest
from finetuning.recipe.source import FORMAT_COLUMNS, SourceSpec
from finetuning.recipe.spec import in_yaml

# Formats of one answer to a prompt or to what was said before, which may be judged.
JUDGED = ("unpaired-preference", "prompt-completion", "messages", "sharegpt")
SHOWN_CHARACTERS, SHOWN_ENTRIES, SHOWN_DEPTH = 200, 10, 6


def recognise_all(raw_folder: Path, dataset: DatasetSpec, where: str, method: Method = "sft") -> dict[str, str]:
    """Return the format of each source in a folder of raw rows, by its stem; `where` is the recipe's file.

    Args:
        method: `dpo` leaves no choice but `preference`, and `kto` none but `unpaired-preference`, which no other
            method learns from.

    Raises:
        FinetuningError: a source lacks a column of its format, or is in none or several of them.
    """
    named = sources(dataset)
    formats = {}
    for found in read_sources(raw_folder):
        source, path = named[found.stem]
        formats[found.stem] = format_of(found.columns, found.first_row, source, f"{where}: {path}", method)
        if method == "sft" and formats[found.stem] in JUDGED and is_judged(found.first_row, source):
            column = source.columns.get("label", "label")
            raise FinetuningError(
                f"{where}: {path}: {describe(source)} says in {column!r} which answers are good and which are bad, and "
                "training.method: sft would learn the bad ones too. Write training.method: kto, which learns from "
                f"both; or `ignore: {in_yaml([column])}` to learn them all as if they were good."
            )
    return formats


def format_of(
    columns: Sequence[str], first_row: JsonRow, source: SourceSpec, where: str, method: Method = "sft"
) -> str:
    """Return the format that the source names, or that its rows are recognised as.

    Args:
        columns: those that the first rows have.
        first_row: the first of them; long text and lists in it may be cut.
        where: the source's place, such as `recipes/phi-2.yaml: dataset.sources[0]`.
        method: `dpo` and `kto` learn from one format each.

    Raises:
        FinetuningError: a column of the named format is missing, or none or several formats fit.
    """
    if source.feedback:  # of which there may be none yet
        return FORMATS[method]
    only = ANSWERS[method][0] if method in ANSWERS else None
    if source.format and only in (None, source.format):
        check_columns(columns, source, where, first_row)
        return source.format
    if only is None:
        return recognise(columns, first_row, source, where)
    present = not_ignored(columns, source)
    if not all(column in present for column in needed(only, source, first_row).values()):
        raise FinetuningError(
            f"{where}.format: training.method: {method} learns from {only}, and {describe(source)} has the columns "
            + "\n".join([f"{listed(present)}:", *unknown(present, first_row, source, [only])])
        )
    return only


def check_columns(present: Sequence[str], source: SourceSpec, where: str, first_row: JsonRow | None = None) -> None:
    """Raise an error unless the columns that the source's format needs are all among those `present`.

    Raises:
        FinetuningError: a line for each that is missing.
    """
    named = needed(str(source.format), source, first_row or {})
    missing = {name: column for name, column in named.items() if column not in present}
    if missing:
        raise FinetuningError(
            "\n".join(
                f"{where}.columns.{name}: the data set {describe(source)} has no column {column!r}; it has "
                f"{listed(present)}{nearest(column, present)}"
                for name, column in missing.items()
            )
        )


def recognise(columns: Sequence[str], first_row: JsonRow, source: SourceSpec, where: str) -> str:
    """Return the one format whose columns are all there, and whose conversations are made of its own turns.

    Raises:
        FinetuningError: none or several are; or it needs to be told whose answers to take.
    """
    columns = not_ignored(columns, source)
    fitting = [
        format
        for format in FORMAT_COLUMNS
        if set(source.columns) <= {*FORMAT_COLUMNS[format], *MORE_COLUMNS.get(format, OF_A_QUESTION)}
        and all(column in columns for column in needed(format, source, first_row).values())
        and _turns_fit(format, first_row, source)
    ]
    # No other format has a use for a rejected answer.
    if "preference" in fitting:
        return "preference"
    if "unpaired-preference" in fitting:
        if is_judged(first_row, source):
            return "unpaired-preference"
        fitting.remove("unpaired-preference")
    # Beside the columns of a conversation, a text is that conversation once more.
    if len(fitting) > 1 and "text" in fitting:
        fitting.remove("text")
    if len(fitting) > 1:
        raise FinetuningError(
            f"{where}.format: {describe(source)} has the columns {listed(columns)}, which make it "
            f"{' as well as '.join(fitting)}. Write which it is, such as `format: {fitting[0]}`."
        )
    if not fitting or _are_pairs(columns):
        lines = unknown(columns, first_row, source, list(FORMAT_COLUMNS))
        raise FinetuningError(
            "\n".join(
                [
                    f"{where}.format: {describe(source)} has the columns {listed(columns)}, and no format has them:",
                    *lines,
                ]
            )
        )
    lost = beside_a_text(columns, source) if fitting == ["text"] else []
    if lost:
        raise FinetuningError(
            f"{where}.format: {describe(source)} has the columns {listed(columns)}; to learn its text alone would lose "
            f"{listed(lost)}. {text_advice(lost, source)}"
        )
    if fitting == ["ultrafeedback"] and source.model is None:
        models = [completion.get("model") for completion in _turns(first_row, "completions", source)]
        raise FinetuningError(
            f"{where}.model: missing; {describe(source)} is ultrafeedback, whose rows have an answer of each of "
            f"several models: write whose. The first row has {listed([str(model) for model in models])}."
        )
    return fitting[0]


def _are_pairs(columns: Sequence[str]) -> bool:
    """Whether there are good and bad answers to the same, which no format but `preference` has a use for."""
    words = [set(words_of(column)) for column in columns if column.lower() in CHOSEN | REJECTED]
    return any(found & CHOSEN for found in words) and any(found & REJECTED for found in words)


def _turns_fit(format: str, first_row: JsonRow, source: SourceSpec) -> bool:
    """Whether the conversation of a format that has one is made of that format's turns, where one can see it."""
    conversations = {name: first_row.get(str(source.columns.get(name, name))) for name in FORMAT_COLUMNS[format]}
    return all(
        value is None or are_turns_of(value, TURNS[name]) for name, value in conversations.items() if name in TURNS
    )


def _turns(row: JsonRow, name: str, source: SourceSpec) -> list[dict[str, JsonValue]]:
    value = row.get(str(source.columns.get(name, name)))
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def shortened(value: JsonValue, depth: int = 0) -> JsonValue:
    """Cut the long texts of a value, and all but the first entries of its lists: enough to see what it is made of."""
    if isinstance(value, str):
        return value[:SHOWN_CHARACTERS]
    if not isinstance(value, (list, dict)):
        return value
    if depth == SHOWN_DEPTH:
        return "…"
    if isinstance(value, list):
        return [shortened(entry, depth + 1) for entry in value[:SHOWN_ENTRIES]]
    return {key: shortened(entry, depth + 1) for key, entry in value.items()}
