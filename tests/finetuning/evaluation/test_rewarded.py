"""What is said of a reward that rose: whether the exam rose with it."""

import re

import pytest

from finetuning.evaluation.report import Gain, Verdict
from finetuning.evaluation.rewarded import rise_of, with_reward

PASSED = Verdict(passed=True, reasons=("final-answer 0.50, better",))


def gain(low, high, higher=True):
    return Gain(tuned=0.5, gain=(low + high) / 2, interval=(low, high), higher_is_better=higher)


def curve(first, last, steps=16, lengths=(30, 20)):
    """Points that go from one reward to the other, with some noise."""
    return [
        {
            "step": i + 1,
            "reward": first + (last - first) * i / (steps - 1) + 0.01 * (-1) ** i,
            "length": lengths[0] + (lengths[1] - lengths[0]) * i / (steps - 1),
            "cut_off": 0.1,
        }
        for i in range(steps)
    ]


CASES = {
    "both rose": (curve(0.3, 0.7), gain(0.1, 0.3), True, "the reward rose from 0.34 to 0.66, and the exam with it"),
    "the exam did not": (curve(0.3, 0.7), gain(-0.1, 0.2), True, "it learned to please the reward"),
    "the exam fell": (
        curve(0.3, 0.7),
        gain(-0.3, -0.1),
        False,
        "reward hacking: the reward rose .* while the exam fell",
    ),
    "neither rose": (curve(0.3, 0.3), gain(-0.1, 0.1), True, "the reward did not rise beyond its noise"),
    "the exam fell, and the reward rose within its noise": (
        curve(0.3, 0.305),
        gain(-0.3, -0.1),
        True,
        "did not rise beyond its noise",
    ),
    "less is better": (curve(0.3, 0.7), gain(-0.3, -0.1, higher=False), True, "and the exam with it"),
    "the exam fell for another reason": (curve(0.3, 0.3), gain(-0.3, -0.1), True, "did not rise beyond its noise"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_reward_that_rises_while_the_exam_does_not_is_called_what_it_is(name):
    points, gained, passed, said = CASES[name]
    verdict = with_reward(PASSED, points, ("final-answer", gained), "where it started")
    assert verdict.passed is passed
    assert verdict.reasons[0] == PASSED.reasons[0]
    assert re.search(said, verdict.reasons[1])
    assert "answers in training had 29 tokens at first and 21 in the end" in verdict.reasons[2]


def test_a_verdict_that_failed_stays_failed():
    failed = Verdict(passed=False, reasons=("worse",))
    assert not with_reward(failed, curve(0.3, 0.7), ("final-answer", gain(0.1, 0.3)), "the base model").passed


def test_too_few_points_tell_nothing():
    assert rise_of(curve(0.3, 0.7, steps=7)) is None
    assert with_reward(PASSED, curve(0.3, 0.7, steps=7), ("final-answer", gain(-0.3, -0.1)), "x") == PASSED
