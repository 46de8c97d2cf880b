"""Finds, over all rows, the columns and the keys of turns that hold something and are not read.

Those that carry meaning by their name stop the run until the recipe maps or ignores them; others are told.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from pydantic import JsonValue

from finetuning.dataset.drawing import describe
from finetuning.dataset.raw_folder import read_rows
from finetuning.dataset.raw_rows import RawRow
from finetuning.dataset.raw_summary import JsonRow
from finetuning.dataset.row_columns import TURN_COLUMNS, Columns, columns_of, ignored_by, unread_columns
from finetuning.dataset.row_faults import DEPTH, is_empty
from finetuning.dataset.turns import PLAIN_REASONING_KEYS, PLAIN_TRAIN_KEYS, as_turns, unread_keys
from finetuning.errors import FinetuningError
from finetuning.recipe.columns import MORE_COLUMNS, OF_A_QUESTION, SETTINGS, TO_BE_READ, carries_meaning, plain
from finetuning.recipe.dataset import DatasetSpec, sources
from finetuning.recipe.mistakes import nearest
from finetuning.recipe.source import SourceSpec
from finetuning.recipe.spec import in_yaml

SHOWN = 20
TURNS_ALONE = ("messages", "sharegpt")


@dataclass
class Unread:
    """In how many rows of a source a column or a key of turns is not read, and the place of the first."""

    rows: int
    place: str


@dataclass
class _Found:
    """What is known of a source's rows."""

    unread: dict[str, Unread] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    """Columns of text that say again what is read."""
    settings: dict[str, Unread] = field(default_factory=dict)
    """Columns and keys of thoughts that hold a setting."""
    thoughts: Counter[str] = field(default_factory=Counter)
    """In how many rows they hold something."""
    names: set[str] = field(default_factory=set)
    """Of all columns and keys, in lower case, where the recipe ignores some."""


def unread_by_source(
    raw_folder: Path, dataset: DatasetSpec, formats: Mapping[str, str], where: str, read_too: Sequence[str] = ()
) -> dict[str, dict[str, Unread]]:
    """What is not read of all rows in a folder of raw rows, by the source's path in the recipe and by name.

    Args:
        formats: of each source, by its stem.
        where: the recipe's file.
        read_too: columns that something else reads.

    Raises:
        FinetuningError: some of it carries meaning, what is read as a thought is a setting, or the recipe ignores what
            no row has; a line for each source.
    """
    unread, mistakes = {}, []
    for stem, (source, path) in sources(dataset).items():
        found = _Found()
        for row in read_rows(raw_folder / f"{stem}.parquet"):
            _count(row, source, formats[stem], found)
        for name in read_too:
            found.unread.pop(source.columns.get(name, name), None)
        if found.unread:
            unread[path] = found.unread
        place = f"{where}: {path}"
        lost = {name: count for name, count in found.unread.items() if _is_loss(name, formats[stem], found)}
        if lost:
            mistakes.append(_mistake(lost, source, formats[stem], place))
        mistakes += _settings(found, source, place) + _ignored_in_vain(found, source, place)
    if mistakes:
        raise FinetuningError("\n".join(mistakes))
    return unread


def unread_in(row: JsonRow, source: SourceSpec, format: str) -> list[str]:
    """The columns of a row that hold something and that the format does not read, and such keys of its turns.

    >>> row = {"id": 7, "messages": [{"role": "user", "content": "2 + 3?", "mood": "curious"}]}
    >>> unread_in(row, SourceSpec(files=("x.jsonl",)), "messages")
    ['id', 'messages[].mood']
    """
    columns = columns_of(row, source, format)
    found = unread_columns(row, columns)
    for column in _turn_columns(columns):
        turns = as_turns(row[column])
        if isinstance(turns, list):
            ignored = ignored_by(source)
            keys = [
                key
                for turn in turns
                # Most turns have a role and a text and nothing else.
                if isinstance(turn, dict)
                and not (len(turn) == 2 and isinstance(turn.get("content", turn.get("value")), str))
                for key in unread_keys(turn, ignored)
            ]
            found += [f"{column}[].{key}" for key in dict.fromkeys(keys)]
    return found


def _turn_columns(columns: Columns) -> list[str]:
    found = [column for name, column in columns.own if name in TURN_COLUMNS]
    return found + [column for name, candidates in columns.more if name in TURN_COLUMNS for column in candidates]


def _count(raw: RawRow, source: SourceSpec, format: str, found: _Found) -> None:
    row, place = orjson.loads(raw.text), f"{raw.file}:{raw.line}"
    for name in unread_in(row, source, format):
        _add(found.unread, name, place)
        if plain(name) == "text" and _says_again(row, name, source, format):
            found.again.add(name)
    for name, thoughts in _thoughts_in(row, source, format):
        found.thoughts[name] += 1
        if all(str(thought).strip().lower() in SETTINGS for thought in thoughts):
            _add(found.settings, name, place)
    if source.ignore:
        found.names |= _names_in(row)


