"""The verdict: passed or failed by the recipe's gate, for one adapter alone."""

import json

import pytest

from finetuning.errors import FinetuningError
from finetuning.evaluation.report import Figures, Published, PublishedFigures, Verdict
from finetuning.evaluation.verdict import change_of, judge, of_smoke_run, require_verdict
from finetuning.recipe.evaluation import EvaluationSpec


def metric(base, tuned, interval, higher_is_better=True):
    gain = tuned - base
    return Figures(base=base, tuned=tuned, gain=gain, interval=interval, higher_is_better=higher_is_better)


def published(**found):
    return Published(repo_id="lab/maths", tag="d" * 16, commit="e" * 40, adapter="f" * 16, **found)


def spec(**gate):
    return EvaluationSpec.model_validate({"metrics": ["final-answer"], "gate": gate})


STOPS = {"stop-rate": metric(0.9, 0.9, [-0.02, 0.02])}


def test_without_a_gate_a_gain_inside_its_noise_fails():
    verdict = judge(spec(), {"final-answer": metric(0.50, 0.52, [-0.03, 0.07]), **STOPS})
    assert not verdict.passed
    assert "not better than the base beyond its noise" in verdict.reasons[0]
    assert "misses by 0.030" in verdict.reasons[0]


def test_without_a_gate_a_gain_beyond_its_noise_passes():
    verdict = judge(spec(), {"final-answer": metric(0.1, 0.9, [0.7, 0.9]), **STOPS})
    assert verdict.passed and len(verdict.reasons) == 2


def test_without_a_gate_a_model_that_no_longer_stops_fails_however_good_it_is():
    stops = {"stop-rate": metric(0.9, 0.5, [-0.5, -0.3])}
    verdict = judge(spec(), {"final-answer": metric(0.1, 0.9, [0.7, 0.9]), **stops})
    assert not verdict.passed
    assert "stop-rate is worse than the base's beyond its noise" in verdict.reasons[1]
    assert "misses by 0.300" in verdict.reasons[1]


@pytest.mark.parametrize(("interval", "passed"), [([-0.4, -0.1], False), ([-0.4, 0.1], True), ([0.1, 0.4], True)])
def test_a_model_that_is_worse_than_the_published_one_beyond_noise_fails_whatever_its_gate_is(interval, passed):
    figures = PublishedFigures(published=0.9, tuned=0.6, gain=-0.3, interval=interval, higher_is_better=True)
    beside = published(metrics={"final-answer": figures})
    found = {"final-answer": metric(0.1, 0.6, [0.4, 0.6]), **STOPS}
    for asked in (spec(), spec(**{"final-answer": {"min_gain": 0.1}})):
        verdict = judge(asked, found, None, beside)
        assert verdict.passed is passed
        assert "worse than that of the version that is published now beyond its noise" in verdict.reasons[-1]


def test_a_published_version_that_can_not_be_compared_is_named_and_decides_nothing():
    found = {"final-answer": metric(0.1, 0.6, [0.4, 0.6]), **STOPS}
    verdict = judge(spec(), found, None, published(why="it has another base_model"))
    assert verdict.passed and verdict.reasons[-1].endswith("published now: it has another base_model")


@pytest.mark.parametrize(("interval", "passed"), [([-0.4, -0.1], True), ([-0.4, 0.1], False), ([0.1, 0.4], False)])
def test_of_a_loss_less_is_better(interval, passed):
    loss = EvaluationSpec(metrics=("loss",))
    gain = sum(interval) / 2
    assert judge(loss, {"loss": metric(2.0, 2.0 + gain, interval, False), **STOPS}).passed is passed


def test_a_gate_has_the_last_word_on_what_counts():
    stops = {"stop-rate": metric(0.9, 0.5, [-0.5, -0.3])}
    gate = {"final-answer": {"min_gain": 0.0}}
    assert judge(spec(**gate), {"final-answer": metric(0.1, 0.1, [-0.1, 0.1]), **stops}).passed


