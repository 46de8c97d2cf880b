"""A benchmark that fell too far, beyond its noise, fails the verdict, and one that is no number says so."""

import math

import numpy as np
import pandas as pd
import pytest

from finetuning.errors import FinetuningError
from finetuning.evaluation.benchmark_scores import ROWS, compare_benchmarks
from finetuning.evaluation.benchmark_scores import compare as compare_rows
from finetuning.evaluation.comparison import compare
from finetuning.evaluation.metrics import METRICS, Outcome
from finetuning.evaluation.report import BenchmarkFigures, Figures
from finetuning.evaluation.tables import benchmarks_table
from finetuning.evaluation.verdict import judge
from finetuning.recipe.evaluation import EvaluationSpec


def scored(folder, shares, name="animals", texts="same", **columns):
    """`folder`, where a model has these scores."""
    folder.mkdir()
    rows = {"benchmark": name, "metric": "acc", "aggregation": "mean", "higher_is_better": True, "task": name}
    frame = pd.DataFrame({"row": range(len(shares)), "text": texts, "sum": shares, "weight": 1.0})
    frame.assign(**{**rows, **columns}).to_parquet(folder / ROWS)
    return folder


def test_the_interval_of_a_benchmark_is_that_of_a_metric(tmp_path):
    rng = np.random.default_rng(5)
    before, after = ((rng.random(80) < share).astype(float) for share in (0.6, 0.4))
    found = compare_benchmarks(scored(tmp_path / "a", before), scored(tmp_path / "b", after))["animals"]
    sides = ([Outcome("yes", "yes" if right else "no", True) for right in side] for side in (before, after))
    assert found.interval == pytest.approx(compare(METRICS["exact-match"], *sides).interval)
    assert found.gain == pytest.approx(after.mean() - before.mean())
    assert found.standard_errors[0] == pytest.approx(before.std() / math.sqrt(80), rel=0.05)


def test_scores_of_other_rows_are_not_compared(tmp_path):
    with pytest.raises(FinetuningError, match=r"rows have changed since the base model was asked.*Delete that folder"):
        compare_benchmarks(scored(tmp_path / "a", [1.0]), scored(tmp_path / "b", [1.0], texts="other"))


GAINED = {"exact-match": Figures(base=0.1, tuned=0.9, gain=0.8, interval=(0.7, 0.9), higher_is_better=True)}
STOPS = {
    "stop-rate": Figures(base=0.9, tuned=0.9, gain=0.0, interval=(0.0, 0.0), higher_is_better=True),
    "empty": Figures(base=0.0, tuned=0.0, gain=0.0, interval=(0.0, 0.0), higher_is_better=False),
}


@pytest.mark.parametrize(("right", "passed"), [(36, True), (35, True), (20, False), (40, True), (48, True)])
@pytest.mark.parametrize("gate", [{}, {"exact-match": {"min_gain": 0.0}}])
def test_a_benchmark_that_fell_too_far_fails_the_verdict_with_a_gate_or_without(tmp_path, right, passed, gate):
    before, after = [1.0] * 40 + [0.0] * 40, [1.0] * right + [0.0] * (80 - right)
    benchmarks = compare_benchmarks(scored(tmp_path / "a", before), scored(tmp_path / "b", after))
    rules = EvaluationSpec.model_validate({"metrics": ["exact-match"], "benchmarks": ["animals"], "gate": gate})
    verdict = judge(rules, 200, GAINED | STOPS, benchmarks)
    assert verdict.passed is passed
    beyond = {35: ("0.062", "not beyond", "0.438"), 20: ("0.250", "beyond", "0.250")}
    if right in beyond:
        fall, noise, tuned = beyond[right]
        assert verdict.reasons[-1].startswith(
            f"animals fell by {fall}, more than the 0.050 that evaluation.max_benchmark_fall allows, {noise} its noise "
            f"(acc 0.500 before, {tuned} after; gain -{fall}, interval -"
        )