def _add(counts: dict[str, Unread], name: str, place: str) -> None:
    if name in counts:
        counts[name].rows += 1
    else:
        counts[name] = Unread(1, place)


def _says_again(row: JsonRow, name: str, source: SourceSpec, format: str) -> bool:
    """Whether a text holds the answer of its row, as one does that was made of the other columns."""
    own = columns_of(row, source, format).own
    answer = str(row[own[-1][1]]).strip() if own else ""
    return bool(answer) and answer in str(row[name])


def _thoughts_in(row: JsonRow, source: SourceSpec, format: str) -> list[tuple[str, list[JsonValue]]]:
    """The columns and keys of a row that are read as thoughts, and what they hold."""
    columns = columns_of(row, source, format)
    found = []
    for name, candidates in columns.more:
        column = next((column for column in candidates if not is_empty(row[column])), None)
        if name == "reasoning" and column is not None:
            found.append((column, [row[column]]))
    ignored = ignored_by(source)
    for column in _turn_columns(columns):
        turns = as_turns(row[column])
        held: dict[str, list[JsonValue]] = {}
        for turn in turns if isinstance(turns, list) else ():
            for key, value in turn.items() if isinstance(turn, dict) and len(turn) > 2 else ():
                if plain(key) in PLAIN_REASONING_KEYS and key.casefold() not in ignored and not is_empty(value):
                    held.setdefault(f"{column}[].{key}", []).append(value)
        found += held.items()
    return found


def _settings(found: _Found, source: SourceSpec, where: str) -> list[str]:
    """What to write where most of what is read as thoughts are settings."""
    return [
        f"{where}: {describe(source)}: {name} is read as what was thought before the answer, and in {count.rows} "
        f"row{'s' * (count.rows > 1)}, the first at {count.place}, it is a setting such as on, off or high. Write "
        f"`ignore: {in_yaml([name.rpartition('[].')[2]])}`; `chat.template_kwargs` sets for all rows whether the model "
        "thinks."
        for name, count in found.settings.items()
        if 2 * count.rows > found.thoughts[name]
    ]


def _ignored_in_vain(found: _Found, source: SourceSpec, where: str) -> list[str]:
    """What is wrong with names to be ignored that no row has."""
    return [
        f"{where}.ignore: no row of {describe(source)} has a column or key {name!r}{nearest(name, sorted(found.names))}"
        for name in source.ignore
        if found.names and name.rpartition("[].")[2].casefold() not in found.names
    ]


def _names_in(value: JsonValue, depth: int = 0) -> set[str]:
    """The keys of a row and of the records in it, also in those that are JSON text, in lower case."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = orjson.loads(value)
        except ValueError:
            return set()
    if depth == DEPTH or not isinstance(value, (dict, list)):
        return set()
    own = {key.casefold() for key in value} if isinstance(value, dict) else set()
    inner = value.values() if isinstance(value, dict) else value
    return own.union(*(_names_in(entry, depth + 1) for entry in inner))


def _is_loss(name: str, format: str, found: _Found) -> bool:
    key = name.rpartition("[].")[2]
    return name not in found.again and carries_meaning(key, of_a_question=key == name and _has_a_question(format))


def _has_a_question(format: str) -> bool:
    """Whether a row of the format is one question and what belongs to it, and no conversation or text."""
    return format not in (*TURNS_ALONE, "text")


def _mistake(lost: Mapping[str, Unread], source: SourceSpec, format: str, where: str) -> str:
    names = list(lost)[:SHOWN]
    told = "".join(
        f"\n  {name if name.isprintable() else repr(name)}: {lost[name].rows} row{'s' * (lost[name].rows > 1)}, "
        f"the first at {lost[name].place}{_reason(name)}"
        for name in names
    )
    keys = in_yaml([*dict.fromkeys(name.rpartition("[].")[2] for name in names)])
    more = f"\n  … and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    places = MORE_COLUMNS.get(format, OF_A_QUESTION)
    columns = [name for name in names if "[]." not in name]
    mapped = f" `columns` maps a column to {', '.join(places)}." if columns and places else ""
    behind = next((name for name in columns if plain(name) in map(plain, TO_BE_READ)), None)
    if behind and "context" in places:
        mapped = f" `columns: {in_yaml({'context': behind})}` puts it behind the question."
    return (
        f"{where}: {describe(source)} has what seems to carry meaning, and {format} does not read it:{told}{more}\n"
        f"Write `ignore: {keys}` to learn without it, or put it where it is read.{mapped}"
    )


def _reason(name: str) -> str:
    if plain(name.rpartition("[].")[2]) == "chattemplatekwargs":
        return "; `chat.template_kwargs` of the recipe is what all rows are given"
    if "[].content[]." in name or "[].value[]." in name:
        return "; the parts of a turn are learned together, as one text"
    is_weight = "[]." in name and plain(name.rpartition("[].")[2]) in PLAIN_TRAIN_KEYS
    return "; it is neither 0 nor 1, and a turn is learned or it is not" if is_weight else ""