@pytest.mark.parametrize(
    ("interval", "higher_is_better", "change"),
    [
        ([0.1, 0.2], True, "better"),
        ([-0.2, -0.1], True, "worse"),
        ([-0.2, -0.1], False, "better"),
        ([0.1, 0.2], False, "worse"),
        ([-0.1, 0.2], True, "noise"),
        ([0.0, 0.2], True, "noise"),
    ],
)
def test_a_gain_whose_interval_has_zero_in_it_is_noise(interval, higher_is_better, change):
    assert change_of(metric(0.5, 0.6, interval, higher_is_better)) == change


def test_a_missed_gain_says_by_how_much():
    gate = {"final-answer": {"min_gain": 0.3}}
    verdict = judge(spec(**gate), {"final-answer": metric(0.1, 0.35, [0.2, 0.3])})
    assert not verdict.passed
    assert "0.250" in verdict.reasons[0] and "misses by 0.050" in verdict.reasons[0]


def test_every_limit_has_to_be_kept():
    gate = {"final-answer": {"min_gain": 0.1, "min_score": 0.8}}
    verdict = judge(spec(**gate), {"final-answer": metric(0.1, 0.7, [0.5, 0.7])})
    assert not verdict.passed
    assert len(verdict.reasons) == 2


def test_a_limit_from_above_says_by_how_much_it_is_missed():
    perplexity = EvaluationSpec.model_validate(
        {"metrics": ["perplexity"], "gate": {"perplexity": {"min_gain": 1.0, "max_score": 3.0}}}
    )
    verdict = judge(perplexity, {"perplexity": metric(6.0, 3.5, [-3.0, -2.0], False)})
    assert not verdict.passed
    assert verdict.reasons == (
        "fall of perplexity is 2.500, which reaches the 1.000 that the gate asks for",
        "perplexity of the tuned model is 3.500, which misses by 0.500 the 3.000 that the gate asks for",
    )


def written(adapter, verdict):
    return {"adapter": adapter, "rows": 4, "metrics": {}, "answering": {}, "verdict": verdict}


@pytest.fixture
def report(tmp_path):
    def write(adapter="a" * 16, passed=True):
        verdict = {"passed": passed, "reasons": ["gain in final-answer is 0.100, which misses by 0.2"]}
        (tmp_path / "report.json").write_text(json.dumps(written(adapter, verdict)))
        return tmp_path

    return write


def test_a_passed_verdict_on_this_adapter_is_handed_on(report):
    assert require_verdict(report(), "a" * 16, "tiny").verdict.passed


def test_a_verdict_on_another_adapter_is_refused(report):
    with pytest.raises(FinetuningError, match="is about adapter bbbbbbbbbbbbbbbb, and the one to publish is aaaa"):
        require_verdict(report(adapter="b" * 16), "a" * 16, "tiny")


@pytest.mark.parametrize("passed", [False, "yes", None])
def test_a_verdict_that_did_not_pass_is_refused(report, passed):
    with pytest.raises(FinetuningError, match="failed its gate: gain in final-answer"):
        require_verdict(report(passed=passed), "a" * 16, "tiny")


def test_a_smoke_run_proves_nothing_to_a_real_one_and_a_real_one_nothing_to_it(tmp_path):
    passed = Verdict(passed=True, reasons=("all well",))
    smoked = of_smoke_run(passed)
    assert smoked.passed is False and smoked.reasons[1:] == ("all well",)
    for verdict, smoke in ((passed, False), (smoked, True)):
        (tmp_path / "report.json").write_text(json.dumps(written("a", verdict.model_dump())))
        assert require_verdict(tmp_path, "a", "tiny", smoke=smoke).verdict == verdict
        with pytest.raises(FinetuningError, match="smoke run"):
            require_verdict(tmp_path, "a", "tiny", smoke=not smoke)
