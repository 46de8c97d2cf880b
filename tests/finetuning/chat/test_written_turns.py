"""A row of which the chat template refuses, loses or changes a turn is dropped or divided, and calls are learned."""

import pytest

from finetuning.chat.conversations import conversation_of
from finetuning.tokens import NOT_SUPERVISED
from tests.finetuning.chat.made_rows import NO_SYSTEM, WORDS, Made, different, line_of, messages_of, rows_of

CALLS = [{"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 3}}}]
WITH_TOOLS = (
    "{% if tools %}{{ 'TOOLS ' + tools | tojson + '\n' }}{% endif %}"
    "{% for message in messages %}{{ '[' + message['role'] + ']' + message['content'] }}"
    "{% for call in message.tool_calls or [] %}{{ '<call>' + call['function'] | tojson }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_a_system_prompt_that_the_template_refuses_drops_the_row(tmp_path, tokenizer):
    tokenizer.chat_template = NO_SYSTEM + tokenizer.chat_template
    rows = [{"messages": messages_of(row)} for row in different(20)]
    rows[3]["messages"].insert(0, {"role": "system", "content": "Be brief."})
    made = Made(tmp_path, tokenizer, rows, format="messages")
    assert made.reasons == {"the chat template refuses it: System role not supported": [4]}
    assert made.summary.checks["refused_rows"].rows == 1 and made.failed() == set() and len(made.kept) == 19
    strict = Made(tmp_path / "strict", tokenizer, rows, format="messages", checks={"refused_rows": {"limit": 0.0}})
    assert strict.failed() == {"refused_rows"}


def test_a_template_that_leaves_a_turn_out_drops_the_row(tmp_path, tokenizer):
    tokenizer.chat_template = (
        "{% for message in messages if message['role'] != 'system' %}[{{ message['role'] }}]{{ message['content'] }}"
        "{{ eos_token if message['role'] == 'assistant' }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    rows = [{"messages": messages_of(row)} for row in different(20)]
    rows[3]["messages"].insert(0, {"role": "system", "content": "Be brief."})
    made = Made(tmp_path, tokenizer, rows, format="messages")
    assert made.reasons == {"the chat template leaves out or changes the system turn": [4]}


def calling(n: int) -> dict:
    messages = [
        {"role": "user", "content": f"{WORDS[n]} {n} + 30?"},
        {"role": "assistant", "content": "", "tool_calls": CALLS},
        {"role": "tool", "content": f"{n + 30}", "name": "add"},
        {"role": "assistant", "content": f"#### {n + 30}"},
    ]
    return {"messages": messages, "tools": [{"type": "function", "function": {"name": "add", "parameters": {}}}]}


def test_calls_of_tools_are_learned_where_the_template_writes_them(tmp_path, tokenizer):
    tokenizer.chat_template = WITH_TOOLS
    made = Made(tmp_path, tokenizer, [calling(n) for n in range(20)], format="messages")
    assert len(made.kept) == 20 and made.dropped == []
    for row in made.kept:
        messages, tools = conversation_of(row)
        assert {"messages": messages, "tools": tools} == calling(line_of(row) - 1)
        text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
        assert tokenizer.decode(row["input_ids"]) == text and "<call>" in text and text.startswith("TOOLS")
        learned = tokenizer.decode([label for label in row["labels"] if label != NOT_SUPERVISED])
        assert learned.startswith("<call>") and learned.endswith(f"{messages[-1]['content']}</s>")
        assert learned.count("</s>") == 2 and messages[2]["content"] not in learned.split("</s>")[0]


@pytest.mark.parametrize("lost", ["calls", "tools"])
def test_calls_and_tools_that_the_template_does_not_write_drop_the_row(tmp_path, tokenizer, lost):
    if lost == "calls":
        tokenizer.chat_template = WITH_TOOLS.replace("message.tool_calls or []", "[]")
    else:
        tokenizer.chat_template = WITH_TOOLS.replace("{% if tools %}", "{% if false %}")
    rows = [*({"messages": messages_of(row)} for row in different(20)), calling(1), calling(2)]
    made = Made(tmp_path, tokenizer, rows, format="messages")
    ((reason, lines),) = made.reasons.items()
    assert lines == [21, 22] and "tool" in reason and "template" in reason
    assert len(made.kept) == 20


def test_a_template_that_stumbles_over_a_row_drops_it(tmp_path, tokenizer):
    tokenizer.chat_template = WITH_TOOLS.replace("call['function'] | tojson", "call['function']['result']['sum']")
    rows = [*({"messages": messages_of(row)} for row in different(20)), calling(1)]
    made = Made(tmp_path, tokenizer, rows, format="messages")
    ((reason, lines),) = made.reasons.items()
    assert lines == [21] and reason.startswith("the chat template refuses it: ")


def test_a_template_that_changes_earlier_turns_has_each_answer_in_a_row_of_its_own(tmp_path, tokenizer):
    tokenizer.chat_template = "{% if messages | length > 2 %}!{% endif %}" + tokenizer.chat_template
    rows = [
        {"messages": [*messages_of(row), *messages_of(more)]}
        for row, more in zip(different(20), rows_of(20), strict=True)
    ]
    made = Made(tmp_path, tokenizer, rows, format="messages")
    assert (len(made.kept), made.summary.earlier_answers) == (40, 20)
    assert made.summary.train_rows == len(made.train) and made.summary.eval_rows == len(made.eval)
    for split in (made.train, made.eval):
        assert all([row["place"] for row in split].count(row["place"]) == 2 for row in split)
    for row in made.kept:
        learned = tokenizer.decode([label for label in row["labels"] if label != NOT_SUPERVISED])
        assert learned == f"{row['messages'][-1]['content']}</s>"
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
        assert tokenizer.decode(row["input_ids"]) == text
    assert made.failed() == set() and made.summary.tokens == sum(len(row["input_ids"]) for row in made.train)
