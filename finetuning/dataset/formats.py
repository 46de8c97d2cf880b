"""Turns a raw row of a known format into the messages of one conversation.

{"question": "What is 2 + 3?", "answer": "#### 5"}
-> [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "#### 5"}]

A new format is a function here, a line in FORMATS, and its name and a row of it in finetuning/recipe/source.py.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import JsonValue

from finetuning.dataset.raw_summary import JsonRow
from finetuning.dataset.row_columns import named_in_data, read_columns
from finetuning.dataset.row_faults import NotChosen, RowDropped, is_empty, kind
from finetuning.dataset.tool_calls import are_calls, calls_in, is_no_call, tools_in, without_strange_nulls
from finetuning.dataset.turn_order import BLANK, require_order
from finetuning.dataset.turns import (
    Message,
    are_turns,
    as_turns,
    keys_of,
    message,
    messages_in,
    parsed_list,
    records_in,
)
from finetuning.recipe.source import SourceSpec

# Columns that a data set may lack.
OPTIONAL_COLUMNS = {"alpaca": ("input",), "preference": ("prompt",)}


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
    return _conversation(row, source, FORMATS[named], named)


def to_pair(row: JsonRow, source: SourceSpec) -> tuple[list[Message], list[Message]]:
    """The conversation with the chosen answer in a row of `preference`, and the same one with the rejected answer.

    Raises:
        RowDropped: the row holds no two conversations that differ in their last answer alone.

    >>> source = SourceSpec(files=["x.jsonl"], format="preference")
    >>> chosen, rejected = to_pair({"prompt": "2 + 3?", "chosen": "5", "rejected": "6"}, source)
    >>> chosen[:-1] == rejected[:-1], rejected[-1]["content"]
    (True, '6')
    """
    chosen = _conversation(row, source, preference, "preference")
    try:
        rejected = _conversation(row, source, partial(preference, side="rejected"), "preference")
    except RowDropped as reason:
        field = f"rejected {reason.field}" if reason.field.startswith("turn ") else reason.field
        raise RowDropped(str(reason), field) from reason
    if chosen == rejected:
        raise RowDropped("chosen and rejected are the same", "rejected")
    if chosen[:-1] != rejected[:-1]:
        raise RowDropped("chosen and rejected differ in more than their last answer", "rejected")
    return chosen, rejected


def _conversation(
    row: JsonRow, source: SourceSpec, read: Callable[[JsonRow, SourceSpec], list[Message]], format: str
) -> list[Message]:
    """What `read` makes of a row, with the system prompt of the row, if it has one by itself, or of the source."""
    found = read_columns(row, source, format)
    try:
        messages = read(found, source)
        if read is text:  # no conversation
            return messages
        return _complete(messages, found, source)
    except KeyError as missing:
        name = str(missing.args[0])
        raise RowDropped("a column is missing", source.columns.get(name, name)) from missing
    except RowDropped as reason:
        reason.field = named_in_data(reason.field, row, source, format)
        raise


def _complete(messages: list[Message], row: JsonRow, source: SourceSpec) -> list[Message]:
    """The messages with the system prompt in the row or of the source, once they are found to be in a right order."""
    if messages and messages[0]["role"] == "system" and not messages[0]["content"].strip():
        del messages[0]
    if "system" in row and messages:
        own = message("system", row["system"], "system")
        if messages[0]["role"] != "system":
            messages.insert(0, own)
        elif messages[0]["content"].strip() != own["content"].strip():
            raise RowDropped("a system message, and another one in a column", "system")
    if source.system and messages and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": source.system})
    calling = [made for made in messages if "tool_calls" in made]
    tools = tools_in(row["tools"]) if calling and "tools" in row else None
    for made in calling if tools else ():
        made["tool_calls"] = without_strange_nulls(made["tool_calls"], tools or [])
    require_order(messages)
    return messages


def tools_of(row: JsonRow, source: SourceSpec, format: str | None = None) -> list[Any] | None:
    """The tools that a row offers: JSON schemas, as the chat template takes them.

    Args:
        format: the row's, where the source does not name it.

    Raises:
        RowDropped: its column holds something else.

    >>> source = SourceSpec(files=["x.jsonl"], format="messages")
    >>> tools_of({"tools": '[{"name": "add"}]'}, source)
    [{'name': 'add'}]
    """
    read = read_columns(row, source, format or source.format or "")
    return tools_in(read["tools"], source.columns.get("tools", "tools")) if "tools" in read else None


def messages(row: JsonRow, source: SourceSpec) -> list[Message]:
    """The messages themselves, without keys that are not read.

    >>> messages({"messages": [{"role": "user", "content": "2 + 3?", "mood": "curious"}]}, None)
    [{'role': 'user', 'content': '2 + 3?'}]
    """
    return messages_in(row["messages"], "messages")


def sharegpt(row: JsonRow, source: SourceSpec) -> list[Message]:
    """The messages of `from` and `value` pairs.

    >>> sharegpt({"conversations": [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]}, None)
    [{'role': 'user', 'content': '2 + 3?'}, {'role': 'assistant', 'content': '5'}]
    """
    return messages_in(row["conversations"], "conversations", ("from", "value"))


def alpaca(row: JsonRow, source: SourceSpec) -> list[Message]:
    """One question and its answer; the input, where there is one, follows the instruction after an empty line.

    >>> alpaca({"instruction": "Add the numbers.", "input": "2 3", "output": "5"}, None)[0]["content"]
    'Add the numbers.\\n\\n2 3'
    >>> alpaca({"instruction": "What is 2 + 3?", "input": "", "output": "5"}, None)[0]["content"]
    'What is 2 + 3?'
    """
    return _asked_and_answered(row, "instruction", "output")


def prompt_completion(row: JsonRow, source: SourceSpec) -> list[Message]:
    """The prompt as the question, the completion as the answer; each is a text or a list of messages.

    >>> prompt_completion({"prompt": "2 + 3 =", "completion": "5"}, None)
    [{'role': 'user', 'content': '2 + 3 ='}, {'role': 'assistant', 'content': '5'}]
    """
    return _asked_and_answered(row, "prompt", "completion")


def question_answer(row: JsonRow, source: SourceSpec) -> list[Message]:
    """The question and its answer; what goes with the question, such as a context, follows it after an empty line.

    >>> question_answer({"question": "How warm is it?", "context": "Oslo, 4 degrees", "answer": "4"}, None)
    [{'role': 'user', 'content': 'How warm is it?\\n\\nOslo, 4 degrees'}, {'role': 'assistant', 'content': '4'}]
    """
    return _asked_and_answered(row, "question", "answer")


def ultrafeedback(row: JsonRow, source: SourceSpec) -> list[Message]:
    """The instruction with the answer of the one model that `source.model` names, and the system prompt it was given.

    >>> completion = {"model": "gpt-4", "custom_system_prompt": "Be brief.", "response": "5"}
    >>> source = SourceSpec(files=["x.jsonl"], format="ultrafeedback", model="gpt-4")
    >>> [turn["content"] for turn in ultrafeedback({"instruction": "2 + 3?", "completions": [completion]}, source)]
    ['Be brief.', '2 + 3?', '5']
    """
    completions = records_in(row["completions"], "completions")
    completion = next((answer for answer in completions if answer.get("model") == source.model), None)
    if completion is None:
        raise NotChosen(f"no answer of {source.model}", "completions")
    return [
        message("system", completion.get("custom_system_prompt") or "", "completions.custom_system_prompt"),
        message("user", row["instruction"], "instruction"),
        message("assistant", completion.get("response"), "completions.response"),
    ]


def preference(row: JsonRow, source: SourceSpec, side: str = "chosen") -> list[Message]:
    """The prompt with the answer of that side; a whole conversation has the prompt in it, or after it.

    >>> row = {"prompt": "2 + 3?", "chosen": "5", "rejected": [{"role": "assistant", "content": "6"}]}
    >>> [turn["content"] for side in ("chosen", "rejected") for turn in preference(row, None, side)]
    ['2 + 3?', '5', '2 + 3?', '6']
    """
    answer, asked = _answer(row, side), row.get("prompt")
    if answer and answer[0]["role"] == "assistant":
        if asked is None:
            raise RowDropped("an answer without a prompt", "prompt")
        return [*_turns(row, "prompt", "user"), *answer]
    return answer if is_empty(asked) else _begun_by(row, answer, side)


def _begun_by(row: JsonRow, conversation: list[Message], side: str) -> list[Message]:
    """The whole conversation, with those turns of its prompt before it that it does not begin with.

    Raises:
        RowDropped: the prompt is a text that nobody says in it.
    """
    prompt, asked = _turns(row, "prompt", "user"), row["prompt"]
    for start in range(len(prompt)):
        if list(map(_said, prompt[start:])) == list(map(_said, conversation[: len(prompt) - start])):
            return [*prompt[:start], *conversation]
    if isinstance(asked, str) and not are_turns(as_turns(asked)):
        questions = [turn["content"].strip() for turn in conversation if turn["role"] == "user"]
        # Some write the last question into it, and some all of the conversation.
        if asked.strip() in questions or all(question in asked for question in questions):
            return conversation
        raise RowDropped("a whole conversation that the prompt is not in", side)
    return [*prompt, *conversation]


def _said(turn: Message) -> tuple[str, str]:
    return turn["role"], turn["content"].strip()


def unpaired_preference(row: JsonRow, source: SourceSpec) -> list[Message]:
    """The prompt with the completion, whether it was judged good or bad; each is a text or a list of messages.

    A completion that is a whole conversation stands by itself: it is what `messages` or `conversations` hold.

    >>> row = {"prompt": "2 + 3?", "completion": [{"role": "assistant", "content": "6"}], "label": False}
    >>> unpaired_preference(row, None)
    [{'role': 'user', 'content': '2 + 3?'}, {'role': 'assistant', 'content': '6'}]
    """
    alone = _answer(row, "completion") if row.get("prompt") is None else []
    return alone if len(alone) > 1 else preference(row, source, side="completion")


def text(row: JsonRow, source: SourceSpec) -> list[Message]:
    """The whole text as one message, of a role that no chat template knows.

    >>> text({"text": "It rained."}, None)
    [{'role': 'text', 'content': 'It rained.'}]
    """
    content = row["text"]
    if content is not None and not isinstance(content, str):
        raise RowDropped(f"{kind(content)}, not text", "text")
    if not (content or "").strip(BLANK):
        raise RowDropped("an empty text", "text")
    return [{"role": "text", "content": content}]


FORMATS: dict[str, Callable[[JsonRow, SourceSpec], list[Message]]] = {
    "messages": messages,
    "sharegpt": sharegpt,
    "alpaca": alpaca,
    "prompt-completion": prompt_completion,
    "question-answer": question_answer,
    "ultrafeedback": ultrafeedback,
    "preference": preference,
    "unpaired-preference": unpaired_preference,
    "text": text,
}


def _asked_and_answered(row: JsonRow, asked: str, answered: str) -> list[Message]:
    """The conversation of a row with one question, and of what goes with it: a history, an input, a context, a thought.

    >>> row = {"q": "And 3?", "a": "6", "history": [["2 + 2?", "4"]], "reasoning": "3 + 3 = 6"}
    >>> [turn.get("reasoning_content", turn["content"]) for turn in _asked_and_answered(row, "q", "a")]
    ['2 + 2?', '4', 'And 3?', '3 + 3 = 6']
    """
    question, answer = _turns(row, asked, "user"), _answer(row, answered)
    for name in ("input", "context"):
        more = row.get(name)
        if not isinstance(more, str | None):
            raise RowDropped(f"{kind(more)} in the {name}, not text", name)
        if more and more.strip() and question and question[-1]["role"] == "user":
            asked_before = question[-1]["content"]
            question[-1]["content"] = f"{asked_before}\n\n{more}" if asked_before.strip() else more
    if answer and "reasoning" in row:
        thought = message("assistant", row["reasoning"], "reasoning")["content"]
        answer[-1].setdefault("reasoning_content", thought)
    before = _history(row["history"]) if "history" in row else []
    if before and question and question[0]["role"] == "system":
        before.insert(0, question.pop(0))
    return [*before, *question, *answer]


def _answer(row: JsonRow, column: str) -> list[Message]:
    """The answer of a row, which is calls of its tools where it has the shape of some."""
    answer = row[column]
    if "tools" in row and (are_calls(answer) or is_no_call(answer)) and tools_in(row["tools"]):
        if is_no_call(answer):
            raise RowDropped("an empty list of calls, not an answer", column)
        return [{"role": "assistant", "content": "", "tool_calls": calls_in(answer, column)}]
    return _turns(row, column, "assistant")


def _turns(row: JsonRow, column: str, role: str) -> list[Message]:
    """The messages that a column holds, or the one that its text is."""
    turns = as_turns(row[column])
    if are_turns(turns):
        return messages_in(turns, column, keys_of(turns))
    return [message(role, row[column], column)]


def _history(value: JsonValue) -> list[Message]:
    """The turns before the question: messages, or pairs of a question and its answer."""
    turns = as_turns(value)
    if are_turns(turns):
        return messages_in(turns, "history", keys_of(turns))
    pairs = parsed_list(value)
    if pairs is None or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise RowDropped("a history that is no list of messages, nor of questions with their answers", "history")
    return [
        message(role, text, f"history[{number}]")
        for number, pair in enumerate(pairs)
        if isinstance(pair, list)
        for role, text in zip(("user", "assistant"), pair, strict=True)
        if not is_empty(text)
    ]
