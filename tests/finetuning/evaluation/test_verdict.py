"""The verdict: passed or failed by the recipe's gate, for one adapter alone."""

import json

import pytest
from pydantic import ValidationError

from finetuning.errors import FinetuningError
from finetuning.evaluation.comparison import compare, with_text_metric
from finetuning.evaluation.metrics import Outcome, metrics_for
from finetuning.evaluation.report import Figures, Proof, Published, PublishedFigures, Verdict
from finetuning.evaluation.verdict import change_of, judge, of_smoke_run, require_verdict
from finetuning.recipe.evaluation import EvaluationSpec, with_implied


def metric(base, tuned, interval, higher_is_better=True):
    gain = tuned - base
    return Figures(base=base, tuned=tuned, gain=gain, interval=interval, higher_is_better=higher_is_better)


def published(**found):
    return Published(repo_id="lab/maths", tag="d" * 16, commit="e" * 40, adapter="f" * 16, **found)


def spec(**gate):
    return EvaluationSpec.model_validate({"metrics": ["final-answer"], "gate": gate})


STOPS = {"stop-rate": metric(0.9, 0.9, [-0.02, 0.02]), "empty": metric(0.0, 0.0, [-0.02, 0.02], False)}


def test_without_a_gate_a_gain_inside_its_noise_fails():
    verdict = judge(spec(), 200, {"final-answer": metric(0.50, 0.52, [-0.03, 0.07]), **STOPS})
    assert not verdict.passed
    assert "not better than the base beyond its noise" in verdict.reasons[0]
    assert "misses by 0.030" in verdict.reasons[0]


def test_without_a_gate_a_gain_beyond_its_noise_passes():
    verdict = judge(spec(), 200, {"final-answer": metric(0.1, 0.9, [0.7, 0.9]), **STOPS})
    assert verdict.passed and len(verdict.reasons) == 3


def test_without_a_gate_a_model_that_no_longer_stops_fails_however_good_it_is():
    stops = STOPS | {"stop-rate": metric(0.9, 0.5, [-0.5, -0.3])}
    verdict = judge(spec(), 200, {"final-answer": metric(0.1, 0.9, [0.7, 0.9]), **stops})
    assert not verdict.passed
    assert "stop-rate is worse than the base's beyond its noise" in verdict.reasons[1]
    assert "interval -0.515 to -0.285 (one of 2 rules), which misses by 0.285" in verdict.reasons[1]


@pytest.mark.parametrize(("interval", "passed"), [([-0.4, -0.1], False), ([-0.4, 0.1], True), ([0.1, 0.4], True)])
def test_a_model_that_is_worse_than_the_published_one_beyond_noise_fails_whatever_its_gate_is(interval, passed):
    figures = PublishedFigures(published=0.9, tuned=0.6, gain=-0.3, interval=interval, higher_is_better=True)
    beside = published(metrics={"final-answer": figures})
    found = {"final-answer": metric(0.1, 0.6, [0.4, 0.6]), **STOPS}
    for asked in (spec(), spec(**{"final-answer": {"min_gain": 0.1}})):
        verdict = judge(asked, 200, found, None, beside)
        assert verdict.passed is passed
        assert "worse than that of the version that is published now beyond its noise" in verdict.reasons[-1]


def test_a_published_version_that_can_not_be_compared_is_named_and_decides_nothing():
    found = {"final-answer": metric(0.1, 0.6, [0.4, 0.6]), **STOPS}
    verdict = judge(spec(), 200, found, None, published(why="it has another base_model"))
    assert verdict.passed and verdict.reasons[-1].endswith("published now: it has another base_model")


@pytest.mark.parametrize(("interval", "passed"), [([-0.4, -0.1], True), ([-0.4, 0.1], False), ([0.1, 0.4], False)])
def test_of_a_loss_less_is_better(interval, passed):
    loss = EvaluationSpec(metrics=("loss",))
    gain = sum(interval) / 2
    assert judge(loss, 200, {"loss": metric(2.0, 2.0 + gain, interval, False), **STOPS}).passed is passed


@pytest.mark.parametrize("metrics", [("loss", "chrf"), ("chrf", "loss"), ("loss",)])
def test_a_model_whose_answers_got_worse_or_empty_fails_whatever_its_loss(metrics):
    spec = EvaluationSpec(metrics=metrics)
    found = {
        "loss": metric(2.0, 1.0, [-1.1, -0.9], False),
        "chrf": metric(0.4, 0.0, [-0.5, -0.3]),
        "stop-rate": metric(1.0, 1.0, [-0.1, 0.1]),
        "empty": metric(0.0, 1.0, [0.8, 1.0], False),
    }
    assert set(with_implied(metrics)) == set(found)
    verdict = judge(spec, 20, found)
    assert not verdict.passed and sum("worse than the base's" in reason for reason in verdict.reasons) >= 2


