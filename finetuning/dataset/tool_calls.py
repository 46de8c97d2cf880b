"""Reads the tools that a row offers, and the calls of them, into the shape that chat templates take.

'[{"name": "add", "arguments": "{\\"a\\": 2}"}]'
-> [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}]
"""

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import JsonValue

from finetuning.dataset.row_faults import RowDropped, is_empty, kind
from finetuning.recipe.columns import plain
from finetuning.secrets import masked

FUNCTION = "function"
# What data sets call the name of the function that is called, what it is given, and the call itself.
NAMES = ("name", "action")
ARGUMENTS = ("arguments", "parameters", "args", "input", "kwargs", "action_input", "tool_input")
IDS = ("id", "call_id", "tool_call_id")
SCHEMAS = ("parameters", "input_schema", "inputSchema")
# Keys of a call that may hold something; another one could be what the call is made of.
READ_OF_CALLS = {*map(plain, (*NAMES, *ARGUMENTS, *IDS, FUNCTION, "type", "index", "status"))}


def tools_in(value: JsonValue, field: str = "tools") -> list[Any] | None:
    """The tools in a column: JSON schemas, or the JSON text of them; None where there are none.

    >>> tools_in('[{"name": "add", "parameters": {"properties": {"a": {"type": "integer"}, "b": null}}}]')
    [{'type': 'function', 'function': {'name': 'add', 'parameters': {'properties': {'a': {'type': 'integer'}}}}}]
    """
    tools = _parsed(value, field, "tools")
    if not tools:
        return None
    tools = [_parsed(tool, field, "tools") for tool in tools] if isinstance(tools, list) else tools
    return records([_tool(tool) for tool in records(tools, field, "tools")], field, "tools")


def calls_in(value: JsonValue, field: str) -> list[Any]:
    """The calls in a value: records, one of them, or the JSON text of either; arguments are objects.

    >>> calls_in({"name": "now", "arguments": ""}, "function_call")
    [{'type': 'function', 'function': {'name': 'now', 'arguments': {}}}]

    Raises:
        RowDropped: it is something else.
    """
    calls: Any = _parsed(value, field, "tool calls")
    calls = [calls] if isinstance(calls, Mapping) else calls
    calls = [_parsed(call, field, "tool calls") for call in calls] if isinstance(calls, list) else calls
    return records([_call(call, field) for call in records(calls, field, "tool calls")], field, "tool calls")


def are_calls(value: JsonValue) -> bool:
    """Whether an answer is a call or a list of calls: records with a name and arguments, or the JSON text of them.

    >>> are_calls('[{"name": "add", "arguments": {"a": 2}}]'), are_calls("[5]")
    (True, False)
    """
    value = _read(value)
    value = [value] if isinstance(value, Mapping) else value
    return isinstance(value, list) and bool(value) and all(_is_call(call) for call in value)


def is_no_call(value: JsonValue) -> bool:
    """Whether an answer is a list of calls, or the JSON text of one, that has none in it.

    >>> is_no_call("[]"), is_no_call("No tool is needed.")
    (True, False)
    """
    return _read(value) == []


def without_keys(value: JsonValue, ignored: frozenset[str]) -> JsonValue:
    """The calls in a value, or in the JSON text of it, without those of their keys.

    >>> without_keys('[{"name": "now", "result": "noon"}]', frozenset(["result"]))
    [{'name': 'now'}]
    """
    value = _read(value)
    if isinstance(value, list):
        return [without_keys(call, ignored) for call in value]
    if not isinstance(value, dict):
        return value
    kept = {key: held for key, held in value.items() if key.casefold() not in ignored}
    function = kept.get(FUNCTION)
    if isinstance(function, dict):
        kept[FUNCTION] = {key: held for key, held in function.items() if key.casefold() not in ignored}
    return kept


def without_strange_nulls(calls: list[Any], tools: list[Any]) -> list[Any]:
    """The calls without arguments that are null and that the tool called does not have: other tools of the data do.

    >>> tools = [{"function": {"name": "add", "parameters": {"properties": {"a": {}}}}}]
    >>> calls = [{"function": {"name": "add", "arguments": {"a": None, "city": None}}}]
    >>> without_strange_nulls(calls, tools)
    [{'function': {'name': 'add', 'arguments': {'a': None}}}]
    """
    taken = dict(map(_parameters, tools))
    cleaned = []
    for call in calls:
        function = call[FUNCTION]
        known, arguments = taken.get(function.get("name")), function["arguments"]
        if known is not None and None in arguments.values():
            kept = {key: value for key, value in arguments.items() if value is not None or key in known}
            call = {**call, FUNCTION: {**function, "arguments": kept}}
        cleaned.append(call)
    return cleaned


