"""Reads the turns of a conversation, by whatever names data sets give to their keys and roles.

{"from": "Human", "value": [{"type": "text", "text": "2 + 3?"}]} -> {"role": "user", "content": "2 + 3?"}
{"role": "assistant", "content": "5", "thinking": "2, 3, 4, 5", "weight": 0}
-> {"role": "assistant", "content": "5", "reasoning_content": "2, 3, 4, 5", "train": False}
"""

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import JsonValue

from finetuning.dataset.raw_summary import JsonRow
from finetuning.dataset.row_faults import RowDropped, is_empty, kind
from finetuning.dataset.tool_calls import calls_in
from finetuning.recipe.columns import REASONING_KEYS, TRAIN_KEYS, plain
from finetuning.secrets import masked

# `role` and `content`, both text. Where the row has them: of an assistant `tool_calls` (with arguments as objects),
# `reasoning_content` (text, what it thought before it answered) and `train` (False: this answer is not learned), of a
# tool's answer `name` and `tool_call_id`.
Message = dict[str, Any]

ROLES = ("system", "user", "assistant", "tool")
# What data sets call them, in any case; whoever else speaks is nobody that a chat template knows.
NAMES = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter", "question", "instruction"),
    "assistant": (
        *("assistant", "gpt", "chatgpt", "gpt-4", "gpt4", "model", "bot", "chatbot", "ai", "llm", "answer", "response"),
        *("bing", "bard", "claude", "gemini", "llama", "mistral", "qwen", "deepseek"),
    ),
    "tool": (
        *("tool", "function", "observation", "ipython", "function_response", "function-response", "tool_response"),
        *("tool_result", "function_result", "function_output", "tool_output", "environment"),
    ),
}
ROLE_OF = {name: role for role, names in NAMES.items() for name in names}
# An assistant's turn whose text is the call.
CALLING = ("function_call", "function-call", "tool_call", "tool_calls")
TOOL_KEYS = ("tool_calls", "name", "tool_call_id")
OLD_CALL = "function_call"
# What is read of a turn, by plain names; the second ones of an assistant's turn alone.
READ = {*map(plain, ("role", "content", "from", "value", "name", "tool_call_id", *TRAIN_KEYS))}
READ_OF_ANSWERS = {*map(plain, (*TOOL_KEYS, OLD_CALL, *REASONING_KEYS))}
TURN_KEYS = (("role", "content"), ("from", "value"))
CONTENTS = ("content", "value")
TEXT_PARTS = ("text", "input_text", "output_text")
THOUGHT_PARTS = ("thinking", "reasoning")


def messages_in(value: JsonValue, field: str, keys: tuple[str, str] = ("role", "content")) -> list[Message]:
    """The messages in a list of turns, or in the JSON text of one.

    Args:
        keys: those of a turn that hold its role and its text.

    Raises:
        RowDropped: it is no such list, or a turn is none.
    """
    found = []
    for number, turn in enumerate(records_in(value, field)):
        role, content = turn.get(keys[0]), turn.get(keys[1])
        if len(turn) == 2 and role in ROLES and isinstance(content, str):  # as nearly all are
            found.append({"role": role, "content": content})
        else:
            found.append(_message(turn, role, content, f"{field}[{number}]"))
    return found


def records_in(value: JsonValue, field: str) -> list[JsonRow]:
    """The records in a list, or in the JSON text of one.

    Raises:
        RowDropped: it is no such list.
    """
    value = parsed_turns(value)
    if not isinstance(value, list):
        raise RowDropped(f"{kind(value)}, not a list of records", field)
    found: list[JsonRow] = []
    for number, entry in enumerate(value):
        if not isinstance(entry, Mapping):
            raise RowDropped(f"{kind(entry)}, not a record", f"{field}[{number}]")
        found.append(entry)
    return found


def parsed_turns(value: JsonValue) -> JsonValue:
    """The list of records that a text is the JSON of, as in a column of a CSV file; any other value as it is.

    >>> parsed_turns('[{"role": "user"}]'), parsed_turns("[1]")
    ([{'role': 'user'}], '[1]')
    """
    parsed = parsed_list(value)
    return parsed if parsed and all(isinstance(entry, dict) for entry in parsed) else value