GARBAGE = {
    "a loss and a share that is 0 for both": (["loss", "exact-match"], {}),
    "a loss and final answers that are all wrong": (["loss", "final-answer"], {}),
    "a loss and code that never runs": (["loss", "python-tests"], {}),
    "a loss and words that rouge-l cannot read": (["loss", "rouge-l"], {}),
    "a gate on the loss": (["loss"], {"loss": {"min_gain": 0.1}}),
    "a gate on stops": (["chrf"], {"stop-rate": {"min_gain": -1}}),
    "a gate on stops beside a share that is 0 for both": (["exact-match"], {"stop-rate": {"min_gain": -1}}),
    "a gate on a share that is 0 for both": (["exact-match"], {"exact-match": {}}),
    "a gate on a share that is 0 for both, and on a loss": (["loss", "exact-match"], {"exact-match": {}, "loss": {}}),
    "a gate that any share passes": (["exact-match"], {"exact-match": {"min_gain": -1.0}}),
}


def of_answers(spec, chrf):
    """What `evaluate` says of answers without a word of the references, and a loss that fell."""
    wrong = Outcome("the reference", "zzz", True, loss=4.0, supervised=2)
    found = metrics_for(spec)
    sides = [wrong] * 20, [wrong._replace(loss=2.0)] * 20
    figures = with_text_metric({name: compare(metric, *sides) for name, metric in found.items()}, *sides)
    assert "chrf" in figures
    return figures | {"chrf": chrf}


@pytest.mark.parametrize("case", GARBAGE)
def test_answers_that_became_garbage_fail_whatever_the_loss_and_whatever_tells_nothing_of_them(case):
    metrics, gate = GARBAGE[case]
    spec = EvaluationSpec.model_validate({"metrics": metrics, "gate": gate})
    verdict = judge(spec, 20, of_answers(spec, metric(0.4, 0.0, [-0.5, -0.3])))
    assert not verdict.passed and any("chrf is worse than the base's" in reason for reason in verdict.reasons)
    assert judge(spec, 20, of_answers(spec, metric(0.4, 0.5, [0.05, 0.15]))).passed


@pytest.mark.parametrize("name", ["exact-match", "final-answer", "python-tests", "rouge-l", "chrf"])
def test_what_is_zero_for_both_carries_no_verdict(name):
    found = {"loss": metric(2.0, 1.0, [-1.1, -0.9], False), name: metric(0.0, 0.0, [-0.1, 0.1]), **STOPS}
    verdict = judge(EvaluationSpec(metrics=("loss", name)), 20, found)
    assert not verdict.passed and f"{name} is 0 for the tuned model" in verdict.reasons[-1]


SILENT = {
    "a loss, and chrf": (["loss", "chrf"], {}),
    "a loss alone": (["loss"], {}),
    "a share that is 0 for both": (["loss", "exact-match"], {}),
    "a gate on chrf": (["chrf"], {"chrf": {"min_gain": -0.05}}),
    "a gate on the loss": (["loss"], {"loss": {"min_gain": 0.1}}),
    "a gate that any share passes": (["chrf"], {"chrf": {"min_gain": -1.0}}),
    "a gate on stops": (["exact-match"], {"stop-rate": {"min_gain": -1}}),
}


@pytest.mark.parametrize("case", SILENT)
@pytest.mark.parametrize("empty_of_base", [0, 14, 18, 19, 20])
@pytest.mark.parametrize("answer", ["", "...", "\u3164"])
def test_a_model_that_says_nothing_fails_however_often_the_base_does(case, empty_of_base, answer):
    metrics, gate = SILENT[case]
    spec = EvaluationSpec.model_validate({"metrics": metrics, "gate": gate})
    said = [answer] * empty_of_base + ["the reference"] * (20 - empty_of_base)
    base = [Outcome("the reference", text, True, loss=4.0, supervised=2) for text in said]
    tuned = [outcome._replace(answer=answer, loss=2.0) for outcome in base]
    sides = {name: compare(metric, base, tuned) for name, metric in metrics_for(spec).items()}
    verdict = judge(spec, 20, with_text_metric(sides, base, tuned))
    assert not verdict.passed
    assert "all answers of the tuned model are empty, however many of the base's are" in verdict.reasons


