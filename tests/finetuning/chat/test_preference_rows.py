"""Rows of preferences on their way to training: both answers are rendered alike, checked alike, and kept together."""

import pytest

from finetuning.chat.conversations import conversation_of
from finetuning.chat.template import load_template
from finetuning.tokens import NOT_SUPERVISED
from tests.finetuning.chat.made_rows import NO_SYSTEM, SECRET, Made, different, line_of
from tests.rendered import render

KEYS = {"format": "preference", "method": "dpo"}


@pytest.fixture
def tokenizer(tiny_tokenizer):
    load_template(tiny_tokenizer, "instruction", "x.yaml")
    return tiny_tokenizer


def pairs(count: int) -> list[dict]:
    """Rows whose prompts have nothing in common."""
    return [
        {"prompt": row["question"], "chosen": row["answer"], "rejected": f"I do not know {n}"}
        for n, row in enumerate(different(count))
    ]


def with_row(change: dict) -> list[dict]:
    """Thirty rows, of which the seventh is changed."""
    rows = pairs(30)
    rows[6] |= change
    return rows


def learned(row: dict, side: str = "") -> list[int]:
    return [label for label in row[f"{side}labels"] if label != NOT_SUPERVISED]


def test_both_answers_are_rendered_as_any_conversation_is(tmp_path, tokenizer):
    rows = pairs(30)
    made = Made(tmp_path, tokenizer, rows, **KEYS)
    assert (len(made.train), len(made.eval)) == (27, 3)
    for row in made.kept:
        messages, original = conversation_of(row).messages, rows[line_of(row) - 1]
        assert [message["content"] for message in messages] == [original["prompt"], original["chosen"]]
        (rejected,) = conversation_of({"messages": row["rejected"], "tools": None}).messages
        assert rejected == {"role": "assistant", "content": original["rejected"]}
        assert (row["input_ids"], row["labels"]) == render(tokenizer, messages)
        assert (row["rejected_input_ids"], row["rejected_labels"]) == render(tokenizer, [messages[0], rejected])


def test_of_both_conversations_the_last_answer_alone_is_supervised(tmp_path, tokenizer):
    rows = [
        {
            "prompt": [
                {"role": "user", "content": f"Hello, {row['prompt']}"},
                {"role": "assistant", "content": "Hello."},
                {"role": "user", "content": "Well?"},
            ],
            **{side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")},
        }
        for row in pairs(30)
    ]
    made = Made(tmp_path, tokenizer, rows, **KEYS)
    assert made.failed() == set() and len(made.kept) == 30
    for row in made.kept:
        original = rows[line_of(row) - 1]
        assert tokenizer.decode(learned(row)) == original["chosen"][0]["content"] + "</s>"
        assert tokenizer.decode(learned(row, "rejected_")) == original["rejected"][0]["content"] + "</s>"


def test_sft_learns_the_chosen_answers_and_knows_nothing_of_the_others(tmp_path, tokenizer):
    rows = with_row({"rejected": "long " * 1000})
    made = Made(tmp_path, tokenizer, rows, format="preference")
    messages = [
        {"messages": [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r["chosen"]}]}
        for r in rows
    ]
    same = Made(tmp_path / "same", tokenizer, messages, format="messages")
    columns = ("messages", "tools", "input_ids", "labels")
    assert [[row[c] for c in columns] for row in made.kept] == [[row[c] for c in columns] for row in same.kept]
    assert made.train[0].keys() == {*columns, "place"} and len(made.kept) == 30


def test_a_pair_is_dropped_whole_where_either_answer_is_too_long(tmp_path, tokenizer):
    for side in ("chosen", "rejected"):
        made = Made(tmp_path / side, tokenizer, with_row({side: "long " * 200}), **KEYS)
        assert made.reasons == {"longer than 256 tokens": [7]} and len(made.kept) == 29
        assert made.summary.checks["max_length"].rows == 1
        assert made.summary.lengths.max > 256


