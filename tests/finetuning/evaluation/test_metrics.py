"""Metrics: what counts as the final answer of a text, when two answers are the same, and how alike two texts are."""

import pytest

from finetuning.evaluation.metrics import METRICS, Outcome, final_answer, metrics_for, same_answer, score_final_answer
from finetuning.recipe.evaluation import LESS_IS_BETTER, EvaluationSpec
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
    ("text", "answer"),
    [
        ("Also 2 + 3.\n**Antwort:** 5", "5"),
        ("Die Antwort: 4, nein: antwort = 5.", "5"),
        ("答えは 12", "12"),
        ("The answer is 7.", "7"),
        ("#### 9\nAntwort: 8", "9"),
        ("17", "17"),
        ("Antwort:", None),
    ],
)
def test_a_recipe_has_words_of_its_own_before_a_final_answer(text, answer):
    metric = metrics_for(EvaluationSpec(metrics=("final-answer",), answer_markers=("Antwort", "答えは")))
    outcome = Outcome(f"#### {answer}", text, stopped=True)
    assert metric["final-answer"].score(outcome) == float(answer is not None)
    assert metric["unclear"].score(outcome) == float(answer is None)


def test_words_of_a_recipe_are_no_pattern():
    assert final_answer("a+b 5", ["a+b"]) == "5" and final_answer("aab 5", ["a+b"]) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.5", "1/2"),
        ("0.5/2", "1/4"),
        ("1,000", "1000"),
        ("$18.00", "18"),
        ("-3", "- 3"),
        ("18.", "18"),
        ("3,5", "3.5"),
        ("0,5", "1/2"),
        ("0,500", "0.5"),
        ("1,00", "1"),
        ("1.000,50", "1,000.50"),
        ("1.000.000", "1,000,000"),
        ("12,34,567", "1234567"),
        ("1\u202f000", "1000"),
        ("1'000", "1000"),
        ("1.000", "1.000"),
        ("\u22123", "-3"),
        ("４２", "42"),
        ("٣٫٥", "3.5"),
        ("Yes", "yes "),
    ],
)
def test_equal_answers_are_equal_however_they_are_written(one, other):
    assert same_answer(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("8", "18"),
        ("18", "8"),
        ("1/0", "1"),
        ("-3", "3"),
        ("", "0"),
        ("1e99999999", "1"),
        ("3,5", "35"),
        ("0,5", "5"),
        ("0,500", "500"),
        ("1.000", "1"),
        ("1.000", "1000"),
        ("2.500", "2.5"),
        ("3 5", "35"),
        ("1,2,3", "123"),
        ("1,000,5", "10005"),
        ("1,0000", "10000"),
        ("1.000,50", "1.00050"),
    ],
)
def test_different_answers_are_different(one, other):
    assert not same_answer(one, other)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("答案：42", "42"),
        ("答案：４２。", "42."),
        ("The answer is \u22123.", "-3"),
        ("The answer is 3,5 kg", "3,5"),
        ("The answer is 1.000,50 euros", "1.000,50"),
        ("The answer is 3, so", "3"),
        ("The answer is 2. Then", "2"),
    ],
)
def test_signs_of_print_stand_for_those_of_keyboards(text, answer):
    assert final_answer(text, ["答案"]) == answer and final_answer(text, ["答案："]) == answer


def test_a_number_inside_another_does_not_count():
    assert score_final_answer(Outcome("#### 8", "#### 18", True)) == 0.0


def test_every_metric_that_a_recipe_may_name_is_here_and_says_which_way_is_better():
    assert tuple(METRICS) == NAMES
    assert [name for name, metric in METRICS.items() if not metric.higher_is_better] == list(LESS_IS_BETTER)


def test_every_metric_gives_a_perfect_answer_its_best_score():
    reference = "1 + 1 = 2\n#### 2"
    perfect = Outcome(reference, reference, stopped=True, passed=1.0, judged=1.0)
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
    def reported(*metrics: str) -> list[str]:
        return list(metrics_for(EvaluationSpec.model_validate({"metrics": metrics})))

    assert reported("final-answer") == ["final-answer", "unclear", "stop-rate", "empty"]
    assert reported("exact-match") == ["exact-match", "stop-rate", "empty"]
    assert reported("stop-rate", "loss") == ["stop-rate", "loss", "chrf", "empty"]


@pytest.mark.parametrize(
    "answer", ["\u200b", "\ufeff", "...", "```\n```", "\u2800", "—", "。", *"\u3164\u115f\u1160\uffa0"]
)
def test_an_answer_without_a_letter_or_digit_is_empty(answer):
    assert score("empty", answer, "Paris") == score("empty", answer, "") == 1.0


def test_letters_of_any_script_and_signs_where_the_reference_has_no_other_are_an_answer():
    assert [score("empty", answer, "Paris") for answer in ("é", "你", "٤", "ก")] == [0.0] * 4
    assert [score("empty", answer, "👍") for answer in ("👎", "\u200b", " ")] == [0.0, 1.0, 1.0]
    assert [score("empty", blank, "👍") for blank in "\u3164\u2800\U0001d159"] == [1.0] * 3
    assert score("empty", "\u3164가", "👍") == score("empty", "\u3164👎", "👍") == 0.0


def test_an_answer_of_white_space_is_empty():
    assert [METRICS["empty"].score(Outcome("", answer, True)) for answer in ("", " \n", "0")] == [1.0, 1.0, 0.0]
