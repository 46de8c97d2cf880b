"""Metrics: what counts as the final answer of a text, and when two answers are the same."""

import pytest

from finetuning.metrics import METRICS, final_answer, metrics_for, same_answer, score_final_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("6 = -2 + 8y\n#### 1", "1"),
        ("#### 3\nNo, wait.\n#### -12", "-12"),
        (r"So the total is \boxed{1,000}.", "1,000"),
        ("Then 20 / 10 = 2. The answer is 2.", "2"),
        ("The answer is y = -3", "-3"),
        ("We get\ny = 1/2", "1/2"),
        ("She makes $18.00 every day.", None),
        ("", None),
    ],
)
def test_the_final_answer_is_found_where_it_is_stated(text, answer):
    found = final_answer(text)
    assert (found is None) if answer is None else (found is not None and same_answer(found, answer))


@pytest.mark.parametrize(
    ("one", "other"),
    [("0.5", "1/2"), ("1,000", "1000"), ("$18.00", "18"), ("-3", "- 3"), ("18.", "18"), ("Yes", "yes ")],
)
def test_equal_answers_are_equal_however_they_are_written(one, other):
    assert same_answer(one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("8", "18"), ("18", "8"), ("1/0", "1"), ("-3", "3"), ("", "0"), ("1e99999999", "1")]
)
def test_different_answers_are_different(one, other):
    assert not same_answer(one, other)


def test_a_number_inside_another_does_not_count():
    assert score_final_answer("#### 18", "#### 8") == 0.0


def test_every_metric_gives_a_perfect_answer_its_best_score():
    reference = "1 + 1 = 2\n#### 2"
    for metric in METRICS.values():
        assert metric.score(reference, reference) == (1.0 if metric.higher_is_better else 0.0)


def test_unclear_answers_are_counted_beside_final_answers():
    assert list(metrics_for(("final-answer",))) == ["final-answer", "unclear"]
    assert list(metrics_for(("exact-match",))) == ["exact-match"]