def records(value: JsonValue, field: str, what: str) -> list[Any]:
    """The list that a value is, if it is one of records.

    Raises:
        RowDropped: it is something else, or nested too deeply to be written again.
    """
    if not isinstance(value, list):
        raise RowDropped(f"{kind(value)}, not a list of {what}", field)
    strange = next((record for record in value if not isinstance(record, Mapping)), None)
    if strange is not None or None in value:
        raise RowDropped(f"a list with {kind(strange)} in it, not of {what}", field)
    try:
        orjson.dumps(value)
    except TypeError as error:  # it writes less deep nesting than it reads
        raise RowDropped(f"{what} that are nested too deeply", field) from error
    return value


def _parsed(value: JsonValue, field: str, what: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value) if value.strip() else None
    except ValueError as error:
        raise RowDropped(f"no JSON, which {what} have to be", field) from error


def _read(value: JsonValue) -> JsonValue:
    """The list or record that a text is the JSON of; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return orjson.loads(value)
        except ValueError:
            return value
    return value


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get(FUNCTION)
    inner = dict(function if isinstance(function, Mapping) else tool)
    key = next((key for key in SCHEMAS if isinstance(inner.get(key), Mapping)), None)
    if key is not None:
        inner["parameters"] = _without_null_properties(inner.pop(key))
    if isinstance(function, Mapping):
        return {**tool, FUNCTION: inner}
    is_bare = isinstance(inner.get("name"), str) and key is not None
    return {"type": FUNCTION, FUNCTION: inner} if is_bare else inner


def _without_null_properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without properties that are null: no schema says so, but tables do of those that other rows have."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or None not in properties.values():
        return dict(schema)
    return {**schema, "properties": {name: value for name, value in properties.items() if value is not None}}


def _call(call: Mapping[str, Any], field: str) -> dict[str, Any]:
    held = _held(call)
    name = next((held[key] for key in (*NAMES, FUNCTION) if isinstance(held.get(key), str)), None)
    if name is None:
        raise RowDropped("a tool call without a name", field)
    unread = next((key for key in held if plain(key) not in READ_OF_CALLS), None)
    if unread is not None:
        raise RowDropped(f"a tool call with the key {masked(unread)[:40]!r}, which is not read", field)
    given = [key for key in ARGUMENTS if key in held]
    if len(given) > 1:
        raise RowDropped(f"a tool call with arguments in both {given[0]!r} and {given[1]!r}", field)
    arguments = _parsed(held[given[0]], field, "arguments of a tool call") if given else None
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise RowDropped(f"{kind(arguments)} as the arguments of a tool call, not a record", field)
    id = next((held[key] for key in IDS if key in held), None)
    return {
        **({} if id is None else {"id": id}),
        "type": FUNCTION,
        FUNCTION: {"name": name, "arguments": dict(arguments)},
    }


def _held(call: Mapping[str, Any]) -> dict[str, Any]:
    """What the keys of a call hold, and those of the function in it; without those that hold nothing."""
    function = call.get(FUNCTION)
    inner: Mapping[str, Any] = function if isinstance(function, Mapping) else {}
    return {
        key: value
        for key, value in (*call.items(), *inner.items())
        # Arguments that are all null are some, which the tool's schema tells.
        if not (is_empty(value) and (key not in ARGUMENTS or not value)) and not (key == FUNCTION and inner)
    }


def _is_call(call: JsonValue) -> bool:
    if not isinstance(call, Mapping):
        return False
    function = call.get(FUNCTION)
    inner = function if isinstance(function, Mapping) else call
    return isinstance(inner.get("name"), str) and any(key in inner for key in ARGUMENTS)


def _parameters(tool: Mapping[str, Any]) -> tuple[Any, set[str] | None]:
    """The name of a tool, and those of what it takes; None where its schema does not tell."""
    function = tool.get(FUNCTION)
    inner: Mapping[str, Any] = function if isinstance(function, Mapping) else tool
    schema = inner.get("parameters")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    # Some write the properties right there: {"parameters": {"city": {"type": "str"}}}.
    if properties is None and isinstance(schema, Mapping) and "type" not in schema:
        properties = schema
    return str(inner.get("name")), set(properties) if isinstance(properties, Mapping) else None
