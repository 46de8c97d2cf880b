"""Turns a raw row of a known format into the messages of one conversation.

{"question": "What is 2 + 3?", "answer": "#### 5"}
-> [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "#### 5"}]

A new format is a function here, a line in FORMATS, and its name and a row of it in finetuning/recipe/dataset.py.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import NoneType
from typing import Any

import orjson
from pydantic import JsonValue

from finetuning.dataset.raw_summary import JsonRow
from finetuning.recipe.dataset import SourceSpec

# `role` and `content`, both text; of an assistant that calls tools also `tool_calls`, of a tool's answer `name` and
# `tool_call_id`, where the row has them.
Message = dict[str, Any]

# Columns that a data set may lack.
OPTIONAL_COLUMNS = {"alpaca": ("input",), "preference": ("prompt",)}

SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
ROLES = ("system", "user", "assistant", "tool")
# What may come after what; a conversation begins after None.
FOLLOWING = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
TOOL_KEYS = ("tool_calls", "name", "tool_call_id")
# Each answer is rendered with all that precedes it, so that time grows with the square of the turns.
MOST_TURNS = 1_000
# White space, and marks that no reader sees.
BLANK = "".join(map(chr, [*range(0x21), 0x7F, 0x85, 0xA0, 0x1680, *range(0x2000, 0x2010), 0x2028, 0x2029, 0x202F])) + (
    "\u205f\u2060\u3000\ufeff"
)


class RowDropped(Exception):
    """Why a row cannot be used: a few words that are the same for all rows with that fault, and the field it is in."""

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.field = field


class NotChosen(RowDropped):
    """The row is as it should be, and the recipe does not want it."""


def to_messages(row: JsonRow, source: SourceSpec, format: str | None = None) -> list[Message]:
    """The conversation in `row`: an optional system message, then user and assistant by turns, the assistant last.

    An assistant that calls tools is followed by what the tools answer, and then speaks again.

    Args:
        format: the row's, where the source does not name it.

    Raises:
        RowDropped: the row holds no such conversation.

    >>> source = SourceSpec(files=["x.jsonl"], format="question-answer", columns={"question": "q"}, system="Be brief.")
    >>> [message["content"] for message in to_messages({"q": "2 + 3?", "answer": "5"}, source)]
    ['Be brief.', '2 + 3?', '5']
    """
    named = format or source.format or ""
    return _conversation(row, source, FORMATS[named], has_system=named in ("sharegpt", "alpaca", "preference"))


def to_pair(row: JsonRow, source: SourceSpec) -> tuple[list[Message], list[Message]]:
    """The conversation with the chosen answer in a row of `preference`, and the same one with the rejected answer.

    Raises:
        RowDropped: the row holds no two conversations that differ in their last answer alone.

    >>> source = SourceSpec(files=["x.jsonl"], format="preference")
    >>> chosen, rejected = to_pair({"prompt": "2 + 3?", "chosen": "5", "rejected": "6"}, source)
    >>> chosen[:-1] == rejected[:-1], rejected[-1]["content"]
    (True, '6')
    """
    chosen = _conversation(row, source, preference, has_system=True)
    try:
        rejected = _conversation(row, source, partial(preference, side="rejected"), has_system=True)
    except RowDropped as reason:
        field = f"rejected {reason.field}" if reason.field.startswith("turn ") else reason.field
        raise RowDropped(str(reason), field) from reason
    if chosen == rejected:
        raise RowDropped("chosen and rejected are the same", "rejected")
    if chosen[:-1] != rejected[:-1]:
        raise RowDropped("chosen and rejected differ in more than their last answer", "rejected")
    return chosen, rejected


def _conversation(
    row: JsonRow, source: SourceSpec, read: Callable[[JsonRow, SourceSpec], list[Message]], *, has_system: bool
) -> list[Message]:
    """What `read` makes of a row, with the system prompt of the row, if it has one by itself, or of the source."""
    if source.columns:
        row = {**row, **{name: row[column] for name, column in source.columns.items() if column in row}}
    try:
        messages = read(row, source)
    except KeyError as missing:
        name = str(missing.args[0])
        raise RowDropped("a column is missing", source.columns.get(name, name)) from missing
    has_own = has_system and isinstance(row.get("system"), str)
    if has_own and messages and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": row["system"]})
    if messages and messages[0]["role"] == "system" and not messages[0]["content"].strip():
        del messages[0]
    if source.system and messages and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": source.system})
    _check(messages)
    return messages


def tools_of(row: JsonRow) -> list[JsonValue] | None:
    """The tools that a row of `messages` or `sharegpt` offers: JSON schemas, as the chat template takes them.

    >>> tools_of({"tools": '[{"name": "add"}]'})
    [{'name': 'add'}]
    """
    tools = row.get("tools")
    if isinstance(tools, str):
        try:
            tools = orjson.loads(tools) if tools.strip() else None
        except ValueError as error:
            raise RowDropped("no JSON, which tools have to be", "tools") from error
    return _records(tools, "tools", "tools") if tools else None


def messages(row: JsonRow, source: SourceSpec) -> list[Message]:
    """The messages themselves, without any other key that they have.

    >>> messages({"messages": [{"role": "user", "content": "2 + 3?", "mood": "curious"}]}, None)
    [{'role': 'user', 'content': '2 + 3?'}]
    """
    return _messages(row, "messages")


def sharegpt(row: JsonRow, source: SourceSpec) -> list[Message]:
    """The messages of `from` and `value` pairs.

    >>> sharegpt({"conversations": [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]}, None)
    [{'role': 'user', 'content': '2 + 3?'}, {'role': 'assistant', 'content': '5'}]
    """
    return [
        _message(_sharegpt_role(turn.get("from")), turn.get("value"), f"conversations[{i}]")
        for i, turn in enumerate(_dicts(row, "conversations"))
    ]


def _sharegpt_role(role: JsonValue) -> JsonValue:
    return SHAREGPT_ROLES.get(role, role) if isinstance(role, str) else role


def alpaca(row: JsonRow, source: SourceSpec) -> list[Message]:
    """One question and its answer; the input, where there is one, follows the instruction after an empty line.

    >>> alpaca({"instruction": "Add the numbers.", "input": "2 3", "output": "5"}, None)[0]["content"]
    'Add the numbers.\\n\\n2 3'
    >>> alpaca({"instruction": "What is 2 + 3?", "input": "", "output": "5"}, None)[0]["content"]
    'What is 2 + 3?'
    """
    instruction, given = row["instruction"], row.get("input")
    if not isinstance(given, (str, NoneType)):
        raise RowDropped(f"{_kind(given)} in the input, not text", "input")
    if isinstance(instruction, str) and given and given.strip():
        instruction = f"{instruction}\n\n{given}"
    return [_message("user", instruction, "instruction"), _message("assistant", row["output"], "output")]


def prompt_completion(row: JsonRow, source: SourceSpec) -> list[Message]:
    """The prompt as the question, the completion as the answer.

    >>> prompt_completion({"prompt": "2 + 3 =", "completion": "5"}, None)
    [{'role': 'user', 'content': '2 + 3 ='}, {'role': 'assistant', 'content': '5'}]
    """
    return [_message("user", row["prompt"], "prompt"), _message("assistant", row["completion"], "completion")]


def question_answer(row: JsonRow, source: SourceSpec) -> list[Message]:
    """The question and its answer.

    >>> question_answer({"question": "2 + 3?", "answer": "5"}, None)
    [{'role': 'user', 'content': '2 + 3?'}, {'role': 'assistant', 'content': '5'}]
    """
    return [_message("user", row["question"], "question"), _message("assistant", row["answer"], "answer")]


def ultrafeedback(row: JsonRow, source: SourceSpec) -> list[Message]:
    """The instruction with the answer of the one model that `source.model` names, and the system prompt it was given.

    >>> completion = {"model": "gpt-4", "custom_system_prompt": "Be brief.", "response": "5"}
    >>> source = SourceSpec(files=["x.jsonl"], format="ultrafeedback", model="gpt-4")
    >>> [turn["content"] for turn in ultrafeedback({"instruction": "2 + 3?", "completions": [completion]}, source)]
    ['Be brief.', '2 + 3?', '5']
    """
    completions = _dicts(row, "completions")
    completion = next((answer for answer in completions if answer.get("model") == source.model), None)
    if completion is None:
        raise NotChosen(f"no answer of {source.model}", "completions")
    return [
        _message("system", completion.get("custom_system_prompt") or "", "completions.custom_system_prompt"),
        _message("user", row["instruction"], "instruction"),
        _message("assistant", completion.get("response"), "completions.response"),
    ]


def preference(row: JsonRow, source: SourceSpec, side: str = "chosen") -> list[Message]:
    """The prompt with the answer of that side; an answer that is a whole conversation stands by itself.

    >>> row = {"prompt": "2 + 3?", "chosen": "5", "rejected": [{"role": "assistant", "content": "6"}]}
    >>> [turn["content"] for side in ("chosen", "rejected") for turn in preference(row, None, side)]
    ['2 + 3?', '5', '2 + 3?', '6']
    """
    is_text = not isinstance(row[side], list)
    answer = [_message("assistant", row[side], side)] if is_text else _messages(row, side)
    if not answer or answer[0]["role"] != "assistant":
        return answer
    prompt = row.get("prompt")
    if prompt is None:
        raise RowDropped("an answer without a prompt", "prompt")
    return [*(_messages(row, "prompt") if isinstance(prompt, list) else [_message("user", prompt, "prompt")]), *answer]


FORMATS: dict[str, Callable[[JsonRow, SourceSpec], list[Message]]] = {
    "messages": messages,
    "sharegpt": sharegpt,
    "alpaca": alpaca,
    "prompt-completion": prompt_completion,
    "question-answer": question_answer,
    "ultrafeedback": ultrafeedback,
    "preference": preference,
}


def _messages(row: JsonRow, column: str) -> list[Message]:
    found = []
    for number, message in enumerate(_dicts(row, column)):
        role, content = message.get("role"), message.get("content")
        if role in ROLES and isinstance(content, str):  # as nearly all are
            made: Message = {"role": role, "content": content}
        else:
            made = _message(role, content, f"{column}[{number}]")
        if len(message) > 2 and role in ("assistant", "tool"):
            made |= {key: message[key] for key in TOOL_KEYS if message.get(key)}
            _check_tool_keys(made, f"{column}[{number}]")
        found.append(made)
    return found


def _dicts(row: JsonRow, column: str) -> list[JsonRow]:
    value = row[column]
    if not isinstance(value, list):
        raise RowDropped(f"{_kind(value)}, not a list of records", column)
    found: list[JsonRow] = []
    for number, entry in enumerate(value):
        if not isinstance(entry, Mapping):
            raise RowDropped(f"{_kind(entry)}, not a record", f"{column}[{number}]")
        found.append(entry)
    return found


def _message(role: JsonValue, content: JsonValue, field: str) -> Message:
    if not isinstance(role, str):
        raise RowDropped("no role" if role is None else f"{_kind(role)} as the role", field)
    if role not in ROLES:
        raise RowDropped(f"unknown role {role[:20]!r}", field)
    if content is None:
        content = ""
    if not isinstance(content, str):
        raise RowDropped(f"{_kind(content)} in the {role} turn, not text", field)
    return {"role": role, "content": content}


def _check_tool_keys(message: Message, field: str) -> None:
    if "tool_calls" in message:
        _records(message["tool_calls"], f"{field}.tool_calls", "tool calls")
    for key in ("name", "tool_call_id"):
        if not isinstance(message.get(key, ""), (str, int)):
            raise RowDropped(f"{_kind(message[key])} as the {key}, not text", f"{field}.{key}")


def _records(records: JsonValue, field: str, what: str) -> list[JsonValue]:
    if not isinstance(records, list):
        raise RowDropped(f"{_kind(records)}, not a list of {what}", field)
    strange = next((record for record in records if not isinstance(record, Mapping)), None)
    if strange is not None or None in records:
        raise RowDropped(f"a list with {_kind(strange)} in it, not of {what}", field)
    try:
        orjson.dumps(records)
    except TypeError as error:  # it writes less deep nesting than it reads
        raise RowDropped(f"{what} that are nested too deeply", field) from error
    return records


def _kind(value: object) -> str:
    if isinstance(value, dict) and value.keys() == {"bytes"}:
        return "bytes"  # as raw rows keep those that are no text
    kinds = {dict: "a record", list: "a list", str: "text", type(None): "nothing", bool: "true or false"}
    return kinds.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)


def _check(conversation: list[Message]) -> None:
    if len(conversation) > MOST_TURNS:
        raise RowDropped(f"more than {MOST_TURNS} turns")
    before = None
    for number, message in enumerate(conversation):
        role = message["role"]
        if role not in FOLLOWING[before]:
            raise RowDropped(_disorder(before, role), f"turn {number}")
        if not message["content"].strip(BLANK) and not (message.get("tool_calls") or role == "tool"):
            raise RowDropped(f"empty {'answer' if role == 'assistant' else f'{role} turn'}", f"turn {number}")
        before = role
    if before is None:
        raise RowDropped("no turns at all")
    if before != "assistant":
        raise RowDropped(f"ends with a {before} turn, not with an answer", f"turn {len(conversation) - 1}")


def _disorder(before: str | None, role: str) -> str:
    if role == "system":
        return "a system message that is not the first"
    if before == role:
        return f"two {role} turns in a row"
    return f"{'an' if role == 'assistant' else 'a'} {role} turn {f'after the {before} turn' if before else 'first'}"
