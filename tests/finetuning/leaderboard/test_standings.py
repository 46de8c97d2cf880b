"""One group: who stands where, and what is said of each two."""

import numpy as np
import pytest

from finetuning.leaderboard.groups import groups_of
from finetuning.leaderboard.standings import group_of
from tests.finetuning.leaderboard.made import entrant


def standings(*entrants):
    (alike,) = groups_of(entrants)
    return group_of(alike)


def test_the_best_score_comes_first_and_what_it_beats_is_said():
    good, fair, bad = ([1.0] * right + [0.0] * (40 - right) for right in (36, 34, 6))
    found = standings(entrant("bad", bad), entrant("fair", fair), entrant("good", good))
    assert [one.name for one in found.models] == ["good", "fair", "bad"] and found.unbeaten == ["good", "fair"]
    assert [one.beaten_by for one in found.models] == [[], [], ["fair", "good"]]
    first = found.comparisons[0]
    assert (first.better, first.other, first.is_beyond_noise) == ("good", "fair", False)
    assert first.gain == pytest.approx(0.05) and first.interval[0] < 0 < first.interval[1]
    assert [(one.better, one.other) for one in found.comparisons] == [
        ("good", "fair"),
        ("good", "bad"),
        ("fair", "bad"),
    ]
    assert found.comparisons[1].other_answers == 40, "each has answers of its own"


def test_of_a_metric_of_which_less_is_better_the_least_is_the_best():
    few, many = [0.0] * 36 + [1.0] * 4, [1.0] * 36 + [0.0] * 4
    found = standings(entrant("many", many, "empty", size=10.0), entrant("few", few, "empty", size=20.0))
    assert [one.name for one in found.models] == ["few", "many"] and found.unbeaten == ["few"]
    assert found.comparisons[0].gain == pytest.approx(0.8) and found.comparisons[0].interval[0] > 0
    assert found.models[1].gain == pytest.approx(-0.9), "over its base, whose share was 0"
    assert all(one.is_on_front for one in found.models)


def test_a_loss_weighs_rows_by_their_tokens():
    rng = np.random.default_rng(0)
    supervised = rng.integers(5, 60, 30).tolist()
    better = rng.uniform(0.5, 1.5, 30)
    worse = better + rng.uniform(0.1, 0.3, 30)
    found = standings(
        entrant("worse", worse, "perplexity", supervised=supervised),
        entrant("better", better, "perplexity", supervised=supervised),
    )
    assert found.models[0].score == pytest.approx(np.exp(np.average(better, weights=supervised)))
    assert found.unbeaten == ["better"] and found.comparisons[0].gain > 0


@pytest.mark.parametrize(
    ("sizes", "front"),
    [
        ([100.0, 50.0, 20.0], {"a", "b", "c"}),
        ([100.0, 200.0, 20.0], {"a", "c"}),
        ([20.0, 20.0, 20.0], {"a"}),
        ([None, 50.0, 60.0], {"b"}),
        ([None, None, None], set()),
    ],
)
def test_on_the_front_is_what_none_is_superior_to(sizes, front):
    right = {"a": 30, "b": 20, "c": 10}
    entrants = [
        entrant(name, [1.0] * right[name] + [0.0] * (40 - right[name]), size=size)
        for name, size in zip("abc", sizes, strict=True)
    ]
    assert {one.name for one in standings(*entrants).models if one.is_on_front} == front


def test_models_of_one_score_and_size_are_both_on_the_front():
    found = standings(entrant("a", [1.0, 0.0]), entrant("b", [0.0, 1.0]))
    assert [one.is_on_front for one in found.models] == [True, True]