def test_a_gate_on_empty_answers_may_let_all_of_them_be():
    gate = {"empty": {"min_gain": -1.0}, "exact-match": {"min_gain": -1.0}}
    spec = EvaluationSpec.model_validate({"metrics": ["exact-match"], "gate": gate})
    found = {name: metric(0.0, 0.0, [-0.1, 0.1]) for name in ("exact-match", "stop-rate")}
    assert judge(spec, 20, found | {"empty": metric(0.0, 1.0, [0.8, 1.0], False)}).passed


def test_what_is_zero_for_the_tuned_model_alone_carries_no_verdict_either():
    found = {"loss": metric(2.0, 1.0, [-1.1, -0.9], False), "chrf": metric(0.1, 0.0, [-0.2, 0.1]), **STOPS}
    verdict = judge(EvaluationSpec(metrics=("loss", "chrf")), 20, found)
    assert not verdict.passed and "chrf is 0 for the tuned model" in verdict.reasons[-1]


@pytest.mark.parametrize("gate", [{}, {"final-answer": {"min_gain": 0.1}}])
def test_empty_answers_fail_with_a_gate_or_without(gate):
    found = {"final-answer": metric(0.1, 0.6, [0.4, 0.6]), **STOPS, "empty": metric(0.0, 0.3, [0.2, 0.4], False)}
    assert not judge(spec(**gate), 200, found).passed
    allowed = {"final-answer": {"min_gain": 0.1}, "empty": {"max_score": 0.5, "min_gain": -1.0}}
    assert judge(spec(**allowed), 200, found).passed


@pytest.mark.parametrize(("gate", "least"), [({}, 6), ({"final-answer": {"min_gain": 0.1}}, 5)])
@pytest.mark.parametrize("rows", [1, 4, 5, 6])
def test_too_few_rows_carry_no_verdict(gate, least, rows):
    verdict = judge(spec(**gate), rows, {"final-answer": metric(0.1, 0.6, [0.4, 0.6]), **STOPS})
    assert verdict.passed is (rows >= least)
    assert verdict.passed or verdict.reasons[0].startswith(f"{rows} eval rows prove nothing: with fewer than {least} ")


LOST = {
    "a loss alone": (["loss"], {}),
    "six metrics": (["loss", "chrf", "rouge-l", "contains"], {}),
    "a gate on a loss": (["loss", "exact-match"], {"loss": {"min_gain": 0.1}}),
    "a gate on a loss beside many": (["loss", "exact-match", "contains", "rouge-l"], {"loss": {"min_gain": 0.1}}),
}


@pytest.mark.parametrize("case", LOST)
@pytest.mark.parametrize("beside_published", [False, True])
def test_answers_that_all_became_wrong_and_no_longer_end_pass_with_no_number_of_rows(case, beside_published):
    metrics, gate = LOST[case]
    rules = EvaluationSpec.model_validate({"metrics": metrics, "gate": gate})
    for rows in range(1, 12):
        base = [Outcome("the reference", "the reference", True, loss=4.0 + row, supervised=2) for row in range(rows)]
        # A letter of the reference, so that the answers are neither empty nor 0 by chrf.
        tuned = [outcome._replace(answer="t", stopped=False, loss=outcome.loss / 2) for outcome in base]
        found = {name: compare(metric, base, tuned) for name, metric in metrics_for(rules).items()}
        figures = PublishedFigures(published=3.0, tuned=1.0, gain=-2.0, interval=(-3, -1), higher_is_better=False)
        other = published(metrics={"loss": figures}) if beside_published else None
        assert not judge(rules, rows, found, None, other).passed, rows


@pytest.mark.parametrize("name", ["final-answer", "stop-rate", "empty"])
@pytest.mark.parametrize("gate", [{}, {"final-answer": {"min_gain": 0.1}}])
def test_what_is_no_number_is_never_better_and_never_passes(name, gate):
    nan = float("nan")
    found = {"final-answer": metric(0.1, 0.6, [0.4, 0.6]), **STOPS}
    assert judge(spec(**gate), 200, found).passed
    broken = metric(0.1, nan, [nan, nan], name != "empty")
    assert change_of(broken) == "noise"
    if not (gate and name == "stop-rate"):  # of which that gate asks nothing
        verdict = judge(spec(**gate), 200, found | {name: broken})
        assert not verdict.passed and any("is no number" in reason for reason in verdict.reasons)


def test_a_gate_has_the_last_word_on_what_counts():
    stops = STOPS | {"stop-rate": metric(0.9, 0.5, [-0.5, -0.3])}
    gate = {"final-answer": {"min_gain": 0.0}}
    assert judge(spec(**gate), 200, {"final-answer": metric(0.1, 0.1, [-0.1, 0.1]), **stops}).passed


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
    verdict = judge(spec(**gate), 200, {"final-answer": metric(0.1, 0.35, [0.2, 0.3]), **STOPS})
    assert not verdict.passed
    assert "0.250" in verdict.reasons[0] and "misses by 0.050" in verdict.reasons[0]


