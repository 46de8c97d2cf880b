"""Who is compared when and who goes on; and a choice made on rows of its own leaves the verdict as sure as it was."""

import math

import numpy as np
import pytest

from finetuning.evaluation.intervals import Sides, gain_interval
from finetuning.recipe.variants import VariantsSpec
from finetuning.variants.halving import Race, comparisons, race
from finetuning.variants.summary import Reached, Tried, VariantsSummary


def spec(**keys) -> VariantsSpec:
    return VariantsSpec(grid={"lora.r": (1, 2)}, **keys)


def raced(losses: list[float], most: int | None = None, **keys) -> tuple[Race, list[tuple[int, float]]]:
    """A race in which each variant has that loss throughout, with every training that took place, in order."""
    trained: list[tuple[int, float]] = []

    def train(number: int, share: float) -> float:
        trained.append((number, share))
        return losses[number]

    return race(len(losses), spec(**keys), train, lambda: most is None or len(trained) < most), trained


def test_the_better_half_goes_on_and_the_last_one_is_left_to_train_to_the_end():
    found, trained = raced([4.0, 1.0, 3.0, 2.0])
    assert trained == [(0, 0.25), (1, 0.25), (2, 0.25), (3, 0.25), (1, 0.5), (3, 0.5)]
    assert found.winner == 1 and found.in_time
    assert [len(losses) for losses in found.losses] == [1, 2, 1, 2]


def test_with_another_factor_fewer_go_on_and_comparisons_are_further_apart():
    assert comparisons(spec(first_share=0.1, reduction_factor=3)) == pytest.approx([0.1, 0.3, 0.9])
    found, trained = raced([float(number) for number in range(9)], first_share=0.1, reduction_factor=3)
    assert [number for number, _ in trained] == [*range(9), 0, 1, 2]
    assert found.winner == 0


def test_where_all_comparisons_leave_several_the_best_of_them_wins():
    found, trained = raced([2.0, 1.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], first_share=0.5)
    assert {share for _, share in trained} == {0.5} and found.winner == 1


def test_of_equal_ones_the_first_wins():
    assert raced([1.0, 1.0, 1.0])[0].winner == 0


def test_a_variant_that_diverged_goes_no_further_and_all_of_them_have_no_winner():
    found, trained = raced([math.inf, 2.0, math.inf, math.inf])
    assert found.winner == 1 and len(trained) == 4
    assert raced([math.inf, math.inf])[0].winner is None


def test_one_variant_alone_wins_untrained():
    assert raced([1.0]) == (Race([[]], winner=0), [])


@pytest.mark.parametrize(("most", "winner"), [(0, 0), (1, 0), (3, 2), (5, 2), (6, 3)])
def test_once_the_time_is_over_the_best_of_the_last_comparison_wins(most, winner):
    # The third one is ahead at first, and the last one in the end.
    trained: list[tuple[int, float]] = []
    losses = {0.25: [4.0, 3.0, 1.0, 2.0], 0.5: [0.0, 0.0, 1.0, 0.5]}

    def train(number: int, share: float) -> float:
        trained.append((number, share))
        return losses[share][number]

    found = race(4, spec(), train, lambda: len(trained) < most)
    assert len(trained) == max(1, most) and found.winner == winner
    assert found.in_time == (most == 6)


def summary(**keys) -> VariantsSummary:
    reached = [Reached(step=2, steps=8, loss=0.5, seconds=3.0), Reached(step=4, steps=8, loss=0.25, seconds=6.0)]
    tried = [
        Tried(changes={"lora.r": 1}, reached=reached[:1]),
        Tried(changes={"lora.r": 2}, reached=reached, state="0" * 16),
        Tried(changes={"lora.r": 3}, reached=[Reached(step=2, steps=8, loss=None, seconds=1.0)]),
        Tried(changes={}, reached=[]),
    ]
    return VariantsSummary(**{"tried": tried, "chosen": 1, "shares": [0.25, 0.5], **keys})


def test_the_table_has_every_variant_those_that_came_furthest_first():
    found = summary()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.table().splitlines()]
    assert lines[0] == ["variant", "after 25%", "after 50%", ""]
    assert lines[2:] == [
        ["lora.r: 2", "0.5000", "0.2500", "chosen"],
        ["lora.r: 1", "0.5000", "", ""],
        ["lora.r: 3", "diverged", "", ""],
        ["as written", "", "", ""],
    ]
    assert found.seconds == 10.0
    assert VariantsSummary.of(found.as_json(), "here") == found


def test_what_was_done_is_told_with_what_there_was_no_time_for():
    assert "4 variants were tried, and compared by their loss on 64 dev rows" in summary().in_words(64)
    assert "minutes" not in summary().in_words(64)
    assert summary(in_time=False).in_words(64).endswith("took place; 1 were not tried at all.")


def passes(gains: np.ndarray) -> bool:
    """Whether an exam shows a gain: the lower end of the interval that every verdict is made of is above 0."""
    counted = np.ones(len(gains))
    sides = Sides(np.stack([np.zeros(len(gains)), counted], axis=1), np.stack([gains, counted], axis=1))
    return gain_interval(sides, lambda mean: mean)[0] > 0


def test_a_choice_on_dev_rows_makes_no_false_verdict_likelier_and_one_on_the_exams_own_rows_does():
    # Of models that gained nothing: row by row better, worse or the same as the base, by chance.
    draw, exams, variants, rows = np.random.default_rng(0), 1000, 16, 100
    by_dev = by_exam = 0
    for _ in range(exams):
        dev, exam = draw.choice([-1.0, 0.0, 1.0], (2, variants, rows), p=[0.2, 0.6, 0.2])
        by_dev += passes(exam[dev.mean(axis=1).argmax()])
        by_exam += passes(exam[exam.mean(axis=1).argmax()])
    # One in forty, give or take three standard errors.
    assert by_dev / exams <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / exams)
    assert by_exam / exams > 0.2
