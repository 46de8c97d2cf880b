"""Product manuals: each question is answered by one sentence of its manual, or by none of all manuals."""

import itertools

from finetuning.dataset.product_manuals import UNSAID, generate, manuals, questions

MANUALS = dict(manuals())


def test_every_answer_is_in_the_sentence_that_is_quoted_and_that_is_in_the_manual():
    for row in itertools.chain(generate(1920, 1), generate(480, 1, "test")):
        if row["evidence"] is None:
            assert row["answer"] == UNSAID
            continue
        assert row["evidence"] in MANUALS[row["document"]]
        assert row["answer"] in row["evidence"]


def test_what_is_not_said_is_in_no_sentence_about_that_product():
    unsaid = [row for row in generate(1920, 1) if row["evidence"] is None]
    assert unsaid
    for row in unsaid:
        said = {other["question"] for other in generate(1920, 1) if other["evidence"]}
        assert row["question"] not in said


def test_a_seed_gives_the_same_questions_and_another_one_others():
    assert list(generate(50, 7)) == list(generate(50, 7))
    assert list(generate(50, 7)) != list(generate(50, 8))


def test_no_question_is_asked_twice_and_all_can_be_asked_for():
    for split in ("train", "test"):
        every = [row["question"] for row in generate(questions(split), 3, split)]
        assert len(every) == len(set(every)) == questions(split)


def test_products_of_the_exam_are_in_no_training_row():
    learned, asked = ({row["document"] for row in generate(questions(s), 3, s)} for s in ("train", "test"))
    assert not learned & asked and len(learned | asked) == len(MANUALS)