def test_every_limit_has_to_be_kept():
    gate = {"final-answer": {"min_gain": 0.1, "min_score": 0.8}}
    verdict = judge(spec(**gate), 200, {"final-answer": metric(0.1, 0.7, [0.5, 0.7]), **STOPS})
    assert not verdict.passed
    assert len(verdict.reasons) == 3


def test_a_limit_from_above_says_by_how_much_it_is_missed():
    perplexity = EvaluationSpec.model_validate(
        {"metrics": ["perplexity"], "gate": {"perplexity": {"min_gain": 1.0, "max_score": 3.0}}}
    )
    verdict = judge(perplexity, 200, {"perplexity": metric(6.0, 3.5, [-3.0, -2.0], False), **STOPS})
    assert not verdict.passed
    assert verdict.reasons[:2] == (
        "fall of perplexity is 2.500, which reaches the 1.000 that the gate asks for",
        "perplexity of the tuned model is 3.500, which misses by 0.500 the 3.000 that the gate asks for",
    )


FILES = {"adapter_model.safetensors": "c" * 64}


def written(adapter, verdict):
    return {"adapter": adapter, "files": FILES, "rows": 4, "metrics": {}, "answering": {}, "verdict": verdict}


@pytest.fixture
def report(tmp_path):
    def write(adapter="a" * 16, passed=True):
        verdict = {"passed": passed, "reasons": ["gain in final-answer is 0.100, which misses by 0.2"]}
        (tmp_path / "report.json").write_text(json.dumps(written(adapter, verdict)))
        return tmp_path

    return write


def test_a_passed_verdict_on_this_adapter_is_handed_on(report):
    assert require_verdict(report(), "a" * 16, FILES, "tiny").verdict.passed


def test_a_verdict_on_another_adapter_is_refused(report):
    with pytest.raises(FinetuningError, match="is about adapter bbbbbbbbbbbbbbbb, and the one to publish is aaaa"):
        require_verdict(report(adapter="b" * 16), "a" * 16, FILES, "tiny")


@pytest.mark.parametrize("files", [{}, {"adapter_model.safetensors": "d" * 64}])
def test_a_verdict_on_other_weights_of_the_same_fingerprint_is_refused(report, files):
    with pytest.raises(FinetuningError, match=r"is about other weights of adapter aaaa.*trained once more since"):
        require_verdict(report(), "a" * 16, files, "tiny")


@pytest.mark.parametrize(
    "changed",
    [
        {"adapter": "../../../lora_adapter/other"},
        {"adapter": "/etc"},
        {"adapter": "A" * 16},
        {"adapter": "a" * 15 + "\n"},
        {"adapter": "a" * 16 + "\n"},
        {"files": {"../adapter_model.safetensors": "c" * 64}},
        {"files": {"/adapter_model.safetensors": "c" * 64}},
        {"files": {"..": "c" * 64}},
        {"files": {"adapter_model.safetensors": "../c"}},
    ],
)
def test_a_report_from_elsewhere_names_nothing_but_an_adapter_and_its_files(changed):
    proof = {"adapter": "a" * 16, "files": FILES, "verdict": {"passed": True}}
    assert Proof.model_validate(proof).adapter == "a" * 16
    with pytest.raises(ValidationError):
        Proof.model_validate(proof | changed)


@pytest.mark.parametrize("passed", [False, "yes", None])
def test_a_verdict_that_did_not_pass_is_refused(report, passed):
    with pytest.raises(FinetuningError, match="failed its gate: gain in final-answer"):
        require_verdict(report(passed=passed), "a" * 16, FILES, "tiny")
    with pytest.raises(FinetuningError, match=r"failed its evaluation: .* recipe sets no evaluation\.gate"):
        require_verdict(report(passed=passed), "a" * 16, FILES, "tiny", has_gate=False)


def test_a_smoke_run_proves_nothing_to_a_real_one_and_a_real_one_nothing_to_it(tmp_path):
    passed = Verdict(passed=True, reasons=("all well",))
    smoked = of_smoke_run(passed)
    assert smoked.passed is False and smoked.reasons[1:] == ("all well",)
    for verdict, smoke in ((passed, False), (smoked, True)):
        (tmp_path / "report.json").write_text(json.dumps(written("a" * 16, verdict.model_dump())))
        assert require_verdict(tmp_path, "a" * 16, FILES, "tiny", smoke=smoke).verdict == verdict
        with pytest.raises(FinetuningError, match="smoke run"):
            require_verdict(tmp_path, "a" * 16, FILES, "tiny", smoke=not smoke)
