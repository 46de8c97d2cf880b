"""Near duplicates against the exact Jaccard similarity of three-token sequences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.checks.near_duplicates import Sketches, clusters
from finetuning.tokens import ANSWER, OTHER, QUESTION, Tokens

PAIRS = 100

SIMILARITY = 0.85


def tokens(conversations) -> Tokens:
    """Conversations of a question and an answer (lists of ids), with the same tokens of the template around them."""
    ids, kinds, ends = [], [], []
    for question, answer in conversations:
        ids += [1, *question, 2, *answer, 3]
        kinds += [OTHER, *[QUESTION] * len(question), OTHER, *[ANSWER] * len(answer), OTHER]
        ends.append(len(ids))
    return Tokens(np.array(ids, np.int32), np.array(kinds, np.int8), np.array(ends, np.int64))


def found(tmp_path, conversations, is_eval=None, together=1000):
    sketches = Sketches(tmp_path / "signatures")
    for start in range(0, len(conversations), together):
        sketches.add(tokens(conversations[start : start + together]))
    return sketches.pairs(np.zeros(len(conversations), bool) if is_eval is None else np.array(is_eval), SIMILARITY)


def as_set(pairs) -> set[tuple[int, int]]:
    assert (pairs.first < pairs.second).all()
    listed = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert len(listed) == len(set(listed))
    return set(listed)


def words(rng, count: int = 200) -> list[int]:
    return rng.integers(10, 40_000, count).tolist()


def jaccard(one: list[int], other: list[int]) -> float:
    first, second = ({tuple(text[i : i + 3]) for i in range(len(text) - 2)} for text in (one, other))
    return len(first & second) / len(first | second)


def changed(rng, text: list[int], similarity: float) -> list[int]:
    """A text whose Jaccard similarity to `text` is about that, with single tokens exchanged."""
    text = list(text)
    other, places = list(text), rng.permutation(len(text) - 4) + 2
    for place in places:
        if jaccard(text, other) <= similarity:
            break
        other[place] = int(rng.integers(50_000, 1_000_000))
    return other


@pytest.mark.parametrize(("similarity", "least", "most"), [(0.95, 0.98, 1), (0.5, 0, 0.01), (0.0, 0, 0)])
def test_questions_are_near_by_their_exact_similarity(tmp_path, similarity, least, most):
    rng = np.random.default_rng(1)
    questions = [words(rng) for _ in range(PAIRS)]
    others = [changed(rng, question, similarity) for question in questions]
    exact = [jaccard(a, b) for a, b in zip(questions, others, strict=True)]
    assert abs(np.mean(exact) - similarity) < 0.03
    pairs = as_set(found(tmp_path, [(question, [5]) for question in questions + others]))
    share = sum((i, i + PAIRS) in pairs for i in range(PAIRS)) / PAIRS
    assert least <= share <= most
    assert not {pair for pair in pairs if pair[1] - pair[0] != PAIRS}


def test_what_is_counted_as_near_is_near_the_limit_or_above_it(tmp_path):
    rng = np.random.default_rng(2)
    questions = [words(rng) for _ in range(PAIRS)]
    others = [changed(rng, q, s) for q, s in zip(questions, np.linspace(0.4, 1, PAIRS), strict=True)]
    pairs = as_set(found(tmp_path, [(question, [5]) for question in questions + others]))
    exact = {(i, i + PAIRS): jaccard(questions[i], others[i]) for i in range(PAIRS)}
    # The standard error of 64 hashes at 0.85 is 0.045.
    assert all(exact[pair] > SIMILARITY - 0.15 for pair in pairs)
    assert all(pair in pairs for pair, similarity in exact.items() if similarity > SIMILARITY + 0.12)


def test_answers_are_compared_apart_from_questions(tmp_path):
    rng = np.random.default_rng(3)
    question, answer, other = words(rng), words(rng), words(rng)
    near = changed(rng, answer, 0.97)
    conversations = [(question, answer), (question, other), (question, near), (other, answer)]
    pairs = found(tmp_path, conversations)
    same = dict(zip(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True), pairs.same_answer, strict=True))
    assert same == {(0, 1): False, (0, 2): True, (1, 2): False}


def test_the_template_is_no_part_of_what_is_compared(tmp_path):
    rng = np.random.default_rng(4)
    one, other = tokens([(words(rng, 20), [5])]), tokens([(words(rng, 20), [5])])
    prompt = np.array(words(rng, 500), np.int32)
    sketches = Sketches(tmp_path / "signatures")
    for found_tokens in (one, other):
        ids, kinds = np.r_[prompt, found_tokens.ids], np.r_[np.zeros(len(prompt), np.int8), found_tokens.kinds]
        sketches.add(Tokens(ids, kinds, found_tokens.ends + len(prompt)))
    assert not as_set(sketches.pairs(np.zeros(2, bool), 0.85))


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_short_questions_are_compared_too(tmp_path, length):
    rng = np.random.default_rng(5)
    question = words(rng, length)
    assert as_set(found(tmp_path, [(question, [5]), (words(rng, length), [5]), (question, [6])])) == {(0, 2)}


@pytest.mark.parametrize("copies", [2, 3, 50])
def test_all_of_many_repeats_are_connected_in_whatever_order_they_come(tmp_path, copies):
    rng = np.random.default_rng(6)
    conversations = [(words(rng, 30), [5])] * copies + [(words(rng, 30), [5]) for _ in range(50)]
    for attempt in range(3):
        order = rng.permutation(len(conversations))
        pairs = found(tmp_path, [conversations[i] for i in order])
        label = clusters(len(order), pairs.first, pairs.second)
        of_copies = {int(label[place]) for place, i in enumerate(order) if i < copies}
        assert len(of_copies) == 1, attempt
        assert len(np.unique(label)) == 51


def test_the_number_of_pairs_grows_no_faster_than_the_rows(tmp_path):
    question = words(np.random.default_rng(7), 30)
    pairs = as_set(found(tmp_path, [(question, [5])] * 1000))
    assert len(pairs) < 2 * 1000


def test_each_of_a_group_is_compared_with_one_of_eval(tmp_path):
    question = words(np.random.default_rng(8), 30)
    conversations = [(question, [5])] * 20
    pairs = as_set(found(tmp_path, conversations, is_eval=[n == 13 for n in range(20)]))
    assert {min(n, 13) + max(n, 13) * 100 for n in range(20) if n != 13} <= {a + b * 100 for a, b in pairs}


def test_batches_make_no_difference(tmp_path):
    rng = np.random.default_rng(9)
    some = [(words(rng, 30), words(rng, 20)) for _ in range(40)]
    conversations = some + some[::2]
    assert as_set(found(tmp_path, conversations, together=7)) == as_set(found(tmp_path, conversations))


def test_no_conversation_is_near_to_none(tmp_path):
    assert as_set(found(tmp_path, [])) == set()
    assert as_set(found(tmp_path, [([7, 8, 9], [5])])) == set()


@settings(max_examples=100)
@given(st.integers(1, 12).flatmap(
    lambda count: st.tuples(st.just(count), st.lists(st.tuples(*[st.integers(0, count - 1)] * 2), max_size=15))
))  # fmt: skip
def test_clusters_are_what_pairs_connect(case):
    count, pairs = case
    smallest = list(range(count))
    for _ in range(count):
        for a, b in pairs:
            smallest[a] = smallest[b] = min(smallest[a], smallest[b])
    first, second = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    assert clusters(count, first, second).tolist() == smallest