def as_turns(value: JsonValue) -> JsonValue:
    """The list of one turn where a value is one, or the JSON text of one; otherwise as `parsed_turns` has it.

    >>> as_turns({"from": "gpt", "value": "5"})
    [{'from': 'gpt', 'value': '5'}]
    """
    turn = _one_turn(value)
    return parsed_turns(value) if turn is None else [turn]


def _one_turn(value: JsonValue) -> JsonValue:
    """The turn that a value is, or that it is the JSON text of; None where it is neither."""
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        try:
            value = orjson.loads(value)
        except ValueError:
            return None
    if not isinstance(value, dict):
        return None
    keys = keys_of([value])
    return value if set(keys) <= value.keys() and role_of(value[keys[0]]) else None


def keys_of(turns: JsonValue) -> tuple[str, str]:
    """The keys that hold role and text of turns: `from` and `value` where the first one has them, and no role."""
    first = turns[0] if isinstance(turns, list) and turns else None
    return TURN_KEYS[isinstance(first, dict) and "from" in first and "role" not in first]


def parsed_list(value: JsonValue) -> list[JsonValue] | None:
    """The list that a value is, or that it is the JSON text of; None where it is none."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = orjson.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, list) else None


def are_turns(value: JsonValue) -> bool:
    """Whether a value is a list of messages, one of them, or the JSON text of either, and not a text."""
    value = as_turns(value)
    return isinstance(value, list) and not (
        value and not any(isinstance(e, dict) and ("role" in e or "from" in e) for e in value)
    )


def holds_messages(value: JsonValue) -> bool:
    """Whether a value is a turn, a list of turns, or a record of such a list, whatever the keys of the turns are.

    >>> holds_messages({"from": "gpt", "value": "5"}), holds_messages({"messages": []}), holds_messages([5])
    (True, True, False)
    """
    if isinstance(value, dict):
        return "messages" in value or any(set(keys) <= value.keys() for keys in TURN_KEYS)
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and holds_messages(value[0])


def message(role: str, content: JsonValue, field: str) -> Message:
    """The message of a role with what a column holds: a text, parts of one, or, as an answer, a whole number.

    Raises:
        RowDropped: it holds something else.
    """
    text, thought = _text(content, role, field)
    return {"role": role, "content": text, **({"reasoning_content": thought} if thought else {})}


def role_of(role: JsonValue) -> str | None:
    """The role that a data set's name for it means, in any case; None for an unknown one.

    >>> role_of("Human"), role_of("developer"), role_of("critic")
    ('user', 'system', None)
    """
    if not isinstance(role, str):
        return None
    name = role.strip().lower()
    return "assistant" if name in CALLING else ROLE_OF.get(name)


def is_learned(value: object) -> bool | None:
    """Whether the value of a `weight` or `train` key asks for a turn to be learned; None where it says neither.

    >>> [is_learned(value) for value in (1, 0.0, False, 0.5)]
    [True, False, False, None]
    """
    return bool(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


def unread_keys(turn: JsonRow, ignored: frozenset[str]) -> list[str]:
    """The keys of a turn that hold something and are not read of it; a weight between 0 and 1 is none that is.

    >>> unread_keys({"role": "user", "content": "2 + 3?", "mood": "curious", "weight": 0.5}, frozenset())
    ['mood', 'weight']
    """
    is_answer = role_of(turn.get("role", turn.get("from"))) == "assistant"
    found = []
    for key, value in turn.items():
        name = plain(key)
        is_read = name in READ or (is_answer and name in READ_OF_ANSWERS)
        if is_read and name in PLAIN_TRAIN_KEYS and value is not None:
            is_read = is_learned(value) is not None
        if not is_read and key.casefold() not in ignored and not is_empty(value):
            found.append(key)
        if key in CONTENTS and isinstance(value, list):
            found += [f"{key}[].{name}" for name in _unread_of_parts(value) if name.casefold() not in ignored]
    return found


def _unread_of_parts(parts: list[JsonValue]) -> list[str]:
    """The keys of a content's parts that hold something beside the type and its text."""
    return [
        key
        for part in parts
        if isinstance(part, dict)
        for key, value in part.items()
        if key not in ("type", "text", part.get("type")) and not is_empty(value)
    ]


