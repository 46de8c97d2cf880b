"""Metrics: what counts as the final answer of a text, when two answers are the same, and how alike two texts are."""

import pytest

from finetuning.evaluation.metrics import METRICS, Outcome, final_answer, metrics_for, same_answer, score_final_answer
from finetuning.recipe.evaluation import LESS_IS_BETTER
from finetuning.recipe.evaluation import METRICS as NAMES


def score(name: str, answer: str, reference: str) -> float:
    return METRICS[name].score(Outcome(reference, answer, stopped=True))


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
    [
        ("0.5", "1/2"),
        ("0.5/2", "1/4"),
        ("1,000", "1000"),
        ("$18.00", "18"),
        ("-3", "- 3"),
        ("18.", "18"),
        ("Yes", "yes "),
    ],
)
def test_equal_answers_are_equal_however_they_are_written(one, other):
    assert same_answer(one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("8", "18"), ("18", "8"), ("1/0", "1"), ("-3", "3"), ("", "0"), ("1e99999999", "1")]
)
def test_different_answers_are_different(one, other):
    assert not same_answer(one, other)


def test_a_number_inside_another_does_not_count():
    assert score_final_answer(Outcome("#### 8", "#### 18", True)) == 0.0


def test_every_metric_that_a_recipe_may_name_is_here_and_says_which_way_is_better():
    assert tuple(METRICS) == NAMES
    assert [name for name, metric in METRICS.items() if not metric.higher_is_better] == list(LESS_IS_BETTER)


def test_every_metric_gives_a_perfect_answer_its_best_score():
    reference = "1 + 1 = 2\n#### 2"
    perfect = Outcome(reference, reference, stopped=True, passed=1.0)
    for name, metric in METRICS.items():
        best = 1.0 if metric.higher_is_better else 0.0
        assert metric.score(perfect) == pytest.approx(best), name


@pytest.mark.parametrize("name", ["final-answer", "exact-match", "rouge-l", "chrf"])
def test_an_answer_that_has_nothing_of_the_reference_scores_nothing(name):
    assert score(name, "zzz", "#### 42") == 0.0
    assert score(name, "", "#### 42") == 0.0


def test_rouge_l_is_the_longest_common_subsequence_of_words():
    # "the cat the mat" is common to both: precision 4/5, recall 4/6.
    value = score("rouge-l", "the cat saw the mat", "the cat sat on the mat")
    assert value == pytest.approx(2 * (4 / 5) * (4 / 6) / (4 / 5 + 4 / 6))


def test_chrf_reads_every_language():
    assert score("chrf", "答えは四十二です", "答えは四十二です") == pytest.approx(1.0)
    assert 0 < score("chrf", "答えは四十三です", "答えは四十二です") < 1


def test_an_answer_that_was_cut_off_did_not_stop():
    assert METRICS["stop-rate"].score(Outcome("", "so on and so", stopped=False)) == 0.0


def test_what_always_goes_with_a_metric_is_reported_with_it():
    assert list(metrics_for(("final-answer",))) == ["final-answer", "unclear", "stop-rate"]
    assert list(metrics_for(("exact-match",))) == ["exact-match", "stop-rate"]
    assert list(metrics_for(("stop-rate", "loss"))) == ["stop-rate", "loss"]