@pytest.mark.parametrize("allowed", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("names", [1, 4])
@pytest.mark.parametrize("gate", [{}, {"exact-match": {"min_gain": 0.0}}])
def test_a_benchmark_that_lost_all_passes_with_no_number_of_rows(tmp_path, allowed, names, gate):
    rules = EvaluationSpec.model_validate(
        {"metrics": ["exact-match"], "benchmarks": ["animals"], "max_benchmark_fall": allowed, "gate": gate}
    )
    for rows in (1, 2, 3, 4, 5, 6, 7, 8, 12, 20):
        before, after = tmp_path / f"{rows} before", tmp_path / f"{rows} after"
        found = compare_benchmarks(scored(before, [1.0] * rows), scored(after, [0.0] * rows))["animals"]
        verdict = judge(rules, 200, GAINED | STOPS, {str(number): found for number in range(names)})
        assert not verdict.passed, rows
        assert "prove nothing" in verdict.reasons[-1] or "beyond its noise" in verdict.reasons[-1]
        anything = rules.model_copy(update={"max_benchmark_fall": 1.0})
        assert judge(anything, 200, GAINED | STOPS, {"animals": found}).passed, "where all may be lost"


@pytest.mark.parametrize("rows", [20, 50, 200])
@pytest.mark.parametrize("names", [1, 5])
def test_benchmarks_of_a_model_that_is_as_good_seldom_fail_however_few_their_rows_are(rows, names):
    rng, rules = np.random.default_rng(rows), EvaluationSpec(metrics=("exact-match",))
    exams, failed = 150, 0
    for _ in range(exams):
        found = {}
        for name in range(names):
            scores = rng.random(rows)
            sides = [
                pd.DataFrame(
                    {
                        "sum": right.astype(float),
                        "weight": 1.0,
                        "aggregation": "mean",
                        "metric": "acc",
                        "higher_is_better": True,
                    }
                )
                for right in (scores < 0.5, (scores + 0.15) % 1 < 0.5)
            ]
            found[str(name)] = compare_rows(*sides)
        failed += not judge(rules, 200, GAINED | STOPS, found).passed
    assert failed / exams <= 0.025 + 3 * (0.025 * 0.975 / exams) ** 0.5


@pytest.mark.parametrize("edge", ["base", "tuned", "gain", "interval"])
def test_a_benchmark_that_is_no_number_says_so_and_fails(edge):
    figures = {"base": 0.4, "tuned": 0.4, "gain": 0.0, "interval": (-0.1, 0.1)}
    wrong = figures | {edge: (math.nan, math.nan) if edge == "interval" else math.nan}
    if edge == "base":
        wrong["gain"] = math.nan
    found = BenchmarkFigures(metric="acc", rows=9, standard_errors=(0.1, 0.1), higher_is_better=True, **wrong)
    verdict = judge(EvaluationSpec(metrics=("exact-match",)), 200, GAINED | STOPS, {"animals": found})
    assert not verdict.passed and verdict.reasons[-1].startswith("animals is no number")


def test_a_perplexity_beyond_all_numbers_is_a_large_one(tmp_path):
    texts = {"aggregation": "weighted_perplexity", "metric": "word_perplexity", "higher_is_better": False}
    before, after = (
        pd.DataFrame({"sum": [nats, nats - 1, nats + 1.0], "weight": 1.0, **texts}) for nats in (-800, -90)
    )
    found = compare_rows(before, after)
    assert all(map(math.isfinite, (found.base, found.tuned, found.gain, *found.interval, *found.standard_errors)))
    assert found.base > found.tuned > 1e30 and found.improvement > 0
    assert benchmarks_table({"texts": found})["base"][0].startswith("1.000e+100")


@pytest.mark.parametrize(
    ("tuned", "interval", "passed"),
    [(20.9, (0.8, 1.0), True), (21.1, (0.0, 2.2), True), (24.0, (3.0, 5.0), False)],
)
def test_of_a_perplexity_the_fall_is_a_share_of_the_bases(tuned, interval, passed):
    found = BenchmarkFigures(
        metric="word_perplexity",
        rows=9,
        base=20.0,
        tuned=tuned,
        gain=tuned - 20.0,
        interval=interval,
        standard_errors=(0.1, 0.1),
        higher_is_better=False,
    )
    rules = EvaluationSpec.model_validate({"metrics": ["exact-match"], "benchmarks": ["texts"]})
    assert judge(rules, 200, GAINED | STOPS, {"texts": found}).passed is passed
