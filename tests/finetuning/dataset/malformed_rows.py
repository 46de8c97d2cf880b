"""Rows that can be read and hold no conversation, and odd ones that hold one."""

import json
from typing import Any

from tests.finetuning.dataset.malformed_case import ALL, GOOD, ROWS, TURNS, Case, among, in_lines, nested, qa, whole

ASKED, ANSWERED = {"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "#### 5"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
# A template that writes calls and tools, as that of a model that calls tools does.
WITH_TOOLS = (
    "{% if tools %}{{ 'TOOLS ' + tools | tojson + '\n' }}{% endif %}"
    "{% for message in messages %}{{ '[' + message['role'] + ']' + message['content'] }}"
    "{% for call in message.tool_calls or [] %}{{ '<call>' + call | tojson }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def _bad_row(row: Any, reason: str, at: str, **source: Any) -> Case:
    return Case("a.jsonl", among(row), dropped={3: (reason, at)}, source={"format": "question-answer", **source})


def _turns(turns: Any, reason: str, at: str, **keys: Any) -> Case:
    row = turns if isinstance(turns, (dict, bytes)) else {"messages": turns}
    good = [{"messages": turns} for turns in TURNS]
    return Case("a.jsonl", among(row, good), dropped={3: (reason, at)}, source={"format": "messages"}, **keys)


def _kept_turns(turns: Any, said: str, **keys: Any) -> Case:
    row = {"messages": turns} if not isinstance(turns, dict) else turns
    content = among(row, [{"messages": turns} for turns in TURNS])
    return Case("a.jsonl", content, kept=GOOD + 1, said={3: said}, source={"format": "messages"}, **keys)


def _pairs(turns: list[Any], reason: str, at: str) -> Case:
    good = [{"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]} for q, a in map(qa, ROWS)]
    content = among({"conversations": turns}, good)
    return Case("a.jsonl", content, dropped={3: (reason, at)}, source={"format": "sharegpt"})


def _alpaca(row: dict[str, Any], reason: str, at: str) -> Case:
    good = [{"instruction": q, "input": "", "output": a} for q, a in map(qa, ROWS)]
    return Case("a.jsonl", among(row, good), dropped={3: (reason, at)}, source={"format": "alpaca"})


BAD_ROWS = {
    "an object without keys": _bad_row({}, "a column is missing", "question"),
    "a column that is missing in one row": _bad_row({"question": "x"}, "a column is missing", "answer"),
    "a mapped column that is missing in one row": Case(
        "a.jsonl",
        among({"Q": "x"}, [{"Q": q, "A": a} for q, a in map(qa, ROWS)]),
        dropped={3: ("a column is missing", "A")},
        source={"format": "question-answer", "columns": {"question": "Q", "answer": "A"}},
    ),
    "a column that is mapped to none": whole(
        "a.jsonl",
        ALL,
        "columns.answer: the data set",
        format="question-answer",
        columns={"answer": "Antwort"},
    ),
    "columns of no format": whole("a.jsonl", in_lines(*[{"x": 1, "y": 2}] * 9), "no format has them"),
    "a column name of many letters": whole("a.jsonl", in_lines({"x" * 9_999: 1}), "no format has them"),
    "a thousand columns": whole("a.jsonl", in_lines({f"c{i}": 1 for i in range(1_000)}), "no format has them"),
    "a column name with control characters": whole("a.jsonl", in_lines({"\x1b[31m\0": 1}), "no format has them"),
    "the columns of two formats": whole(
        "a.jsonl", in_lines(*[row | {"prompt": "x", "completion": "y"} for row in ROWS]), "as well as"
    ),
    "a question that is null": _bad_row({"question": None, "answer": "x"}, "empty user turn", "turn 0"),
    "a number as a question": _bad_row(
        {"question": 7, "answer": "x"}, "a number in the user turn, not text", "question"
    ),
    "a boolean as an answer": _bad_row(
        {"question": "x", "answer": True}, "true or false in the assistant turn, not text", "answer"
    ),
    "a list as a question": _bad_row(
        {"question": ["x"], "answer": "x"}, "a list in the user turn, not text", "question"
    ),
    "a record as an answer": _bad_row(
        {"question": "x", "answer": {"text": "x"}}, "a record in the assistant turn, not text", "answer"
    ),
    "an empty answer": _bad_row({"question": "x", "answer": ""}, "empty answer", "turn 1"),
    **{
        f"an answer of {name}": _bad_row({"question": "x", "answer": blank}, "empty answer", "turn 1")
        for name, blank in {
            "spaces": "   ",
            "line breaks": "\r\n\t\v\f",
            "wide spaces": "\u00a0\u2003\u3000\u202f",
            "line separators": "\u2028\u2029\u0085",
            "information separators": "\x1c\x1d\x1e\x1f",
            "invisible characters": "\u200b\ufeff\u2060",
        }.items()
    },
    "a row over max_length": _bad_row({"question": "long " * 300, "answer": "x"}, "longer than 256 tokens", ""),
    "a field of 3 MB": _bad_row({"question": "x" * 3_000_000, "answer": "x"}, "longer than 256 tokens", ""),
    "an answer of 1 MB of words": _bad_row(
        {"question": "x", "answer": "word " * 200_000}, "longer than 256 tokens", ""
    ),
    "the same row twice": Case("a.jsonl", in_lines(*ROWS, ROWS[0]), dropped={13: ("word for word an earlier row", "")}),
    "rows of another format": _bad_row({"messages": TURNS[0]}, "a column is missing", "question"),
    "more rows than there are": whole("a.jsonl", ALL, "1000 rows are asked for, and", rows=1000),
}
# Python's own encoder does not nest that deep.
_DEEP = f'{{"messages": [{{"role": {nested(1000)}, "content": "x"}}]}}'.encode()
CONVERSATIONS = {
    "an unknown role": _turns([{"role": "critic", "content": "x"}, ANSWERED], "unknown role 'critic'", "messages[0]"),
    "a role of another case": _kept_turns([{"role": "User", "content": "x"}, ANSWERED], "x"),
    "a role with a space": _kept_turns([{"role": "user ", "content": "x"}, ANSWERED], "x"),
    "a role that is missing": _turns([ASKED, {"content": "x"}], "no role", "messages[1]"),
    "a role that is null": _turns([ASKED, {"role": None, "content": "x"}], "no role", "messages[1]"),
    "a role that is a number": _turns([{"role": 1, "content": "x"}, ANSWERED], "a number as the role", "messages[0]"),
    "a role that is a list": _turns([{"role": ["user"], "content": "x"}], "a list as the role", "messages[0]"),
    "a role that is called None": _turns([{"role": "None", "content": "x"}], "unknown role 'None'", "messages[0]"),
    "a role that is called 1": _turns([{"role": "1", "content": "x"}], "unknown role '1'", "messages[0]"),
    "a role of deep nesting": _turns(_DEEP, "a record as the role", "messages[0]"),
    "two users in a row": _turns([ASKED, ASKED, ANSWERED], "two user turns in a row", "turn 1"),
    "two assistants in a row": _turns([ASKED, ANSWERED, ANSWERED], "two assistant turns in a row", "turn 2"),
    "a system message in the middle": _turns(
        [ASKED, ANSWERED, {"role": "system", "content": "x"}, ASKED, ANSWERED],
        "a system message that is not the first",
        "turn 2",
    ),
    "two system messages": _turns(
        [{"role": "system", "content": "x"}] * 2 + [ASKED, ANSWERED], "a system message that is not the first", "turn 1"
    ),
    "only a system message": _turns(
        [{"role": "system", "content": "x"}], "ends with a system turn, not with an answer", "turn 0"
    ),
    "an empty system message and nothing else": _turns([{"role": "system", "content": ""}], "no turns at all", ""),
    "an answer after a system message": _turns(
        [{"role": "system", "content": "x"}, ANSWERED], "an assistant turn after the system turn", "turn 1"
    ),
    "an answer first": _turns([ANSWERED, ASKED, ANSWERED], "an assistant turn first", "turn 0"),
    "a question last": _turns([ASKED, ANSWERED, ASKED], "ends with a user turn, not with an answer", "turn 2"),
    "a tool first": _turns([{"role": "tool", "content": "x"}, ANSWERED], "a tool turn first", "turn 0"),
    "a tool last": _turns(
        [ASKED, ANSWERED | {"tool_calls": [CALL]}, {"role": "tool", "content": "x"}],
        "ends with a tool turn, not with an answer",
        "turn 2",
    ),
    "an answer that is empty": _turns([ASKED, {"role": "assistant", "content": ""}], "empty answer", "turn 1"),
    "a question of white space": _turns([{"role": "user", "content": " \n"}, ANSWERED], "empty user turn", "turn 0"),
    "content that is null": _turns([ASKED, {"role": "assistant", "content": None}], "empty answer", "turn 1"),
    "content that is missing": _turns([ASKED, {"role": "assistant"}], "empty answer", "turn 1"),
    "content that is a number": _turns(
        [ASKED, {"role": "assistant", "content": 5.5}], "a number in the assistant turn, not text", "messages[1]"
    ),
    "content that is a whole number": _kept_turns([ASKED, {"role": "assistant", "content": 17}], "2 + 3?"),
    "content that is a list of parts": _kept_turns(
        [{"role": "user", "content": [{"type": "text", "text": "x y "}, {"type": "text", "text": "z"}]}, ANSWERED],
        "x y z",
    ),
    "content with a part that is no text": _turns(
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ANSWERED],
        "a part of the type 'image_url' in the user turn, not text",
        "messages[0].content[0]",
    ),
    "content that is a record": _turns(
        [{"role": "user", "content": {"text": "x"}}, ANSWERED], "a record in the user turn, not text", "messages[0]"
    ),
    "messages that are text": _turns("user: x", "text, not a list of records", "messages"),
    "messages that are JSON text": _kept_turns(json.dumps([{"role": "user", "content": "x y"}, ANSWERED]), "x y"),
    "messages that are null": _turns({"messages": None}, "nothing, not a list of records", "messages"),
    "messages that are a record": _turns(
        {"messages": {"role": "user", "content": "x"}}, "a record, not a list of records", "messages"
    ),
    "no messages": _turns([], "no turns at all", ""),
    "messages that are missing": _turns({"text": "x"}, "a column is missing", "messages"),
    "a message that is text": _turns([ASKED, "5"], "text, not a record", "messages[1]"),
    "a message that is null": _turns([ASKED, None], "nothing, not a record", "messages[1]"),
    "a message that is a list": _turns([["user", "x"], ["assistant", "y"]], "a list, not a record", "messages[0]"),
    "a turn of sharegpt in messages": _turns(
        [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}], "no role", "messages[0]"
    ),
    "calls that are text": _turns(
        [ASKED, ANSWERED | {"tool_calls": "add(2)"}], "no JSON, which tool calls have to be", "messages[1].tool_calls"
    ),
    "calls that are a number": _turns(
        [ASKED, ANSWERED | {"tool_calls": 7}], "a number, not a list of tool calls", "messages[1].tool_calls"
    ),
    "a call that is text": _turns(
        [ASKED, ANSWERED | {"tool_calls": ["add(2)"]}],
        "no JSON, which tool calls have to be",
        "messages[1].tool_calls",
    ),
    "calls that the template does not write": _turns(
        [ASKED, ANSWERED | {"tool_calls": [CALL]}], "the chat template has no tools", ""
    ),
    "tools that the template does not write": _turns(
        {"messages": TURNS[0], "tools": [CALL]}, "the chat template has no tools", "tools"
    ),
    "tools that are no JSON": _turns(
        {"messages": TURNS[0], "tools": "add(a, b)"}, "no JSON, which tools have to be", "tools"
    ),
    "tools that are a number": _turns({"messages": TURNS[0], "tools": 7}, "a number, not a list of tools", "tools"),
    "tools that are a record": _turns({"messages": TURNS[0], "tools": CALL}, "a record, not a list of tools", "tools"),
    "a tool that is text": _turns({"messages": TURNS[0], "tools": ["add"]}, "no JSON, which tools have to be", "tools"),
    "tools of deep nesting": _turns(
        {"messages": TURNS[0], "tools": "[" * 100_000 + "]" * 100_000}, "no JSON, which tools have to be", "tools"
    ),
    "tools with a surrogate alone": _turns(
        {"messages": [ASKED, ANSWERED], "tools": '[{"name": "\\ud800"}]'},
        "no JSON, which tools have to be",
        "tools",
        template=WITH_TOOLS,
    ),
    "tools with NaN": _turns(
        {"messages": [ASKED, ANSWERED], "tools": '[{"name": NaN}]'},
        "no JSON, which tools have to be",
        "tools",
        template=WITH_TOOLS,
    ),
    "tools with an integer beyond 64 bits": _kept_turns(
        {"messages": [ASKED, ANSWERED], "tools": '[{"name": 123456789012345678901234567890}]'},
        "2 + 3?",
        template=WITH_TOOLS,
    ),
    "a name nested 300 levels": _turns(
        [ASKED, ANSWERED | {"name": json.loads(nested(300))}],
        "a record as the name, not text",
        "messages[1].name",
        template=WITH_TOOLS,
    ),
    "calls nested 300 levels": _turns(
        [ASKED, ANSWERED | {"tool_calls": [json.loads(nested(300))]}],
        "tool calls that are nested too deeply",
        "messages[1].tool_calls",
        template=WITH_TOOLS,
    ),
    "two hundred turns": _turns([ASKED, ANSWERED] * 100, "longer than 256 tokens", ""),
    "a template that refuses": _turns(
        [{"role": "system", "content": "x"}, ASKED, ANSWERED],
        "the chat template refuses it: No system turn",
        "",
        template="{% if messages[0].role == 'system' %}{{ raise_exception('No system turn') }}{% endif %}" + WITH_TOOLS,
    ),
    "an unknown sender": _pairs(
        [{"from": "alien", "value": "x"}, {"from": "gpt", "value": "y"}], "unknown role 'alien'", "conversations[0]"
    ),
    "a sender of another case": _pairs(
        [{"from": "Alien", "value": "x"}, {"from": "gpt", "value": "y"}], "unknown role 'Alien'", "conversations[0]"
    ),
    "a sender that is missing": _pairs([{"value": "x"}, {"from": "gpt", "value": "y"}], "no role", "conversations[0]"),
    "a value that is missing": _pairs([{"from": "human", "value": "x"}, {"from": "gpt"}], "empty answer", "turn 1"),
    "no output": _alpaca({"instruction": "x", "input": ""}, "a column is missing", "output"),
    "an output that is null": _alpaca({"instruction": "x", "input": "", "output": None}, "empty answer", "turn 1"),
    "an input that is a list": _alpaca(
        {"instruction": "x", "input": [1], "output": "x"}, "a list in the input, not text", "input"
    ),
}