def _held(turn: JsonRow, name: str) -> JsonValue:
    """What a turn has under a name, whatever its case and its signs; the very name comes first."""
    if name in turn:
        return turn[name]
    return next((value for key, value in turn.items() if plain(key) == plain(name)), None)


PLAIN_TRAIN_KEYS = {*map(plain, TRAIN_KEYS)}
PLAIN_REASONING_KEYS = {*map(plain, REASONING_KEYS)}


def _message(turn: JsonRow, named: JsonValue, content: JsonValue, field: str) -> Message:
    if not isinstance(named, str):
        raise RowDropped("no role" if named is None else f"{kind(named)} as the role", field)
    role = role_of(named)
    if role is None:
        raise RowDropped(f"unknown role {masked(named)[:20]!r}", field)
    if named.strip().lower() in CALLING:
        made: Message = {"role": role, "content": "", "tool_calls": calls_in(content, field)}
    else:
        made = message(role, content, field)
    if role == "assistant":
        _add_of_an_answer(made, turn, field)
    if role in ("assistant", "tool"):
        made |= {key: held for key in ("name", "tool_call_id") if (held := _held(turn, key))}
    for key in ("name", "tool_call_id"):
        if not isinstance(made.get(key, ""), (str, int)):
            raise RowDropped(f"{kind(made[key])} as the {key}, not text", f"{field}.{key}")
    return made


def _add_of_an_answer(made: Message, turn: JsonRow, field: str) -> None:
    """Add to an assistant's message its calls, what it thought, and whether it is learned."""
    for key in ("tool_calls", OLD_CALL):
        calls = _held(turn, key)
        if "tool_calls" not in made and not is_empty(calls):
            made["tool_calls"] = calls_in(calls, f"{field}.{key}")
    for key, value in turn.items():
        name = plain(key)
        if name in PLAIN_TRAIN_KEYS and is_learned(value) is False:
            made["train"] = False
        if name in PLAIN_REASONING_KEYS and not is_empty(value):
            thought, _ = _text(value, "assistant", f"{field}.{key}")
            made.setdefault("reasoning_content", thought)


def _text(content: JsonValue, role: str, field: str) -> tuple[str, str]:
    """The text in a turn's content, and what was thought in it."""
    if isinstance(content, str):
        return content, ""
    if content is None:
        return "", ""
    if isinstance(content, list) and content:
        parts = [part for part in content if isinstance(part, dict)]
        # What a tool gives back may be a list of records of its own.
        if len(parts) == len(content) and (role != "tool" or all("type" in part for part in parts)):
            return _of_parts(parts, role, field)
    if role == "assistant" and isinstance(content, int) and not isinstance(content, bool):
        return str(content), ""
    if role == "tool" and isinstance(content, (dict, list, int, float)):
        try:
            return orjson.dumps(content).decode(), ""
        except TypeError as error:
            raise RowDropped("an answer of a tool that is nested too deeply", field) from error
    if content == [] and role == "assistant":
        return "", ""
    raise RowDropped(f"{kind(content)} in the {role} turn, not text", field)


def _of_parts(parts: list[Any], role: str, field: str) -> tuple[str, str]:
    said, thought = [], []
    for number, part in enumerate(parts):
        held = {key: value for key, value in part.items() if value is not None}
        type = held.get("type", "text" if held.keys() == {"text"} else None)
        is_thought = type in THOUGHT_PARTS and role == "assistant"
        text = next((held[key] for key in ("text", type) if isinstance(held.get(str(key)), str)), None)
        if text is None or not (type in TEXT_PARTS or is_thought):
            shown = f"a part of the type {masked(type)[:20]!r}" if isinstance(type, str) else "a record"
            raise RowDropped(f"{shown} in the {role} turn, not text", f"{field}.content[{number}]")
        (thought if is_thought else said).append(text)
    return "".join(said), "".join(thought)