@pytest.mark.parametrize(
    ("change", "check", "field"),
    [
        ({"rejected": f"My key is {SECRET}"}, "secrets", "rejected"),
        ({"chosen": f"My key is {SECRET}"}, "secrets", "turn 1"),
        ({"prompt": f"Is {SECRET} it?"}, "secrets", "turn 0"),
        ({"rejected": "It ends </s> here"}, "special_tokens", ""),
        ({"rejected": "ends </s> here", "chosen": "ends </s> there"}, "special_tokens", ""),
    ],
)
def test_a_fault_of_either_answer_is_a_fault_of_the_row_and_counted_once(tmp_path, tokenizer, change, check, field):
    made = Made(tmp_path, tokenizer, with_row(change), **KEYS)
    assert made.found(check) == [7] and made.summary.checks[check].rows == 1
    (found,) = [row for row in made.findings if row["check"] == check]
    assert found["field"] == field
    assert len(made.kept) == 30


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_pair_that_the_template_does_not_take_is_dropped_whole(tmp_path, tokenizer, side):
    refused = "{% for m in messages %}{% if 'never' in m.content %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
    tokenizer.chat_template = refused + tokenizer.chat_template
    made = Made(tmp_path, tokenizer, with_row({side: "I never do"}), **KEYS)
    assert [line_of(row) for row in made.dropped] == [7] and len(made.kept) == 29
    assert made.dropped[0]["field"].startswith("rejected") == (side == "rejected")
    assert made.summary.checks["refused_rows"].rows == 1


def test_rows_that_are_no_preferences_are_dropped_with_place_and_reason(tmp_path, tokenizer):
    rows = pairs(30)
    rows[2]["rejected"] = rows[2]["chosen"]
    rows[4] = {"chosen": rows[4]["chosen"], "rejected": "No", "prompt": None}
    del rows[5]["rejected"]
    made = Made(tmp_path, tokenizer, rows, **KEYS)
    assert made.reasons == {
        "chosen and rejected are the same": [3],
        "an answer without a prompt": [5],
        "a column is missing": [6],
    }
    assert made.summary.checks["bad_rows"].rows == 3 and made.failed() == {"bad_rows"}
    assert len(made.kept) == 27


def test_no_prompt_of_eval_is_in_train(tmp_path, tokenizer):
    rows = pairs(30)
    asked_again = [row | {"chosen": "Another", "rejected": "One"} for row in rows[:5]]
    made = Made(tmp_path, tokenizer, rows + asked_again, eval_rows=pairs(40)[28:], **KEYS)
    assert made.summary.checks["overlap"].rows == 2
    trained, examined = ({row["messages"][0]["content"] for row in side} for side in (made.train, made.eval))
    assert not trained & examined


def test_tokens_of_both_answers_are_counted_and_both_are_shown(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, pairs(30), **KEYS)
    sides = [(row[f"{side}input_ids"], learned(row, side)) for row in made.train for side in ("", "rejected_")]
    assert made.summary.tokens == sum(len(ids) for ids, _ in sides)
    assert made.summary.supervised_tokens == sum(len(labels) for _, labels in sides)
    assert [[token.id for token in shown] for shown in made.summary.preview] == [ids for ids, _ in sides[:6]]
    learned_first = [token.id for token in made.summary.preview[1] if token.supervised]
    assert learned_first == sides[1][1]


def test_a_secret_in_a_rejected_answer_is_not_in_the_preview(tmp_path, tokenizer):
    rows = [row | {"rejected": f"{SECRET} {n}"} for n, row in enumerate(pairs(30))]
    assert Made(tmp_path, tokenizer, rows, **KEYS).summary.preview == []


def test_a_system_prompt_that_the_template_refuses_drops_pairs_too(tmp_path, tokenizer):
    tokenizer.chat_template = NO_SYSTEM + tokenizer.chat_template
    system = [{"role": "system", "content": "Be brief."}]
    row = pairs(30)[6]
    made = Made(
        tmp_path, tokenizer, with_row({"prompt": [*system, {"role": "user", "content": row["prompt"]}]}), **KEYS
    )
    assert [line_of(row) for row in made.dropped] == [7]
