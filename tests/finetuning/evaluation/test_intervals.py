"""Intervals hold what they say: by simulation of exams of few rows and many, whose true gain is known."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

from finetuning.evaluation.intervals import (
    Sides,
    chance_of_gain,
    figure_of,
    gain_interval,
    least_gain,
    least_rows,
    score_interval,
    standard_error,
    widened,
)

EXAMS = 400
LEAST_ROWS = least_rows(1)


def mean(figure):
    return figure


def sides(before, after, weights=None) -> Sides:
    """Of scores, and their weights."""
    weights = np.ones(len(before)) if weights is None else weights
    return Sides(*(np.stack([np.asarray(scores) * weights, weights], axis=1) for scores in (before, after)))


def shares(first: float, second: float) -> Callable:
    """Right with these chances, each model by itself."""
    return lambda rng, rows: (
        (rng.random(rows) < first).astype(float),
        (rng.random(rows) < second).astype(float),
        np.ones(rows),
    )


def nested(rng, rows):
    """The second has right what the first has, and a fiftieth more."""
    luck = rng.random(rows)
    return (luck < 0.5).astype(float), (luck < 0.52).astype(float), np.ones(rows)


def graded(rng, rows):
    """Scores such as those of chrf; the true gain is 0."""
    scores = rng.beta(2, 5, rows)
    return scores + rng.normal(0, 0.05, rows), scores + rng.normal(0, 0.05, rows), np.ones(rows)


def collapsing(rng, rows):
    """Scores such as those of chrf that all gain a little, but for a tenth of the answers; the true gain is 0."""
    scores = rng.uniform(0.4, 0.5, rows)
    return scores, np.where(rng.random(rows) < 0.1, 0.0, scores + 0.05), np.ones(rows)


def rarely_other(rng, rows):
    """Graded scores that are the same for both, but for a few; the true gain is 0."""
    before, other = rng.beta(2, 5, rows), rng.beta(2, 5, rows)
    return before, np.where(rng.random(rows) < 0.15, other, before), np.ones(rows)


def losses(rng, rows):
    """Means over tokens, of rows of very different lengths; the true gain is -0.3."""
    weights, loss = rng.integers(5, 60, rows).astype(float), rng.gamma(4, 0.5, rows)
    return loss, loss - 0.3 + rng.normal(0, 0.2, rows), weights


KINDS = {
    "a half each": (shares(0.5, 0.5), 0.0),
    "seldom right": (shares(0.02, 0.02), 0.0),
    "mostly right": (shares(0.9, 0.95), 0.05),
    "learned from nothing": (shares(0.0, 0.77), 0.77),
    "nearly the same": (nested, 0.02),
    "graded": (graded, 0.0),
    "collapsing": (collapsing, 0.0),
    "rarely other": (rarely_other, 0.0),
    "losses": (losses, -0.3),
}


@pytest.mark.parametrize("rows", [LEAST_ROWS, 8, 20, 128])
@pytest.mark.parametrize("kind", KINDS)
def test_an_interval_has_the_true_gain_in_it_as_often_as_it_says(kind, rows):
    draw, gain = KINDS[kind]
    rng = np.random.default_rng(rows)
    covered = 0
    for _ in range(EXAMS):
        low, high = gain_interval(sides(*draw(rng, rows)), mean)
        covered += low <= gain <= high
    # Three standard errors of a share of 0.95 in so many exams.
    assert covered / EXAMS >= 0.95 - 3 * (0.95 * 0.05 / EXAMS) ** 0.5


@pytest.mark.parametrize("rows", [LEAST_ROWS, 20, 128])
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng, rows: rng.random(rows) < 0.02, 0.02),
        (lambda rng, rows: rng.random(rows) < 0.5, 0.5),
        (lambda rng, rows: rng.random(rows) < 0.97, 0.97),
        (lambda rng, rows: rng.beta(2, 5, rows), 2 / 7),
    ],
    ids=["seldom right", "a half", "mostly right", "graded"],
)
def test_the_interval_of_a_score_has_the_true_one_in_it_as_often_as_it_says(draw, truth, rows):
    rng, covered = np.random.default_rng(rows), 0
    for _ in range(EXAMS):
        low, high = score_interval(sides(draw(rng, rows), np.zeros(rows)).first, mean)
        covered += low <= truth <= high
    assert covered / EXAMS >= 0.95 - 3 * (0.95 * 0.05 / EXAMS) ** 0.5


def test_the_interval_of_a_score_is_within_what_a_share_can_be_and_that_of_a_loss_is_not():
    rows = np.ones(12)
    assert score_interval(sides(rows, rows).first, mean)[1] == 1.0
    assert score_interval(sides(0 * rows, rows).first, mean)[0] == 0.0
    loss = sides([2.0, 3.0, 4.0], [0.0] * 3).first
    low, high = score_interval(loss, mean)
    assert low < 1.0 < 3.0 < high and (low + high) / 2 == pytest.approx(3.0)
    assert score_interval(loss[:1], mean) == (0.0, 4.0), "one row tells nothing"


def test_the_chance_of_a_gain_of_right_and_wrong_rows_is_the_binomials():
    before, after = np.array([1.0] * 3 + [0.0] * 9 + [1.0] * 20), np.array([0.0] * 3 + [1.0] * 9 + [1.0] * 20)
    assert chance_of_gain(sides(before, after), mean) == pytest.approx(binomtest(9, 12, alternative="greater").pvalue)
    assert chance_of_gain(sides(after, before), mean) == pytest.approx(binomtest(3, 12, alternative="greater").pvalue)
    assert chance_of_gain(sides(before, before), mean) == 1.0


def test_the_chance_of_a_gain_of_other_scores_is_that_of_students_test():
    rng = np.random.default_rng(0)
    before, after = rng.beta(2, 5, (2, 40))
    found = ttest_rel(after + 2, before + 2, alternative="greater").pvalue
    assert chance_of_gain(sides(before + 2, after + 2), mean) == pytest.approx(found)
    found = ttest_rel([*after, 0.0, 1.0], [*before, 1.0, 0.0], alternative="greater").pvalue
    assert chance_of_gain(sides(before, after), mean) == pytest.approx(found), "with the two rows of the interval"


def test_the_same_losses_and_a_single_row_show_no_gain():
    assert chance_of_gain(sides([3.0, 2.5, 2.0], [3.0, 2.5, 2.0]), mean) == 1.0
    assert chance_of_gain(sides([1.0], [3.0]), mean) == 1.0


@pytest.mark.parametrize("rows", [1, 2, 3, LEAST_ROWS, 8, 20, 50])
@pytest.mark.parametrize("kind", ["collapsing", "rarely other"])
def test_graded_answers_that_gained_nothing_seldom_seem_better(kind, rows):
    rng, (draw, _) = np.random.default_rng(rows), KINDS[kind]
    found = [gain_interval(sides(*draw(rng, rows)), mean)[0] > 0 for _ in range(EXAMS)]
    assert np.mean(found) <= 0.025 + 3 * (0.025 * 0.975 / EXAMS) ** 0.5


def test_graded_answers_that_all_gained_a_little_are_not_yet_better():
    low, high = gain_interval(sides(np.full(LEAST_ROWS, 0.1), np.full(LEAST_ROWS, 0.11)), mean)
    assert low < 0 < high


@pytest.mark.parametrize("rules", [2, 5, 10])
@pytest.mark.parametrize("rows", [LEAST_ROWS, 8, 20])
def test_several_rules_together_fail_a_model_that_lost_nothing_as_seldom_as_one(rows, rules):
    rng, failed = np.random.default_rng(rows), 0
    for _ in range(EXAMS):
        before, after = 2 + rng.normal(0, 1, (2, rules, rows))
        found = [gain_interval(sides(*one), mean) for one in zip(before, after, strict=True)]
        failed += any(widened(interval, rules, rows)[1] < 0 for interval in found)
    assert failed / EXAMS <= 0.025 + 3 * (0.025 * 0.975 / EXAMS) ** 0.5


@pytest.mark.parametrize("rows", [1, 2, 3, LEAST_ROWS, 8, 20])
@pytest.mark.parametrize("chance", [0.1, 0.5, 0.9])
def test_a_model_that_gained_nothing_seldom_seems_better(rows, chance):
    rng = np.random.default_rng(rows)
    found = [gain_interval(sides(*shares(chance, chance)(rng, rows)), mean)[0] > 0 for _ in range(EXAMS)]
    assert np.mean(found) <= 0.025 + 3 * (0.025 * 0.975 / EXAMS) ** 0.5


def test_so_few_rows_prove_nothing_at_all_and_one_more_does():
    low, _ = gain_interval(sides(np.zeros(LEAST_ROWS - 1), np.ones(LEAST_ROWS - 1)), mean)
    assert low < 0
    low, high = gain_interval(sides(np.zeros(LEAST_ROWS), np.ones(LEAST_ROWS)), mean)
    assert 0 < low < high == 1.0


@pytest.mark.parametrize("rules", [1, 2, 3, 6, 9, 20])
@pytest.mark.parametrize("allowed", [0.0, 0.05, 0.5])
def test_with_fewer_rows_no_loss_fails_one_of_several_rules_and_with_as_many_the_loss_of_all_does(rules, allowed):
    def worst(rows: int) -> float:
        return widened(gain_interval(sides(np.ones(rows), np.zeros(rows)), mean), rules, rows)[1]

    least = least_rows(rules, allowed)
    assert all(worst(rows) >= -allowed for rows in range(1, least))
    assert all(worst(rows) < -allowed for rows in range(least, 2 * least))


def test_more_rules_and_larger_losses_that_are_allowed_take_more_rows():
    assert [least_rows(rules) for rules in (1, 2, 3, 4, 8, 9, 20)] == [5, 6, 6, 7, 7, 8, 8]
    assert [least_rows(3, allowed) for allowed in (0.0, 0.05, 0.5)] == [6, 7, 13]
    assert least_rows(3, 1.0) == 1, "what may be lost altogether asks for no rows"


def test_the_same_answers_gained_nothing_and_still_could_have():
    answers = np.array([1.0, 0.0] * 20)
    low, high = gain_interval(sides(answers, answers), mean)
    assert low < 0 < high and high == -low < 0.1


def test_one_row_of_a_loss_tells_nothing():
    low, high = gain_interval(sides([3.0], [1.0]), mean)
    assert low < 0 < high


def test_rows_weigh_what_they_weigh():
    both = sides([1.0, 0.5, 0.2, 0.9], [0.5, 0.5, 0.1, 0.3], np.array([1.0, 1.0, 10.0, 2.0]))
    assert figure_of(both.second, mean) == pytest.approx((0.5 + 0.5 + 1.0 + 0.6) / 14)
    low, high = gain_interval(both, mean)
    assert low < figure_of(both.second, mean) - figure_of(both.first, mean) < high


def test_the_error_of_a_mean_is_the_textbooks():
    scores = np.random.default_rng(1).random(50)
    assert standard_error(sides(scores, scores).first, mean) == pytest.approx(scores.std(ddof=1) / 50**0.5)
    assert standard_error(sides([0.3], [0.3]).first, mean) == 0.0


def test_of_several_rules_each_takes_a_wider_interval():
    assert widened((-0.1, 0.3), 1) == pytest.approx((-0.1, 0.3))
    low, high = widened((-0.1, 0.3), 5)
    assert low < -0.1 and high > 0.3 and low + high == pytest.approx(0.2)


def test_the_gain_that_rows_show_is_found_in_four_of_five_exams():
    rng = np.random.default_rng(3)
    before, after, weights = shares(0.4, 0.4)(rng, 128)
    gain = least_gain(gain_interval(sides(before, after, weights), mean))
    found = [gain_interval(sides(*shares(0.4, 0.4 + gain)(rng, 128)), mean)[0] > 0 for _ in range(EXAMS)]
    assert 0.7 < np.mean(found) < 0.9
