"""Tells which of the known formats the rows of a source are in, by their columns.

["question", "answer"] -> "question-answer"
["Problem", "Solution"] -> an error that says to write `format: question-answer` and
    `columns: {question: Problem, answer: Solution}`
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from finetuning.dataset.drawing import describe
from finetuning.dataset.formats import OPTIONAL_COLUMNS, TOOL_KEYS
from finetuning.dataset.raw_folder import read_sources
from finetuning.dataset.raw_summary import JsonRow
from finetuning.errors import FinetuningError
from finetuning.recipe.dataset import FORMAT_COLUMNS, DatasetSpec, SourceSpec, sources
from finetuning.recipe.mistakes import nearest
from finetuning.recipe.training import Method

# Column names that mean the same to those who publish data sets.
MEANINGS = (
    {"question", "prompt", "instruction", "problem", "query", "input", "request", "task", "user"},
    {"answer", "completion", "output", "response", "solution", "reply", "target", "assistant"},
    {"messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns"},
)
# What the turns of a conversation hold, by the column that is a list of them.
TURNS = {"messages": ("role", "content"), "conversations": ("from", "value")}
# What formats read beside their own columns, and of the turns in a column.
ALSO_READ = {
    "messages": ("tools",),
    "sharegpt": ("tools", "system"),
    "alpaca": ("system",),
    "preference": ("tools", "system"),
}
READ_OF_TURNS = {
    "conversations": TURNS["conversations"],
    **dict.fromkeys(("messages", *FORMAT_COLUMNS["preference"]), (*TURNS["messages"], *TOOL_KEYS)),
}
# Where columns could be those of several formats, the one that asks for the least comes first.
PLAINNESS = {"question-answer": 0, "prompt-completion": 1}
SHOWN_CHARACTERS, SHOWN_ENTRIES, SHOWN_DEPTH = 200, 10, 6


def recognise_all(raw_folder: Path, dataset: DatasetSpec, where: str, method: Method = "sft") -> dict[str, str]:
    """Return the format of each source in a folder of raw rows, by its stem; `where` is the recipe's file.

    Args:
        method: `dpo` leaves no choice but `preference`.

    Raises:
        FinetuningError: a source lacks a column of its format, or is in none or several of them.
    """
    named = sources(dataset)
    if method == "dpo":
        only = {"format": "preference"}
        named = {stem: (source.model_copy(update=only), path) for stem, (source, path) in named.items()}
    return {
        found.stem: format_of(found.columns, found.first_row, source, f"{where}: {path}")
        for found in read_sources(raw_folder)
        for source, path in (named[found.stem],)
    }


def unused_columns(raw_folder: Path, dataset: DatasetSpec, formats: Mapping[str, str]) -> dict[str, list[str]]:
    """Return what each source's first rows have and its format does not read, by the source's path in the recipe.

    Args:
        formats: of each source, by its stem.
    """
    named = sources(dataset)
    left = {
        path: unused(found.columns, found.first_row, source, formats[found.stem])
        for found in read_sources(raw_folder)
        for source, path in (named[found.stem],)
    }
    return {path: columns for path, columns in left.items() if columns}


def unused(columns: Sequence[str], first_row: JsonRow, source: SourceSpec, format: str) -> list[str]:
    """Return columns that the format does not read, and keys that it does not read of turns.

    >>> row = {"id": 7, "messages": [{"role": "user", "content": "2 + 3?", "mood": "curious"}]}
    >>> unused(["id", "messages"], row, SourceSpec(files=("x.jsonl",)), "messages")
    ['id', 'messages[].mood']
    """
    own = {str(source.columns.get(name, name)): name for name in FORMAT_COLUMNS[format]}
    found = [column for column in columns if column not in own and column not in ALSO_READ.get(format, ())]
    for column, name in own.items():
        keys = [key for turn in _turns(first_row, name, source) for key in turn] if name in READ_OF_TURNS else []
        found += [f"{column}[].{key}" for key in dict.fromkeys(keys) if key not in READ_OF_TURNS[name]]
    return found


def format_of(columns: Sequence[str], first_row: JsonRow, source: SourceSpec, where: str) -> str:
    """Return the format that the source names, or that its rows are recognised as.

    Args:
        columns: those that the first rows have.
        first_row: the first of them; long text and lists in it may be cut.
        where: the source's place, such as `recipes/phi-2.yaml: dataset.sources[0]`.

    Raises:
        FinetuningError: a column of the named format is missing, or none or several formats fit.
    """
    if source.format:
        check_columns(columns, source, where, first_row)
        return source.format
    return recognise(columns, first_row, source, where)


def check_columns(present: Sequence[str], source: SourceSpec, where: str, first_row: JsonRow | None = None) -> None:
    """Raise an error unless the columns that the source's format needs are all among those `present`.

    Raises:
        FinetuningError: a line for each that is missing.
    """
    named = _needed(str(source.format), source, first_row or {})
    missing = {name: column for name, column in named.items() if column not in present}
    if missing:
        raise FinetuningError(
            "\n".join(
                f"{where}.columns.{name}: the data set {describe(source)} has no column {column!r}; it has "
                f"{_list(present)}{nearest(column, present)}"
                for name, column in missing.items()
            )
        )


def recognise(columns: Sequence[str], first_row: JsonRow, source: SourceSpec, where: str) -> str:
    """Return the one format whose columns are all there, and whose conversations are made of its own turns.

    Raises:
        FinetuningError: none or several are; or it needs to be told whose answers to take.
    """
    fitting = [
        format
        for format in FORMAT_COLUMNS
        if set(source.columns) <= set(FORMAT_COLUMNS[format])
        and all(column in columns for column in _needed(format, source, first_row).values())
        and _turns_fit(format, first_row, source)
    ]
    # No other format has a use for a rejected answer.
    if "preference" in fitting:
        return "preference"
    if len(fitting) > 1:
        raise FinetuningError(
            f"{where}.format: {describe(source)} has the columns {_list(columns)}, which make it "
            f"{' as well as '.join(fitting)}. Write which it is, such as `format: {fitting[0]}`."
        )
    if not fitting:
        raise FinetuningError(_unknown(columns, first_row, source, where))
    if fitting == ["ultrafeedback"] and source.model is None:
        models = [completion.get("model") for completion in _turns(first_row, "completions", source)]
        raise FinetuningError(
            f"{where}.model: missing; {describe(source)} is ultrafeedback, whose rows have an answer of each of "
            f"several models: write whose. The first row has {_list([str(model) for model in models])}."
        )
    return fitting[0]


class _Near(NamedTuple):
    """What a format has and lacks of its columns, and which of the data set's could stand for those that it lacks."""

    format: str
    present: list[str]
    missing: list[str]
    columns: dict[str, str]

    @property
    def distance(self) -> tuple[int, ...]:
        """First counts what nothing stands for, then what has another name; last, what is there under its own."""
        lost, renamed = len(self.missing) - len(self.columns), len(self.columns)
        return lost, renamed, -len(self.present), PLAINNESS.get(self.format, len(PLAINNESS))


