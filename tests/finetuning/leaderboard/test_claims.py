"""False claims are as rare as is said: by simulation of groups of models whose truth is known."""

import doctest

import numpy as np
import pytest

from finetuning.leaderboard import claims as module
from finetuning.leaderboard.claims import ERROR_RATE, beaten_by, claims, holm

GROUPS = 200


def alike(rng, models, rows):
    """All right by the same chance, on rows that are easy or hard for all of them."""
    return (rng.random((models, rows)) < rng.beta(2, 2, rows)).astype(float), np.zeros(models)


def apart(rng, models, rows):
    """The same, each by itself, and seldom."""
    return (rng.random((models, rows)) < 0.1).astype(float), np.zeros(models)


def opposite(rng, models, rows):
    """Every other one is right exactly where those before it are wrong."""
    right = rng.random(rows) < 0.5
    return np.array([right == bool(model % 2) for model in range(models)], dtype=float), np.zeros(models)


def two_kinds(rng, models, rows):
    """Half of the models are better, and as good as each other: only some claims are true."""
    chances = np.where(np.arange(models) < models / 2, 0.4, 0.6)
    return (rng.random((models, rows)) < chances[:, None]).astype(float), chances


def graded(rng, models, rows):
    """Scores such as those of chrf, of rows that are easy or hard for all."""
    return np.clip(rng.beta(2, 3, rows) + rng.normal(0, 0.1, (models, rows)), 0, 1), np.zeros(models)


def collapsing(rng, models, rows):
    """Graded scores, of which every other model's are a little higher but for a tenth; equally good on average."""
    scores = np.tile(rng.uniform(0.4, 0.5, rows), (models, 1))
    odd = (np.arange(models) % 2 == 1)[:, None]
    return np.where(odd, np.where(rng.random((models, rows)) < 0.1, 0.0, scores + 0.05), scores), np.zeros(models)


def false_claims(draw, models, rows) -> float:
    """In which share of groups a claim is false: the better one is as good, or worse."""
    rng, found = np.random.default_rng(models * 1000 + rows), 0
    for _ in range(GROUPS):
        scores, truth = draw(rng, models, rows)
        made = claims(scored(scores), lambda mean: mean, higher_is_better=True)
        found += any(chance <= ERROR_RATE and truth[int(a)] <= truth[int(b)] for (a, b), chance in made.items())
    return found / GROUPS


def scored(scores) -> dict[str, np.ndarray]:
    return {str(model): np.stack([row, np.ones(len(row))], axis=1) for model, row in enumerate(np.asarray(scores))}


def test_the_example_in_the_docstring_is_right():
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


@pytest.mark.parametrize(("models", "rows"), [(2, 5), (5, 20), (3, 200), (6, 60)])
@pytest.mark.parametrize("draw", [alike, apart, opposite, two_kinds, graded, collapsing])
def test_a_group_has_a_false_claim_as_seldom_as_it_says(draw, models, rows):
    # Three standard errors of such a share in so many groups.
    assert false_claims(draw, models, rows) <= ERROR_RATE + 3 * (ERROR_RATE * (1 - ERROR_RATE) / GROUPS) ** 0.5


def test_without_the_correction_false_claims_would_be_many(monkeypatch):
    monkeypatch.setattr(module, "holm", list)
    assert false_claims(alike, 8, 60) > 0.3


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_model_that_is_better_by_a_lot_is_said_to_be(higher_is_better):
    rng = np.random.default_rng(0)
    scores = rng.random((3, 200)) < np.array([[0.9], [0.5], [0.1]])
    beaten = beaten_by(claims(scored(scores), lambda mean: mean, higher_is_better))
    assert beaten == (
        {"0": [], "1": ["0"], "2": ["0", "1"]} if higher_is_better else {"0": ["1", "2"], "1": ["2"], "2": []}
    )


def test_the_same_answers_and_few_rows_show_nothing():
    same = np.tile([1.0, 0.0], (3, 50))
    assert set(claims(scored(same), lambda mean: mean, True).values()) == {1.0}
    few = claims(scored([[1.0] * 4, [0.0] * 4]), lambda mean: mean, True)
    assert few == {("0", "1"): pytest.approx(2 / 16), ("1", "0"): 1.0}
    one = claims(scored([[0.3], [0.9]]), lambda mean: mean, True)
    assert min(one.values()) > ERROR_RATE


def test_one_model_has_no_claims():
    assert claims(scored([[1.0, 0.0]]), lambda mean: mean, True) == {} == beaten_by({})


def test_a_corrected_chance_is_never_less_than_that_of_a_smaller_one_and_never_more_than_1():
    assert holm([0.03, 0.001, 0.02, 0.9]) == pytest.approx([0.06, 0.004, 0.06, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []
