"""Two exams side by side: what differs, and what one gained over the other on the same rows."""

import doctest
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from finetuning.evaluation import side_by_side as module
from finetuning.evaluation.report import Answering, Figures, Report, Verdict
from finetuning.evaluation.side_by_side import Examined, common_rows, side_by_side
from tests.judges import judge_report

ANSWERING = Answering(tokens=1, seconds=1.0, tokens_per_second=1.0, peak_memory_mb=1)


def examined(name, scores, metric="exact-match", higher=True, questions=None, answers=None, **sections) -> Examined:
    questions = questions or [f"question {i}" for i in range(len(scores))]
    tuned = float(np.mean(scores))
    figures = Figures(base=0.0, tuned=tuned, gain=tuned, interval=(0.0, 1.0), higher_is_better=higher)
    report = Report(
        adapter="0" * 16,
        verdict=Verdict(passed=True),
        rows=len(scores),
        metrics={metric: figures},
        answering={"base": ANSWERING, "tuned": ANSWERING},
    )
    samples = pd.DataFrame(
        {
            "place": [f"rows.jsonl:{i + 1}" for i in range(len(scores))],
            "question": questions,
            "reference": ["5"] * len(scores),
            "tuned": answers or [f"{name} says {score}" for score in scores],
            "tuned_score": scores,
        }
    )
    return Examined(name, sections, {"steps": "3"}, report, samples)


def test_the_examples_in_the_docstrings_are_right():
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_only_settings_that_differ_are_shown():
    ours = examined("a", [1.0] * 8, lora={"r": 8, "bias": "none"}, dataset={"seed": 1})
    theirs = examined("b", [1.0] * 8, lora={"r": 16, "bias": "none"}, dataset={"seed": 1, "dedup": "near"})
    page = side_by_side(ours, theirs, 3)
    assert "| lora.r | 8 | 16 |" in page and "| dataset.dedup | – | near |" in page
    assert "lora.bias" not in page and "dataset.seed" not in page
    assert "## Settings that differ\n\nNone." in side_by_side(ours, ours, 3)


@pytest.mark.parametrize(("metric", "higher"), [("exact-match", True), ("unclear", False)])
def test_the_better_one_is_named_whichever_way_the_metric_goes(metric, higher):
    good, bad = (1.0, 0.0) if higher else (0.0, 1.0)
    ours = examined("a", [bad] * 30 + [good] * 10, metric, higher)
    theirs = examined("b", [good] * 40, metric, higher)
    assert f"**b is better** on the 40 rows that both were asked: b gains +75.00 points in {metric}" in side_by_side(
        ours, theirs, 0
    )
    assert "**b is better** on the 40 rows that both were asked: a gains -75.00 points" in side_by_side(theirs, ours, 0)


def test_where_nothing_is_better_no_one_is_named_beyond_chance():
    rng, named = np.random.default_rng(3), 0
    for _ in range(400):
        ours, theirs = (examined(name, rng.integers(0, 2, 40).astype(float)) for name in "ab")
        named += "is better** on" in side_by_side(ours, theirs, 0)
    assert named <= 0.05 * 400 + 3 * np.sqrt(400 * 0.05 * 0.95)


def test_rows_that_only_one_was_asked_and_rows_asked_twice_count_for_nothing():
    ours = examined("a", [1.0, 0.0, 1.0], questions=["x", "y", "y"])
    theirs = examined("b", [1.0, 1.0, 0.0], questions=["y", "z", "x"])
    both = common_rows(ours, theirs)
    assert both["question"].tolist() == ["x", "y"] and both["tuned_score_second"].tolist() == [0.0, 1.0]
    apart = examined("b", [1.0], questions=["z"])
    assert "no question with the same reference was asked of both" in side_by_side(ours, apart, 1)


def test_scores_of_other_metrics_are_not_compared():
    page = side_by_side(examined("a", [1.0]), examined("b", [1.0], "chrf"), 1)
    assert "Not compared: a is scored by exact-match, b by chrf." in page


def test_the_answers_that_differ_most_are_shown_as_they_are():
    ours = examined("a", [1.0, 0.5, 1.0], answers=["same", "half | of it", "```\n# no heading\n```"])
    theirs = examined("b", [1.0, 1.0, 0.0], answers=["same", "all", "wrong"])
    page = side_by_side(ours, theirs, 1)
    assert "2 of 3 answers differ; 1 of them:" in page
    assert "### rows.jsonl:3" in page and "rows.jsonl:2" not in page
    assert "````text\n```\n# no heading\n```\n````" in page
    assert "half" not in page


def judged(name, agreement=0.9, base="b" * 16, carries=True):
    one = examined(name, [1.0] * 30 + [0.5] * 10 if name == "b" else [0.5] * 40, "judge")
    found = judge_report(agreement, carries)
    took = {"base": ANSWERING.model_copy(update={"fingerprint": base}), "tuned": ANSWERING}
    return replace(one, report=one.report.model_copy(update={"judge": found, "answering": took}))


def test_a_judges_scores_are_compared_where_they_are_beside_the_same_base_answers_alone():
    assert "**b is better** on the 40 rows" in side_by_side(judged("a"), judged("b"), 0)
    page = side_by_side(judged("a"), judged("b", base="c" * 16), 0)
    assert "Not compared: a judge's scores say how answers are beside the base's" in page
    page = side_by_side(judged("a"), judged("b", agreement=0.7, carries=False), 0)
    assert "Not compared: the judge carries no verdict." in page
    assert "fake: 90.0% (80.0% to 95.0%) of 40 choices, carries the verdict" in page
    assert "fake: 70.0% (60.0% to 75.0%) of 40 choices, carries no verdict" in page
