"""Who is trained on and who is examined with: no question in both, every row once, the same by the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.chat.splits import KEPT, Fate, Index, Split, split
from finetuning.checks.near_duplicates import Pairs
from finetuning.recipe.dataset import DatasetSpec, DevSpec, EvalSpec
from finetuning.recipe.source import SourceSpec

FILES = SourceSpec(files=["rows.jsonl"], format="question-answer")


def dataset(fraction: float | None = None, **keys) -> DatasetSpec:
    held_out = EvalSpec(fraction=fraction) if fraction else EvalSpec(sources=(FILES,))
    return DatasetSpec(sources=(FILES,), eval=held_out, **keys)


def digest(number: int, seed: int) -> int:
    return int(np.random.default_rng([number, seed]).integers(2**63))


def index(questions, answers=None, is_eval=None, seed: int = 42, batch: int = 7) -> Index:
    """Rows with these questions (numbers) and answers (all different, if not given), in batches."""
    answers = range(len(questions)) if answers is None else answers
    conversation = [digest(1000 * q + a, 0) for q, a in zip(questions, answers, strict=True)]
    asked = [digest(q, seed) for q in questions]
    is_eval = [False] * len(questions) if is_eval is None else is_eval
    starts = range(0, len(questions), batch)
    return Index(
        [np.array(is_eval[i : i + batch], bool) for i in starts],
        [np.array(conversation[i : i + batch], np.uint64) for i in starts],
        [np.array(asked[i : i + batch], np.uint64) for i in starts],
    )


def near(*pairs: tuple[int, int], same_answer: bool = False) -> Pairs:
    first, second = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    return Pairs(first, second, np.full(len(pairs), same_answer))


def rows(found: Split, fate: Fate) -> list[int]:
    return np.flatnonzero(found.fate == fate).tolist()


def in_order(found: Split, fate: Fate) -> list[int]:
    """The rows of a split in the order in which it has them."""
    return sorted(rows(found, fate), key=lambda row: found.position[row])


@pytest.mark.parametrize(("fraction", "wanted"), [(0.05, 10), (0.1, 20), (0.5, 100), (0.001, 1)])
def test_eval_has_its_fraction_of_the_rows_and_one_at_least(fraction, wanted):
    found = split(index(range(200)), near(), dataset(fraction))
    assert (len(rows(found, Fate.TRAIN)), len(rows(found, Fate.EVAL))) == (200 - wanted, wanted)


def test_rows_with_the_same_question_are_in_one_split_alone():
    questions = [n % 20 for n in range(200)]
    found = split(index(questions), near(), dataset(0.1))
    assert len(rows(found, Fate.EVAL)) == 20
    assert len({questions[row] for row in rows(found, Fate.EVAL)}) == 2
    assert found.overlap == 0


def test_what_nearly_repeats_a_question_is_in_the_same_split_over_any_number_of_steps():
    chain = near(*((n, n + 1) for n in range(9)))
    for seed in range(20):
        found = split(index(range(40), seed=seed), chain, dataset(0.3, seed=seed))
        assert len(set(found.fate[:10])) == 1
        assert found.overlap == 0


def test_a_question_that_is_near_one_copy_is_near_all_of_its_copies():
    questions = [0, 1, 0, 0, *range(2, 30)]
    for seed in range(20):
        found = split(index(questions, seed=seed), near((1, 3)), dataset(0.2, seed=seed))
        assert len(set(found.fate[:4])) == 1


def test_a_group_that_is_bigger_than_what_is_wanted_stays_in_train():
    questions = [0] * 50 + list(range(1, 51))
    for seed in range(10):
        found = split(index(questions, seed=seed), near(), dataset(0.1, seed=seed))
        assert len(rows(found, Fate.EVAL)) == 10 and min(rows(found, Fate.EVAL)) >= 50


@pytest.mark.parametrize("size", [2, 3, 5, 10])
def test_a_row_is_in_eval_as_often_with_others_that_are_nearly_the_same_as_alone(size):
    groups, alone = 500, 500
    first = np.arange(0, groups * size, size).repeat(size - 1)
    pairs = Pairs(first, np.setdiff1d(np.arange(groups * size), first), np.zeros(len(first), bool))
    drawn = np.zeros(2)
    for seed in range(30):
        digests = np.random.default_rng(seed).integers(2**64, size=groups * size + alone, dtype=np.uint64)
        rows_of = Index([np.zeros(len(digests), bool)], [digests], [digests])
        in_eval = split(rows_of, pairs, dataset(0.1, seed=seed)).fate == Fate.EVAL
        drawn += in_eval[: groups * size].mean(), in_eval[groups * size :].mean()
    assert drawn[0] / drawn[1] == pytest.approx(1, abs=0.15)


def test_the_smallest_group_is_examined_with_where_all_are_too_big():
    found = split(index([0] * 40 + [1] * 20 + [2] * 40), near(), dataset(0.05))
    assert rows(found, Fate.EVAL) == list(range(40, 60))


def test_one_question_alone_stays_in_train():
    found = split(index([0] * 10), near(), dataset(0.5))
    assert rows(found, Fate.TRAIN) == list(range(10))


def test_no_rows_are_no_mistake():
    found = split(Index(), near(), dataset(0.5))
    assert len(found.fate) == len(found.position) == 0 and found.overlap == 0


def test_the_seed_decides_split_and_order():
    first, again, other = (split(index(range(100), seed=s), near(), dataset(0.2, seed=s)) for s in (42, 42, 43))
    assert first.fate.tolist() == again.fate.tolist() and first.position.tolist() == again.position.tolist()
    assert rows(first, Fate.EVAL) != rows(other, Fate.EVAL)
    assert in_order(first, Fate.TRAIN)[:5] != in_order(other, Fate.TRAIN)[:5]


def test_each_split_is_in_random_order():
    found = split(index(range(1000)), near(), dataset(0.3))
    for fate in (Fate.TRAIN, Fate.EVAL):
        order = in_order(found, fate)
        assert found.position[order].tolist() == list(range(len(order)))
        assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.2


def test_a_few_more_rows_leave_the_split_of_the_others_nearly_as_it_was():
    before = rows(split(index(range(200)), near(), dataset(0.1)), Fate.EVAL)
    after = rows(split(index(range(210)), near(), dataset(0.1)), Fate.EVAL)
    assert len(set(before) & set(after)) >= 17


def test_a_train_row_whose_question_is_in_the_eval_sources_is_in_neither():
    found = split(index([0, 1, 2, 1, 3, 1], is_eval=[False] * 4 + [True] * 2), near(), dataset())
    assert found.fate.tolist() == [Fate.TRAIN, Fate.OVERLAP, Fate.TRAIN, Fate.OVERLAP, Fate.EVAL, Fate.EVAL]
    assert found.overlap == 0


@pytest.mark.parametrize("first", ["train", "eval"])
def test_a_train_row_that_is_nearly_in_the_eval_sources_is_in_neither(first):
    is_eval = [False, False, True] if first == "train" else [True, False, False]
    train, held_out = (0, 2) if first == "train" else (2, 0)
    found = split(index(range(3), is_eval=is_eval), near((0, 2)), dataset())
    assert (found.fate[train], found.fate[1], found.fate[held_out]) == (Fate.NEAR_OVERLAP, Fate.TRAIN, Fate.EVAL)
    assert found.overlap == 0


def test_a_train_row_with_the_question_of_one_that_is_nearly_in_eval_is_in_neither():
    found = split(index([0, 0, 1], is_eval=[False, False, True]), near((1, 2)), dataset())
    assert found.fate.tolist() == [Fate.NEAR_OVERLAP, Fate.NEAR_OVERLAP, Fate.EVAL]


def test_train_rows_that_are_near_to_each_other_stay():
    found = split(index(range(4), is_eval=[False] * 3 + [True]), near((0, 1), same_answer=True), dataset())
    assert found.fate.tolist() == [Fate.TRAIN] * 3 + [Fate.EVAL]
    assert found.near_duplicate.tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("dedup", "fates"),
    [
        ("none", [0, 0, 0, 0, 0, 0]),
        ("exact", [0, Fate.DUPLICATE, 0, 0, 0, Fate.DUPLICATE]),
        ("near", [0, Fate.DUPLICATE, 0, Fate.NEAR_DUPLICATE, 0, Fate.DUPLICATE]),
    ],
)
def test_repeats_are_dropped_as_the_recipe_says_and_the_first_is_kept(dedup, fates):
    # 1 repeats 0 word for word, and 5 too; 2 has the question with another answer; 3 nearly repeats 0, 4 its question.
    rows_of = index([0, 0, 0, 1, 2, 0, 9], answers=[0, 0, 7, 0, 0, 0, 0], is_eval=[False] * 6 + [True])
    pairs = Pairs(np.array([0, 0, 0]), np.array([1, 3, 4]), np.array([True, True, False]))
    found = split(rows_of, pairs, dataset(dedup=dedup))
    assert found.fate.tolist() == [*fates, Fate.EVAL]
    assert found.duplicate.tolist() == [False, True, False, False, False, True, False]
    assert found.near_duplicate.tolist() == [False, False, False, True, False, False, False]


def test_a_row_of_eval_that_repeats_one_of_train_is_no_duplicate():
    rows_of = index([0, 0, 1], answers=[0, 0, 0], is_eval=[False, True, False])
    found = split(rows_of, near((0, 1), same_answer=True), dataset(dedup="near"))
    assert found.fate.tolist() == [Fate.OVERLAP, Fate.EVAL, Fate.TRAIN]
    assert not found.duplicate.any() and not found.near_duplicate.any()


def test_the_fraction_is_of_the_rows_that_are_left():
    found = split(index([0] * 100 + list(range(1, 101)), answers=[0] * 200), near(), dataset(0.1, dedup="exact"))
    assert len(rows(found, Fate.DUPLICATE)) == 99
    assert len(rows(found, Fate.EVAL)) == 10


@settings(max_examples=150, deadline=None)
@given(
    questions=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    links=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39), st.booleans()), max_size=8),
    held_out=st.one_of(st.none(), st.floats(0.01, 0.9)),
    dedup=st.sampled_from(["none", "exact", "near"]),
    seed=st.integers(0, 5),
    data=st.data(),
)
def test_every_row_has_one_fate_and_no_question_is_in_both(questions, links, held_out, dedup, seed, data):
    count = len(questions)
    answers = [data.draw(st.integers(0, 2)) for _ in questions]
    is_eval = [False if held_out else data.draw(st.booleans()) for _ in questions]
    links = sorted({(min(a, b), max(a, b)): same for a, b, same in links if a != b and max(a, b) < count}.items())
    pairs = near(*(pair for pair, _ in links))._replace(same_answer=np.array([same for _, same in links], bool))
    found = split(index(questions, answers, is_eval, seed), pairs, dataset(held_out, dedup=dedup, seed=seed))
    sides = {fate: rows(found, fate) for fate in Fate}
    assert sum(map(len, sides.values())) == count
    train, held = (set(sides[fate]) for fate in (Fate.TRAIN, Fate.EVAL))
    assert not {questions[row] for row in train} & {questions[row] for row in held}
    assert not [pair for pair, _ in links if (pair[0] in train) + (pair[1] in train) == 1 and set(pair) & held]
    assert all((found.position[row] >= 0) == (row in train | held) for row in range(count))
    for side in (train, held):
        assert sorted(found.position[list(side)]) == list(range(len(side)))
    if dedup != "none":
        kept = [(is_eval[row], questions[row], answers[row]) for row in train | held]
        assert len(kept) == len(set(kept))
    if not held_out:
        assert all(is_eval[row] for row in held) and not any(is_eval[row] for row in train)


def with_feedback(questions, said, links=(), fraction=0.3, **keys):
    """The split of rows of a file, and of feedback after them; `links` are rows that nearly repeat each other."""
    rows_of = index([*questions, *said])
    numbers = np.array([0] * len(questions) + [1] * len(said), np.int16)
    rows_of.source = np.split(numbers, np.cumsum([len(part) for part in rows_of.question])[:-1])
    held_out = EvalSpec(fraction=fraction) if fraction else EvalSpec(sources=(FILES,))
    spec = DatasetSpec(sources=(FILES, SourceSpec(feedback="maths")), eval=held_out, **keys)
    return split(rows_of, near(*links), spec)


def test_feedback_is_never_in_the_exam_and_changes_nothing_of_it():
    alone = split(index(range(40)), near(), dataset(0.3))
    said = [*range(10), *range(100, 130)]
    # Feedback that is near two questions does not make these one.
    found = with_feedback(range(40), said, links=[(20, 60), (21, 60), (30, 61)])
    assert rows(found, Fate.EVAL) == rows(alone, Fate.EVAL)
    assert found.fate[:40].tolist() == alone.fate.tolist()
    assert not set(rows(found, Fate.EVAL)) & set(range(40, 80))
    assert found.overlap == 0


def test_feedback_about_a_question_of_the_exam_is_not_learned():
    questions = list(range(40))
    held = rows(with_feedback(questions, []), Fate.EVAL)
    found = with_feedback(questions, [held[0], 200, 300], links=[(held[1], 41)])
    assert found.fate[40:].tolist() == [Fate.EXAMINED, Fate.EXAMINED, Fate.TRAIN]


def test_feedback_alone_is_no_exam():
    found = with_feedback([], [1, 2, 3])
    assert rows(found, Fate.EVAL) == [] and rows(found, Fate.TRAIN) == [0, 1, 2]


DEV = DevSpec(fraction=0.1)


def test_dev_has_its_fraction_beside_eval_which_stays_what_it_is_without():
    for held_out in (0.2, None):
        is_eval = None if held_out else [n >= 180 for n in range(200)]
        with_dev, without = (
            split(index(range(200), is_eval=is_eval), near(), dataset(held_out, dev=dev)) for dev in (DEV, None)
        )
        assert rows(with_dev, Fate.EVAL) == rows(without, Fate.EVAL)
        assert len(rows(with_dev, Fate.DEV)) == with_dev.dev_wanted == (20 if held_out else 18)
        assert not rows(without, Fate.DEV) and without.dev_wanted == 0
        assert sorted(in_order(with_dev, Fate.DEV)) == rows(with_dev, Fate.DEV)
        assert sorted(with_dev.position[rows(with_dev, Fate.DEV)]) == list(range(with_dev.dev_wanted))


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=4, max_size=80),
    st.lists(st.tuples(st.integers(0, 79), st.integers(0, 79)), max_size=12),
    st.integers(0, 99),
    st.booleans(),
)
def test_no_question_is_in_two_of_three_splits(questions, pairs, seed, own_eval):
    count = len(questions)
    pairs = near(*(tuple(sorted(pair)) for pair in pairs if pair[0] != pair[1] and max(pair) < count))
    is_eval = [own_eval and n % 5 == 0 for n in range(count)]
    spec = dataset(None if own_eval else 0.2, seed=seed, dev=DEV)
    found = split(index(questions, is_eval=is_eval, seed=seed), pairs, spec)
    asked = {fate: {questions[row] for row in rows(found, fate)} for fate in KEPT}
    assert not any(asked[one] & asked[other] for one in KEPT for other in KEPT if one < other)
    for first, second in zip(pairs.first, pairs.second, strict=True):
        fates = {found.fate[first], found.fate[second]} & set(KEPT)
        assert len(fates) < 2, "two that are nearly the same are in two splits"
    assert found.overlap == 0
