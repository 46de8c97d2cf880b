"""Tells which column of a row a format reads as what, and which ones it does not read.

question-answer: {"question": "2 + 3?", "answer": "5", "System_Prompt": "Be brief.", "images": ["a.png"], "id": 7}
-> read: question, answer, and System_Prompt as system; left: images, which carries meaning, and id, which does not
"""

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from pydantic import JsonValue

from finetuning.dataset.raw_summary import JsonRow
from finetuning.dataset.row_faults import RowDropped, is_empty
from finetuning.dataset.tool_calls import without_keys
from finetuning.dataset.turns import OLD_CALL, as_turns
from finetuning.recipe.columns import ALIASES, JUDGED_CONVERSATIONS, MORE_COLUMNS, OF_A_QUESTION, meaning_of, plain
from finetuning.recipe.source import FORMAT_COLUMNS, SourceSpec
from finetuning.secrets import masked

# Columns that hold a list of turns, or may hold one.
TURN_COLUMNS = ("messages", "conversations", "prompt", "completion", "chosen", "rejected", "history")
REQUEST = ("messages", "tools", "parallel_tool_calls")
# Keys of a turn that hold calls.
CALLS = {*map(plain, ("tool_calls", OLD_CALL))}


class Columns(NamedTuple):
    """The columns of rows that have the same ones."""

    own: tuple[tuple[str, str], ...]
    """Those of the format: its name, and the data set's."""
    more: tuple[tuple[str, tuple[str, ...]], ...]
    """What else it reads, and the columns that may hold it, of which the first one that holds something is read."""
    left: tuple[str, ...]
    """Those that it does not read."""


def read_columns(row: JsonRow, source: SourceSpec, format: str) -> dict[str, JsonValue]:
    """What a format reads of a row, by the format's own names; without the keys of turns that the recipe ignores.

    >>> source = SourceSpec(files=("x.jsonl",), columns={"question": "Problem"})
    >>> read_columns({"Problem": "2 + 3?", "answer": "5", "System_Prompt": "Hi", "id": 7}, source, "question-answer")
    {'question': '2 + 3?', 'answer': '5', 'system': 'Hi'}
    """
    columns = columns_of(row, source, format)
    found = {name: row[column] for name, column in columns.own}
    for name, candidates in columns.more:
        held = next((column for column in candidates if not is_empty(row[column])), None)
        if held is not None:
            found[name] = row[held]
    asked = found.get("prompt")
    if isinstance(asked, dict) and "messages" in asked:
        found |= _of_a_request(asked)
    if source.ignore:
        ignored = ignored_by(source)
        for name in TURN_COLUMNS:
            turns = as_turns(found.get(name))
            if isinstance(turns, list):
                found[name] = _without(turns, ignored)
    return found


def named_in_data(field: str, row: JsonRow, source: SourceSpec, format: str) -> str:
    """The place of a fault in a row, by the names that the data set has for the columns.

    >>> source = SourceSpec(files=("x.jsonl",), columns={"messages": "chat"})
    >>> named_in_data("messages[1].tool_calls", {"chat": []}, source, "messages")
    'chat[1].tool_calls'
    """
    columns = columns_of(row, source, format)
    names = dict(columns.own)
    for name, candidates in columns.more:
        names[name] = next((column for column in candidates if not is_empty(row[column])), name)
    head = re.match(r"\w*", field)
    name = head[0] if head else ""
    return names.get(name, name) + field[len(name) :]


def columns_of(row: JsonRow, source: SourceSpec, format: str) -> Columns:
    """Which of a row's columns the format reads as what."""
    return _columns(tuple(row), tuple(source.columns.items()), ignored_by(source), format)


def unread_columns(row: JsonRow, columns: Columns) -> list[str]:
    """The columns that hold something that is not read: also those beside another one of the same meaning."""
    found = [column for column in columns.left if not is_empty(row[column])]
    for _, candidates in columns.more:
        if len(candidates) > 1:
            found += [column for column in candidates if not is_empty(row[column])][1:]
    return found


def ignored_by(source: SourceSpec) -> frozenset[str]:
    """The names that the recipe ignores, in lower case."""
    # As they are told, a key of a turn has its column before it.
    return frozenset(name.rpartition("[].")[2].casefold() for name in source.ignore) if source.ignore else frozenset()


def judged_conversation(present: Collection[str], named: Mapping[str, str]) -> str | None:
    """The column with the whole conversation of a judged row: one that the recipe maps, or one without a completion.

    Args:
        present: the row's columns, but those that the recipe ignores.
        named: `columns` of the recipe.

    >>> [judged_conversation(present, {}) for present in (["messages", "label"], ["messages", "prompt", "completion"])]
    ['messages', None]
    """
    mapped = next((named[name] for name in JUDGED_CONVERSATIONS if name in named), None)
    if mapped or named.get("completion", "completion") in present or "completion" in named:
        return mapped
    return next((name for name in JUDGED_CONVERSATIONS if name in present), None)


def not_ignored(columns: Iterable[str], source: SourceSpec) -> list[str]:
    """The columns without those that the recipe ignores."""
    ignored = ignored_by(source)
    return [column for column in columns if column.casefold() not in ignored]


@lru_cache(maxsize=4096)
def _columns(
    present: tuple[str, ...], mapped: tuple[tuple[str, str], ...], ignored: frozenset[str], format: str
) -> Columns:
    named = dict(mapped)
    present = tuple(column for column in present if column.casefold() not in ignored)
    own = {name: named.get(name, name) for name in FORMAT_COLUMNS[format]}
    if format == "unpaired-preference":
        own["completion"] = judged_conversation(present, named) or own["completion"]
    own = {name: column for name, column in own.items() if column in present}
    taken = {*own.values(), *named.values()}
    more = {}
    for name in MORE_COLUMNS.get(format, OF_A_QUESTION):
        if name in own or name in JUDGED_CONVERSATIONS:
            continue
        if name in named:
            found = [named[name]] if named[name] in present else []
        else:
            found = [column for column in present if column not in taken and meaning_of(column) == name]
            found.sort(key=lambda column: PLACES[plain(column)])
        if found:
            more[name] = tuple(found)
    read = {*own.values(), *(column for columns in more.values() for column in columns)}
    return Columns(tuple(own.items()), tuple(more.items()), tuple(column for column in present if column not in read))


PLACES = {plain(alias): place for aliases in ALIASES.values() for place, alias in enumerate(aliases)}


def _of_a_request(asked: JsonRow) -> dict[str, JsonValue]:
    """The prompt and the tools in a record of them, as OpenAI's pairs of answers have one."""
    strange = [key for key in asked if key not in REQUEST and not is_empty(asked[key])]
    if strange:
        raise RowDropped(f"a prompt with the key {masked(strange[0])[:40]!r}, which is not read", "prompt")
    found = {"prompt": asked["messages"], "tools": asked.get("tools")}
    return {name: value for name, value in found.items() if name == "prompt" or not is_empty(value)}


def _without(turns: list[JsonValue], ignored: frozenset[str]) -> list[JsonValue]:
    return [
        {
            key: without_keys(value, ignored) if plain(key) in CALLS else value
            for key, value in turn.items()
            if key.casefold() not in ignored
        }
        if isinstance(turn, Mapping)
        else turn
        for turn in turns
    ]
