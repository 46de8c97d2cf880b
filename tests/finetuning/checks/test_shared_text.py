"""Text that many questions share makes no two of them alike; what is really alike is still found."""

import numpy as np
import pytest

from finetuning.checks.near_duplicates import Sketches, clusters
from tests.finetuning.checks.test_near_duplicates import SIMILARITY, as_set, changed, found, tokens, words

ROWS = 600


def framed(place: str, shared: list[int], own: list[int]) -> list[int]:
    """A question of the text that all share and of its own, the shared one at that place."""
    if place == "middle":
        return [*own[: len(own) // 2], *shared, *own[len(own) // 2 :]]
    return [*shared, *own] if place == "start" else [*own, *shared]


@pytest.mark.parametrize("place", ["start", "middle", "end"])
@pytest.mark.parametrize("rows", [10, 40, ROWS])
def test_questions_that_share_a_long_instruction_are_not_alike(tmp_path, place, rows):
    rng = np.random.default_rng(1)
    shared = words(rng, 300)
    conversations = [(framed(place, shared, words(rng, int(rng.integers(2, 9)))), [5]) for _ in range(rows)]
    assert not as_set(found(tmp_path, conversations))


@pytest.mark.parametrize("instructions", [3, 10])
def test_nor_are_they_where_there_are_several_instructions(tmp_path, instructions):
    rng = np.random.default_rng(2)
    shared = [words(rng, 200) for _ in range(instructions)]
    conversations = [(shared[n % instructions] + words(rng, 6), [5]) for n in range(ROWS)]
    assert not as_set(found(tmp_path, conversations))


def test_two_instructions_with_the_same_message_are_two_questions(tmp_path):
    rng = np.random.default_rng(3)
    shared = [words(rng, 200) for _ in range(2)]
    messages = [words(rng, 30) for _ in range(ROWS // 2)]
    conversations = [(instruction + message, [5]) for instruction in shared for message in messages]
    assert not as_set(found(tmp_path, conversations))


def test_a_document_that_all_ask_about_does_not_count_and_their_questions_do(tmp_path):
    rng = np.random.default_rng(4)
    document = words(rng, 2000)
    questions = [words(rng, 100) for _ in range(ROWS // 2)]
    conversations = [(document + question, [5]) for question in questions]
    conversations += [(document + changed(rng, question, 0.95), [5]) for question in questions[:50]]
    pairs = as_set(found(tmp_path, conversations))
    assert not {(first, second) for first, second in pairs if second - first != ROWS // 2}
    assert len(pairs) >= 45


def test_documents_that_differ_are_compared_whole_with_the_same_question_about_each(tmp_path):
    rng = np.random.default_rng(5)
    question = words(rng, 30)
    documents = [words(rng, 300) for _ in range(200)]
    near = [changed(rng, document, 0.97) for document in documents[:50]]
    pairs = as_set(found(tmp_path, [(document + question, [5]) for document in documents + near]))
    assert not {(first, second) for first, second in pairs if second - first != 200}
    assert len(pairs) >= 48


def test_questions_of_nothing_but_shared_text_are_alike_where_they_are_equal(tmp_path):
    rng = np.random.default_rng(6)
    start, middle, end = (words(rng, 40) for _ in range(3))
    own = [words(rng, 10) for _ in range(ROWS)]
    conversations = [(start + middle + end + text, [5]) for text in own]
    conversations += [(start + middle + end, [5])] * 2 + [(start + middle, [5])]
    assert as_set(found(tmp_path, conversations)) == {(ROWS, ROWS + 1)}


@pytest.mark.parametrize("copies", [2, 5, 200])
def test_a_question_that_is_asked_often_is_no_instruction(tmp_path, copies):
    rng = np.random.default_rng(7)
    question = words(rng, 100)
    near = changed(rng, question, 0.95)
    conversations = [(question, [5])] * copies + [(near, [5])] + [(words(rng, 100), [5]) for _ in range(300)]
    pairs = found(tmp_path, conversations)
    label = clusters(len(conversations), pairs.first, pairs.second)
    assert set(label[: copies + 1]) == {0}
    assert len(np.unique(label)) == 301


def test_what_rows_of_ordinary_language_are_alike_by_is_what_it_was(tmp_path):
    rng = np.random.default_rng(8)
    phrases = [words(rng, 4) for _ in range(20)]
    questions = [[*phrases[n % 20], *words(rng, 100), *phrases[(n * 7) % 20]] for n in range(400)]
    near = [changed(rng, question, 0.93) for question in questions[:100]]
    pairs = as_set(found(tmp_path, [(question, [5]) for question in questions + near]))
    assert sum((n, n + 400) in pairs for n in range(100)) >= 90
    assert not {pair for pair in pairs if pair[1] - pair[0] != 400}


def test_an_instruction_of_the_eval_rows_alone_does_not_count_either(tmp_path):
    rng = np.random.default_rng(9)
    shared = words(rng, 200)
    train = [words(rng, 20) for _ in range(6000)] + [shared + words(rng, 6) for _ in range(30)]
    held_out = [shared + words(rng, 6) for _ in range(40)]
    is_eval = [False] * len(train) + [True] * len(held_out)
    assert not as_set(found(tmp_path, [(question, [5]) for question in train + held_out], is_eval))


def test_answers_that_share_a_long_text_are_not_alike(tmp_path):
    rng = np.random.default_rng(10)
    shared, question = words(rng, 200), words(rng, 30)
    answers = [shared + words(rng, 5) for _ in range(100)]
    answers.append(answers[7])
    pairs = found(tmp_path, [(question, answer) for answer in answers])
    same = set(zip(pairs.first[pairs.same_answer].tolist(), pairs.second[pairs.same_answer].tolist(), strict=True))
    assert same <= {(7, 100)}


def test_no_file_is_left(tmp_path):
    sketches = Sketches(tmp_path / "signatures")
    sketches.add(tokens([([7, 8, 9], [5])]))
    sketches.pairs(np.zeros(1, bool), SIMILARITY)
    sketches.remove()
    assert not list(tmp_path.iterdir())
