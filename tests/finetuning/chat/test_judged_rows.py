"""Rows of judged answers on their way to training: rendered as any conversation is, each with its judgement."""

import numpy as np
import pytest

from finetuning.chat.conversations import conversation_of
from finetuning.chat.template import load_template
from finetuning.checks.balance import balance
from finetuning.errors import FinetuningError
from finetuning.tokens import NOT_SUPERVISED
from tests.finetuning.chat.made_rows import Made, different, line_of, raw
from tests.rendered import render

KEYS = {"format": "unpaired-preference", "method": "kto"}


@pytest.fixture
def tokenizer(tiny_tokenizer):
    load_template(tiny_tokenizer, "instruction", "x.yaml")
    return tiny_tokenizer


def answers(count: int) -> list[dict]:
    """Rows whose prompts have nothing in common, of which every third is bad."""
    return [
        {"prompt": row["question"], "completion": row["answer"], "label": n % 3 > 0}
        for n, row in enumerate(different(count))
    ]


def test_an_answer_is_rendered_as_any_is_and_keeps_its_judgement(tmp_path, tokenizer):
    rows = answers(30)
    made = Made(tmp_path, tokenizer, rows, **KEYS)
    assert (len(made.train), len(made.eval)) == (27, 3) and made.failed() == set()
    for row in made.kept:
        messages, original = conversation_of(row).messages, rows[line_of(row) - 1]
        assert [message["content"] for message in messages] == [original["prompt"], original["completion"]]
        assert (row["input_ids"], row["labels"]) == render(tokenizer, messages)
        assert row["desirable"] == original["label"]


@pytest.mark.parametrize("form", ["prompt", "messages", "conversations"])
def test_the_last_answer_alone_is_supervised(tmp_path, tokenizer, form):
    rows = []
    for row in answers(30):
        asked = [
            {"role": "user", "content": f"Hello, {row['prompt']}"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Well?"},
        ]
        turns = [*asked, {"role": "assistant", "content": row["completion"]}]
        forms = {
            "prompt": {"prompt": asked, "completion": turns[-1:]},
            "messages": {"messages": turns},
            "conversations": {"conversations": [{"from": turn["role"], "value": turn["content"]} for turn in turns]},
        }
        rows.append({**forms[form], "label": int(row["label"]), "said": row["completion"]})
    made = Made(tmp_path, tokenizer, rows, **KEYS)
    assert made.failed() == set() and len(made.kept) == 30
    for row in made.kept:
        learned = [label for label in row["labels"] if label != NOT_SUPERVISED]
        assert tokenizer.decode(learned) == rows[line_of(row) - 1]["said"] + "</s>"
        assert row["desirable"] == rows[line_of(row) - 1]["label"]


def test_a_judged_conversation_ends_with_an_answer_and_its_faults_are_named_by_its_column(tmp_path, tokenizer):
    rows = [
        {
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"]},
            ],
            "label": row["label"],
        }
        for row in answers(30)
    ]
    rows[6]["messages"].pop()
    rows[8]["messages"][1]["role"] = "critic"
    rows[9]["messages"].insert(0, {"role": "assistant", "content": "Hello."})
    made = Made(tmp_path, tokenizer, rows, **KEYS)
    assert made.reasons == {
        "ends with a user turn, not with an answer": [7],
        "unknown role 'critic'": [9],
        "an assistant turn first": [10],
    }
    assert [row["field"] for row in made.dropped] == ["turn 0", "messages[1]", "turn 0"] and len(made.kept) == 27


def test_a_row_without_a_judgement_is_dropped_with_its_place(tmp_path, tokenizer):
    rows = answers(30)
    rows[6]["label"] = None
    made = Made(tmp_path, tokenizer, rows, **KEYS)
    assert made.reasons == {"a label that is neither true nor false": [7]} and len(made.kept) == 29
    assert made.failed() == {"bad_rows"}


def test_the_same_answer_with_two_judgements_is_no_repetition(tmp_path, tokenizer):
    rows = answers(30)
    made = Made(tmp_path, tokenizer, [*rows, rows[0] | {"label": True}, rows[1]], dedup="exact", **KEYS)
    assert made.reasons == {"word for word an earlier row": [32]}


def test_an_answer_that_is_too_long_is_dropped(tmp_path, tokenizer):
    rows = answers(30)
    rows[6]["completion"] = "long " * 300
    assert Made(tmp_path, tokenizer, rows, **KEYS).reasons == {"longer than 256 tokens": [7]}


@pytest.mark.parametrize(
    ("label", "advice"), [(True, "or learn these with method: sft"), (False, "Add rows with the other one[.]")]
)
def test_answers_that_were_all_judged_alike_teach_nothing(tmp_path, tokenizer, label, advice):
    rows = [row | {"label": label} for row in answers(30)]
    with pytest.raises(FinetuningError, match=f"all 27 train rows have the label .*{advice}"):
        Made(tmp_path, tokenizer, rows, **KEYS)


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        (10, 10, "10 answers were judged good and 10 bad"),
        (13, 10, "13 answers were judged good and 10 bad"),
        (40, 10, "write training.undesirable_weight: 4 to even it out"),
        (10, 25, "write training.desirable_weight: 2.5 to even it out"),
    ],
)
def test_weights_that_even_out_the_judgements_are_named(tmp_path, good, bad, said):
    recipe = raw(tmp_path, answers(3), **KEYS)
    (note,) = balance(np.repeat([True, False], [good, bad]), recipe)
    assert note.endswith(said)


def test_rows_that_were_dropped_are_told_where_one_judgement_is_gone(tmp_path, tokenizer):
    rows = [row | {"label": 1 if number % 2 else "thumbs down"} for number, row in enumerate(answers(40))]
    with pytest.raises(FinetuningError, match=r"20 rows were dropped: a label that is neither .*Write true or false"):
        Made(tmp_path, tokenizer, rows, **KEYS)
