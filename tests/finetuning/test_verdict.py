"""The verdict: passed or failed by the recipe's gate, for one adapter alone."""

import json

import pytest

from finetuning.errors import FinetuningError
from finetuning.recipe import EvaluationSpec
from finetuning.verdict import judge, require_verdict


def metric(base, tuned, interval, higher_is_better=True):
    return {
        "base": base,
        "tuned": tuned,
        "gain": tuned - base,
        "interval": interval,
        "higher_is_better": higher_is_better,
    }


def spec(**gate):
    return EvaluationSpec.model_validate({"metrics": ["final-answer"], "gate": gate})


def test_without_a_gate_a_gain_inside_its_noise_fails():
    verdict = judge(spec(), {"final-answer": metric(0.50, 0.52, [-0.03, 0.07])})
    assert not verdict["passed"]
    assert "not better than the base beyond its noise" in verdict["reasons"][0]


def test_without_a_gate_a_gain_beyond_its_noise_passes():
    assert judge(spec(), {"final-answer": metric(0.1, 0.9, [0.7, 0.9])})["passed"]


def test_a_missed_gain_says_by_how_much():
    gate = {"final-answer": {"min_gain": 0.3}}
    verdict = judge(spec(**gate), {"final-answer": metric(0.1, 0.35, [0.2, 0.3])})
    assert not verdict["passed"]
    assert "0.250" in verdict["reasons"][0] and "misses by 0.050" in verdict["reasons"][0]


def test_every_limit_has_to_be_kept():
    gate = {"final-answer": {"min_gain": 0.1, "min_score": 0.8}}
    verdict = judge(spec(**gate), {"final-answer": metric(0.1, 0.7, [0.5, 0.7])})
    assert not verdict["passed"]
    assert len(verdict["reasons"]) == 2


@pytest.fixture
def report(tmp_path):
    def write(adapter="a" * 16, passed=True):
        verdict = {"passed": passed, "reasons": ["gain in final-answer is 0.100, which misses by 0.2"]}
        (tmp_path / "report.json").write_text(json.dumps({"adapter": adapter, "metrics": {}, "verdict": verdict}))
        return tmp_path

    return write


def test_a_passed_verdict_on_this_adapter_is_handed_on(report):
    assert require_verdict(report(), "a" * 16, "tiny")["verdict"]["passed"]


def test_a_verdict_on_another_adapter_is_refused(report):
    with pytest.raises(FinetuningError, match="is about adapter bbbbbbbbbbbbbbbb, and the one to publish is aaaa"):
        require_verdict(report(adapter="b" * 16), "a" * 16, "tiny")


@pytest.mark.parametrize("passed", [False, "yes", None])
def test_a_verdict_that_did_not_pass_is_refused(report, passed):
    with pytest.raises(FinetuningError, match="failed its gate: gain in final-answer"):
        require_verdict(report(passed=passed), "a" * 16, "tiny")
