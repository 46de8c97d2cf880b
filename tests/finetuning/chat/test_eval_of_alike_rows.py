"""Rows whose questions share a text, and rows that ask the same: eval, dedup, warnings, and advice that ends well."""

import re

import numpy as np
import pytest
import yaml

from finetuning.chat.conversations import conversation_of
from finetuning.checks.judgement import judge
from finetuning.errors import FinetuningError
from tests.finetuning.chat.made_rows import LONG, WORDS, Made, different

CLASSES = ("delivery", "payment", "return", "product question", "complaint", "other")
INSTRUCTIONS = [
    f"You are given {what}. Decide which of the following classes it belongs to: {', '.join(CLASSES)}. Answer with the "
    "name of the class alone, in lower case letters, without any punctuation and without an explanation. If several "
    "classes fit then name the one that is the most important for the customer."
    for what in ("a customer message of our shop", "an entry of the guest book", "the transcript of a call to us")
]


def classified(count: int, kinds: int = 1, place: str = "start") -> list[dict[str, str]]:
    """Short messages to sort into classes, each with the same long instruction, or one of some."""
    rng = np.random.default_rng(count)
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[" ".join(rng.choice(WORDS, rng.integers(3, 8)))] = None
    framed = {
        "start": "{0} Message: {1}",
        "end": "Message: {1}\n\n{0}",
        "middle": "Hello! {0} Message: {1} Think well, take your time, and say what you think is right.",
    }[place]
    answers = rng.choice(CLASSES, count).tolist()
    return [
        {"question": framed.format(INSTRUCTIONS[n % kinds], text), "answer": answer}
        for n, (text, answer) in enumerate(zip(texts, answers, strict=True))
    ]


def share_of_classes(rows: list[dict]) -> dict[str, float]:
    answers = [conversation_of(row).messages[-1]["content"] for row in rows]
    return {name: answers.count(name) / len(answers) for name in CLASSES}


@pytest.mark.parametrize(("kinds", "place"), [(1, "start"), (1, "middle"), (1, "end"), (3, "start")])
def test_a_long_instruction_makes_no_messages_alike(tmp_path, tokenizer, kinds, place):
    made = Made(tmp_path, tokenizer, classified(400, kinds, place), dedup="near", chat=LONG)
    assert (len(made.train), len(made.eval)) == (360, 40)
    assert made.failed() == set() and made.dropped == made.findings == []
    train, held_out = share_of_classes(made.train), share_of_classes(made.eval)
    assert max(abs(train[name] - held_out[name]) for name in CLASSES) < 0.25


def test_messages_of_the_eval_sources_are_told_apart_from_those_of_train(tmp_path, tokenizer):
    rows = classified(200)
    made = Made(tmp_path, tokenizer, rows[:160], eval_rows=[*rows[160:], rows[3] | {"answer": "x"}], chat=LONG)
    assert (len(made.train), len(made.eval)) == (159, 41)
    assert made.reasons == {"the question is in eval": [4]}


def test_ten_rows_with_one_instruction_can_be_divided(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, classified(10), fraction=0.2, chat=LONG)
    assert (len(made.train), len(made.eval)) == (8, 2)


def haikus(count: int, questions: list[str]) -> list[dict[str, str]]:
    rng = np.random.default_rng(1)
    return [
        {"question": questions[n % len(questions)], "answer": " ".join(rng.choice(WORDS, 11))} for n in range(count)
    ]


def test_rows_that_all_ask_the_same_are_told_what_is_true_and_what_to_write(tmp_path, tokenizer):
    rows = haikus(60, ["Write a haiku in my style."])
    with pytest.raises(FinetuningError) as error:
        Made(tmp_path / "one", tokenizer, rows)
    assert "all 60 rows that are left ask the same question" in str(error.value)
    assert "`dataset.eval.sources`" in str(error.value) and "similarity" not in str(error.value)
    made = Made(tmp_path / "other", tokenizer, rows, eval_rows=haikus(5, ["Write a haiku about the sea."]))
    assert (len(made.train), len(made.eval)) == (60, 5) and "overlap" not in made.failed()
    made = Made(tmp_path / "own", tokenizer, [row | {"question": f"About {n}, a haiku."} for n, row in enumerate(rows)])
    assert len(made.eval) == 6


def test_rows_that_all_ask_nearly_the_same_are_told_how_to_part_them(tmp_path, tokenizer):
    question = "Tell me about " + ", ".join(WORDS)
    rows = haikus(2, [f"{question} and nothing else", f"{question} and nothing more"])
    with pytest.raises(FinetuningError) as error:
        Made(tmp_path / "near", tokenizer, rows, chat=LONG)
    advised = yaml.safe_load(re.search(r"`(dataset: \{.*?\})`", str(error.value))[1])["dataset"]
    assert "2 questions that differ a little" in str(error.value)
    assert len(Made(tmp_path / "parted", tokenizer, rows, chat=LONG, **advised).eval) == 1