def _unknown(columns: Sequence[str], first_row: JsonRow, source: SourceSpec, where: str) -> str:
    near = sorted((_near(format, columns, first_row, source) for format in FORMAT_COLUMNS), key=lambda n: n.distance)
    lines = [f"{where}.format: {describe(source)} has the columns {_list(columns)}, and no format has them:"]
    for format, _, missing, _ in near:
        lines.append(f"  {format} lacks {_list(missing)}" if missing else f"  {format} has turns of another kind")
    if near[0].distance[0] == 0 and near[0].columns:
        mapped = ", ".join(f"{name}: {column}" for name, column in {**source.columns, **near[0].columns}.items())
        lines.append(f"Write `format: {near[0].format}` with `columns: {{{mapped}}}`, if that is what they are.")
    else:
        lines.append("Write `format` and `columns`, which gives the format's names and then the data set's.")
    return "\n".join(lines)


def _near(format: str, columns: Sequence[str], first_row: JsonRow, source: SourceSpec) -> _Near:
    present, missing, standing = [], [], {}
    for name, column in _needed(format, source, first_row).items():
        if column in columns and (name not in TURNS or _are_turns(first_row.get(column), TURNS[name])):
            present.append(name)
            continue
        missing.append(name)
        free = [other for other in columns if other not in standing.values() and other not in _own(format, columns)]
        stand_in = _stand_in(name, free, first_row)
        if stand_in:
            standing[name] = stand_in
    return _Near(format, present, missing, standing)


def _own(format: str, columns: Sequence[str]) -> set[str]:
    """Return columns that the format has a use for under their own names."""
    return {name for name in FORMAT_COLUMNS[format] if name in columns and name not in TURNS}


def _stand_in(name: str, columns: Sequence[str], first_row: JsonRow) -> str | None:
    """Return the column that seems to hold what a format calls `name`, by its turns, its meaning, or its spelling."""
    if name in TURNS:
        return next((column for column in columns if _are_turns(first_row.get(column), TURNS[name])), None)
    if name == "completions":
        return None
    same = next((words for words in MEANINGS if name in words), {name})
    alike = [column for column in columns if column.lower() in same or set(column.lower().split("_")) & same]
    near = difflib.get_close_matches(name, [column.lower() for column in columns], n=1, cutoff=0.75)
    alike += [column for column in columns if column.lower() in near]
    return next((column for column in alike if not isinstance(first_row.get(column), (list, dict))), None)


def _needed(format: str, source: SourceSpec, first_row: JsonRow) -> dict[str, str]:
    """Return the format's columns by their names in the data set; those that it may lack only if they are named."""
    optional = OPTIONAL_COLUMNS.get(format, ())
    if format == "preference" and isinstance(first_row.get(source.columns.get("chosen", "chosen")), str):
        optional = ()  # a text is no whole conversation
    return {
        name: str(source.columns.get(name, name))
        for name in FORMAT_COLUMNS[format]
        if name in source.columns or name not in optional
    }


def _turns_fit(format: str, first_row: JsonRow, source: SourceSpec) -> bool:
    """Whether the conversation of a format that has one is made of that format's turns, where one can see it."""
    return all(
        _are_turns(first_row.get(str(source.columns.get(name, name))), TURNS[name])
        for name in FORMAT_COLUMNS[format]
        if name in TURNS
    )


def _are_turns(value: JsonValue, keys: tuple[str, ...]) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and set(keys) <= value[0].keys()


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


def _list(words: Sequence[str]) -> str:
    shown = [word if len(word) <= 60 and word.isprintable() else repr(word[:60]) for word in words[:20]]
    return ", ".join(shown) + (f" and {len(words) - 20} more" if len(words) > 20 else "") or "none"
