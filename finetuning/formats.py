"""Turns a raw row of a known format into the messages of one conversation.

{"question": "What is 2 + 3?", "answer": "#### 5"}
-> [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "#### 5"}]

A new format is a function here, a line in FORMATS, and its name and columns in finetuning/recipe.py.
"""

from collections.abc import Callable, Mapping
from typing import Any

from finetuning.recipe import SourceSpec

Row = Mapping[str, Any]
Message = dict[str, str]

# Columns that a data set may lack.
OPTIONAL_COLUMNS = {"alpaca": ("input",)}

SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "assistant": "assistant",
}


class RowDropped(Exception):
    """Why a row can not be used, in a few words that are the same for all rows with that fault."""


def to_messages(row: Row, source: SourceSpec) -> list[Message]:
    """The conversation in `row`: an optional system message, then user and assistant by turns, the assistant last.

    Raises:
        RowDropped: the row holds no such conversation.

    >>> source = SourceSpec(files=["x.jsonl"], format="question-answer", columns={"question": "q"}, system="Be brief.")
    >>> [message["content"] for message in to_messages({"q": "2 + 3?", "answer": "5"}, source)]
    ['Be brief.', '2 + 3?', '5']
    """
    named = {**row, **{name: row[column] for name, column in source.columns.items() if column in row}}
    messages = [message for message in FORMATS[source.format](named, source) if not _blank_system(message)]
    if source.system and messages and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": source.system})
    _check(messages)
    return messages


def messages(row: Row, source: SourceSpec) -> list[Message]:
    """The messages themselves, without any other key that they have.

    >>> messages({"messages": [{"role": "user", "content": "2 + 3?", "name": "ann"}]}, None)
    [{'role': 'user', 'content': '2 + 3?'}]
    """
    return [_message(message.get("role"), message.get("content")) for message in _dicts(row, "messages")]


def sharegpt(row: Row, source: SourceSpec) -> list[Message]:
    """The messages of `from` and `value` pairs.

    >>> sharegpt({"conversations": [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]}, None)
    [{'role': 'user', 'content': '2 + 3?'}, {'role': 'assistant', 'content': '5'}]
    """
    turns = _dicts(row, "conversations")
    return [_message(SHAREGPT_ROLES.get(str(turn.get("from")), turn.get("from")), turn.get("value")) for turn in turns]


def alpaca(row: Row, source: SourceSpec) -> list[Message]:
    """One question and its answer; the input, where there is one, follows the instruction after an empty line.

    >>> alpaca({"instruction": "Add the numbers.", "input": "2 3", "output": "5"}, None)[0]["content"]
    'Add the numbers.\\n\\n2 3'
    >>> alpaca({"instruction": "What is 2 + 3?", "input": "", "output": "5"}, None)[0]["content"]
    'What is 2 + 3?'
    """
    instruction, given = row["instruction"], row.get("input") or ""
    if isinstance(instruction, str) and isinstance(given, str) and given.strip():
        instruction = f"{instruction}\n\n{given}"
    return [_message("user", instruction), _message("assistant", row["output"])]


def prompt_completion(row: Row, source: SourceSpec) -> list[Message]:
    """The prompt as the question, the completion as the answer.

    >>> prompt_completion({"prompt": "2 + 3 =", "completion": "5"}, None)
    [{'role': 'user', 'content': '2 + 3 ='}, {'role': 'assistant', 'content': '5'}]
    """
    return [_message("user", row["prompt"]), _message("assistant", row["completion"])]


def question_answer(row: Row, source: SourceSpec) -> list[Message]:
    """The question and its answer.

    >>> question_answer({"question": "2 + 3?", "answer": "5"}, None)
    [{'role': 'user', 'content': '2 + 3?'}, {'role': 'assistant', 'content': '5'}]
    """
    return [_message("user", row["question"]), _message("assistant", row["answer"])]


def ultrafeedback(row: Row, source: SourceSpec) -> list[Message]:
    """The instruction with the answer of the one model that `source.model` names, and the system prompt it was given.

    >>> completion = {"model": "gpt-4", "custom_system_prompt": "Be brief.", "response": "5"}
    >>> source = SourceSpec(files=["x.jsonl"], format="ultrafeedback", model="gpt-4")
    >>> [turn["content"] for turn in ultrafeedback({"instruction": "2 + 3?", "completions": [completion]}, source)]
    ['Be brief.', '2 + 3?', '5']
    """
    completions = _dicts(row, "completions")
    completion = next((answer for answer in completions if answer.get("model") == source.model), None)
    if completion is None:
        raise RowDropped(f"no answer of {source.model}")
    return [
        _message("system", completion.get("custom_system_prompt") or ""),
        _message("user", row["instruction"]),
        _message("assistant", completion.get("response")),
    ]


FORMATS: dict[str, Callable[[Row, SourceSpec], list[Message]]] = {
    "messages": messages,
    "sharegpt": sharegpt,
    "alpaca": alpaca,
    "prompt-completion": prompt_completion,
    "question-answer": question_answer,
    "ultrafeedback": ultrafeedback,
}


def _dicts(row: Row, column: str) -> list[Mapping[str, Any]]:
    value = row[column]
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise RowDropped(f"{column} is {_kind(value)}, not a list of records")
    return value


def _message(role: Any, content: Any) -> Message:
    if role not in ("system", "user", "assistant"):
        raise RowDropped(f"unknown role {str(role)[:20]!r}")
    if content is None:
        content = ""
    if not isinstance(content, str):
        raise RowDropped(f"the {role} turn is {_kind(content)}, not text")
    return {"role": role, "content": content}


def _kind(value: Any) -> str:
    return {dict: "a record", list: "a list", str: "text", type(None): "empty"}.get(type(value), type(value).__name__)


def _blank_system(message: Message) -> bool:
    return message["role"] == "system" and not message["content"].strip()


def _check(conversation: list[Message]) -> None:
    for message in conversation:
        if not message["content"].strip():
            raise RowDropped("empty answer" if message["role"] == "assistant" else "empty user turn")
    roles = [message["role"] for message in conversation]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if "assistant" not in turns:
        raise RowDropped("no assistant turn")
    if "system" in turns:
        raise RowDropped("a system message that is not the first")
    if turns[-1] == "user":
        raise RowDropped("ends with a user turn")
    if turns != ["user", "assistant"] * (len(turns) // 2):
        raise RowDropped("user and assistant turns do not alternate")