def test_a_fraction_that_takes_all_rows_is_told_so(tmp_path, tokenizer):
    with pytest.raises(FinetuningError, match=r"the train split is empty.*fraction takes all 2 rows.*Lower it"):
        Made(tmp_path, tokenizer, different(2), fraction=0.9)


def text_of(made: Made, name: str) -> str:
    return next(judgement.text for judgement in judge(made.summary.checks, made.recipe) if judgement.name == name)


@pytest.mark.parametrize(("questions", "fraction"), [(4, 0.1), (3, 0.4)])
def test_an_eval_of_another_size_is_warned_of_and_the_fraction_that_is_advised_gives_none(
    tmp_path, tokenizer, questions, fraction
):
    rows = haikus(120, [f"Write a haiku about {WORDS[n]}." for n in range(questions)])
    made = Made(tmp_path / "asked", tokenizer, rows, fraction=fraction)
    size, wanted = 120 // questions, round(120 * fraction)
    assert len(made.eval) == size != wanted and "eval_size" in made.failed()
    assert f"{size} rows where {wanted} are asked for" in text_of(made, "eval_size")
    advised = yaml.safe_load(re.search(r"`(eval: \{.*?\})`", text_of(made, "eval_size"))[1])["eval"]
    again = Made(tmp_path / "advised", tokenizer, rows, **advised)
    assert len(again.eval) == size and "eval_size" not in again.failed()


def test_an_eval_that_is_unlike_train_is_warned_of_with_figures(tmp_path, tokenizer):
    rows = [row | {"answer": "yes"} for row in different(40)]
    same = {"question": "Is it so?", "answer": "no"}
    made = Made(tmp_path, tokenizer, [*rows, *[same] * 41], eval_rows=[same | {"question": f"{n}?"} for n in range(20)])
    assert "eval_likeness" in made.failed()
    assert "the answer 'yes' (0.0% of eval, 49.4% of train)" in text_of(made, "eval_likeness")
    alike = Made(tmp_path / "b", tokenizer, [row | {"answer": CLASSES[n % 2]} for n, row in enumerate(different(48))])
    assert "eval_likeness" not in alike.failed()


def test_repeats_that_differ_in_white_space_are_dropped_and_reported(tmp_path, tokenizer):
    towns = [WORDS[n] for n in range(10)]
    rows = []
    for town in towns:
        rows += [
            {"question": f"Name a river near {town}.", "answer": f"The one of {town} is long."},
            {"question": f"Name a river  near {town}. ", "answer": f"The one of {town} is long. "},
            {"question": f"Name a river near {town}.\n", "answer": f"The one of\n{town} is long."},
        ]
    programs = ["if x:\n    a()\n    b()", "if x:\n    a()\nb()"]
    rows += [{"question": "What does it do?", "answer": program} for program in programs]
    repeats = [n + 1 for n in range(30) if n % 3]
    assert Made(tmp_path / "none", tokenizer, rows, fraction=0.3).found("duplicates") == repeats
    made = Made(tmp_path / "exact", tokenizer, rows, dedup="exact", fraction=0.3)
    assert made.reasons == {"word for word an earlier row": repeats}
    assert len(made.kept) == 12 and "duplicates" not in made.failed()


@pytest.mark.parametrize(
    ("rows", "refused", "passes"), [(11, 1, True), (12, 2, False), (300, 3, True), (300, 4, False)]
)
def test_one_row_that_the_template_refuses_ends_no_run_of_others(tmp_path, tokenizer, rows, refused, passes):
    tokenizer.chat_template = (
        "{% if 'BAD' in messages[0]['content'] %}{{ raise_exception('No') }}{% endif %}" + tokenizer.chat_template
    )
    some = different(rows)
    for row in some[:refused]:
        row["question"] = f"BAD {row['question']}"
    made = Made(tmp_path, tokenizer, some)
    assert made.reasons == {"the chat template refuses it: No": list(range(1, refused + 1))}
    assert ("refused_rows" not in made.failed()) == passes
    assert made.summary.checks["bad_rows"].rows == 0


@pytest.mark.parametrize(("tolerance", "passes"), [(0.01, True), (0.0, False)])
def test_one_row_that_is_too_long_ends_no_run_of_others_where_some_may_be(tmp_path, tokenizer, tolerance, passes):
    rows = different(11)
    rows[5]["answer"] = "word " * 300
    made = Made(tmp_path, tokenizer, rows, chat={"tolerance": tolerance})
    assert ("max_length" not in made.failed()) == passes and len(made.kept) == 10
