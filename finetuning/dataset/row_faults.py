"""Why a row cannot be used, in words that are the same for all rows with that fault."""

from typing import Any

# Deeper than anything that is meant; rows may be nested as deep as Python cannot follow.
DEPTH = 50


class RowDropped(Exception):
    """Why a row cannot be used: a few words that are the same for all rows with that fault, and the field it is in."""

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.field = field


class NotChosen(RowDropped):
    """The row is as it should be, and the recipe does not want it."""


def kind(value: object) -> str:
    """What a value is, in words.

    >>> kind([1]), kind(None), kind(4.5)
    ('a list', 'nothing', 'a number')
    """
    if isinstance(value, dict) and value.keys() == {"bytes"}:
        return "bytes"  # as raw rows keep those that are no text
    kinds = {dict: "a record", list: "a list", str: "text", type(None): "nothing", bool: "true or false"}
    return kinds.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)


def is_empty(value: object, depth: int = 0) -> bool:
    """Whether a value says nothing: null, white space, or a list or record of nothing else, not too deep down.

    >>> is_empty({"a": None, "b": [" "]}), is_empty(0)
    (True, False)
    """
    if isinstance(value, str):
        return not value or value.isspace()
    if isinstance(value, (dict, list)) and depth < DEPTH:
        return all(is_empty(entry, depth + 1) for entry in (value.values() if isinstance(value, dict) else value))
    return value is None


def without_nulls(value: Any, depth: int = 0) -> Any:
    """The value without keys of records in it that are null, not too deep down.

    >>> without_nulls([{"a": 1, "b": None}, {"c": [None, {"d": None}]}])
    [{'a': 1}, {'c': [None, {}]}]
    """
    if isinstance(value, list) and depth < DEPTH:
        return [without_nulls(entry, depth + 1) for entry in value]
    if isinstance(value, dict) and depth < DEPTH:
        return {key: without_nulls(entry, depth + 1) for key, entry in value.items() if entry is not None}
    return value
