"""The metric "judge": what a judge finds, how far it is trusted, and that one who knows nothing carries no verdict."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from finetuning.evaluation.comparison import compare_with_published, evaluate
from finetuning.evaluation.evaluation_report import markdown
from finetuning.evaluation.exam import Exam
from finetuning.evaluation.generation import Question
from finetuning.evaluation.intervals import Sides, gain_interval
from finetuning.evaluation.judged import agreement_of, judge_in_words, measure, verdict_on
from finetuning.evaluation.metrics import METRICS, Outcome
from finetuning.judge.protocol import Decision, Pair
from finetuning.progress import Progress
from finetuning.recipe.evaluation import EvaluationSpec
from tests.finetuning.evaluation.test_evaluation_report import MADE, TOOK, recipe_of
from tests.judges import judge_by, judging, prefers

ROWS, SILENT = 20, Progress(lambda line: None, "")
EXAM = Exam(
    None, [Question(f"a:{n}", [{"role": "user", "content": f"{n}?"}], [1], "right") for n in range(ROWS)], [], []
)


def choices(number=20, right=20):
    """Pairs of which people preferred the longer answer, in `right` of them."""
    pairs = [Pair([{"role": "user", "content": f"choice {n}"}], "no", f"yes, {n} of them") for n in range(number)]
    return [pair if n < right else pair._replace(first=pair.second, second="no") for n, pair in enumerate(pairs)]


def answers(folder, texts):
    folder.mkdir()
    pd.DataFrame([Outcome("right", text, True) for text in texts]).drop(columns="judged").to_parquet(
        folder / "answers.parquet"
    )
    return folder


def spec_of(server, metrics=("judge",), **more):
    return EvaluationSpec(metrics=metrics, judge=server.spec(parallel=8), **more)


def examined(server, folder, spec, human, better=15):
    """The findings where the tuned answers are longer in `better` rows, and the base's in the others but for one."""
    long, short = [f"{n} and more of it" for n in range(ROWS)], [f"{n}" for n in range(ROWS)]
    base = answers(folder / "base", [*short[:better], *long[better:-1], "same"])
    tuned = answers(folder / "tuned", [*long[:better], *short[better:-1], "same"])
    with judge_by(spec.judge, folder / "judgements", SILENT) as judge:
        measured = measure(judge, human)
        found = evaluate(spec, EXAM, base, tuned, None, measured)
        beside = compare_with_published(spec, EXAM, base, tuned, None, judge) if measured.carries_verdict else None
    return found, beside


@pytest.fixture(scope="module")
def trusted(tmp_path_factory):
    with judging(prefers(len)) as server:
        spec = spec_of(server)
        found, beside = examined(server, tmp_path_factory.mktemp("trusted"), spec, choices())
    return SimpleNamespace(spec=spec, found=found, beside=beside, requests=server.requests)


def test_a_judge_who_agrees_with_people_carries_the_verdict(trusted):
    figures, report = trusted.found.metrics["judge"], trusted.found.judge
    assert (figures.base, figures.tuned) == (4.5 / ROWS, 15.5 / ROWS) and figures.interval[0] > 0
    assert (report.won, report.lost, report.same, report.unclear, report.orders_agree) == (15, 4, 1, 0, 1.0)
    assert (report.choices, report.agreement) == (20, 1.0) and report.carries_verdict
    assert report.longer_won == 1.0 and report.winner_length > report.loser_length
    assert trusted.requests == report.questions == 2 * (20 + ROWS - 1)  # those beside the published version are known
    assert trusted.beside["judge"].published == figures.base and "chrf" not in trusted.found.metrics
    verdict = verdict_on(trusted.spec, trusted.found, False)
    assert verdict.passed and any(reason.startswith("judge is better than the base") for reason in verdict.reasons)


def test_the_report_says_what_the_judge_found_in_words(trusted):
    found = replace(trusted.found, answering={"base": TOOK, "tuned": TOOK})
    page = markdown(recipe_of("chats", "It chats"), MADE, found, verdict_on(trusted.spec, found, False))
    assert "## The judge" in page and "tuned better 15, base better 4, ties 1, 1 of them the same answer twice" in page
    assert "It agrees with 100.0% of 20 choices" in page and "the longer answer won 100.0%" in page
    assert "### Ties: 1 of 20" in page and "Stayed wrong" not in page


@pytest.mark.parametrize(
    ("gate", "metrics", "passed"),
    [
        ({}, ("judge",), False),
        ({"judge": {"min_gain": 0.1}, "stop-rate": {"min_gain": 0.0}}, ("judge", "stop-rate"), False),
        ({"stop-rate": {"min_gain": 0.0}}, ("stop-rate", "judge"), True),
    ],
)
def test_a_judge_who_does_not_agree_with_people_is_reported_and_carries_no_verdict(tmp_path, gate, metrics, passed):
    with judging(prefers(len)) as server:
        spec = spec_of(server, metrics, gate=gate)
        found, _ = examined(server, tmp_path, spec, choices(right=13))
    assert found.judge.agreement == 0.65 and not found.judge.carries_verdict
    assert found.metrics["judge"].tuned == 15.5 / ROWS  # reported all the same
    verdict = verdict_on(spec, found, False)
    told = "judge fake carries no verdict: it agrees with 0.650 of 20 human choices, 95 % interval"
    assert any(reason.startswith(told) for reason in verdict.reasons) and verdict.passed == passed
    assert not any(reason.startswith("judge is") for reason in verdict.reasons)
    assert "chrf" in found.metrics


def test_without_human_choices_no_judge_carries_a_verdict(tmp_path):
    with judging(prefers(len)) as server:
        spec = spec_of(server)
        found, _ = examined(server, tmp_path, spec, [])
    verdict = verdict_on(spec, found, False)
    assert not verdict.passed and "there are fewer than 10 human choices" in verdict.reasons[0]
    assert "there are fewer than 10 human choices" in judge_in_words(found.judge)[1]


def test_a_judge_who_talks_nonsense_finds_ties_and_agrees_with_nobody(tmp_path):
    with judging(lambda asked: "Both have their merits.") as server:
        found, _ = examined(server, tmp_path, spec_of(server), choices())
    assert found.judge.agreement == 0.0 and found.judge.unclear == ROWS - 1 and found.judge.orders_agree is None
    assert found.metrics["judge"].gain == 0.0
    assert "a reply was no choice" in judge_in_words(found.judge)[0]


def test_a_tie_agrees_by_half_and_a_reply_that_is_no_choice_not_at_all():
    found = [
        Decision("B", "A"),
        Decision("A", "A"),
        Decision("tie", "tie"),
        Decision("A", "B"),
        Decision("B", "unclear"),
    ]
    assert agreement_of(found)[0] == 2.0 / 5


def test_a_score_is_what_the_judge_says():
    assert METRICS["judge"].score(Outcome("", "", True)) == 0.5
    assert METRICS["judge"].score(Outcome("", "", True, judged=1.0)) == 1.0


EXAMS = 2000
# How often the second answer wins, loses, and neither does.
JUDGES = {
    "tosses a coin in each order": (0.25, 0.25, 0.5),
    "tosses a coin, and stays with it": (0.5, 0.5, 0.0),
    "is right in six of ten": (0.6, 0.4, 0.0),
    "is right in six of ten, by ties": (0.3, 0.1, 0.6),
    "is right in nine of ten": (0.9, 0.1, 0.0),
}
NOISE = 2 * np.sqrt(0.025 / EXAMS)


def exams(name, rows):
    """How many wins, losses and ties each of many exams has, and how many of them have so many."""
    drawn = np.random.default_rng(rows).multinomial(rows, JUDGES[name], size=EXAMS)
    return Counter(map(tuple, drawn.tolist())).items()


@pytest.mark.parametrize("rows", [10, 20, 50])
@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_who_agrees_no_better_than_asked_is_trusted_in_at_most_one_of_forty(name, rows):
    """Simulated: the lower end of the interval reaches the true agreement, or what is asked beyond it."""
    (won, _, tied), trusted = JUDGES[name], 0
    for (wins, losses, ties), times in exams(name, rows):
        decisions = [Decision("B", "A")] * wins + [Decision("A", "B")] * losses + [Decision("A", "A")] * ties
        trusted += times * (agreement_of(decisions)[1][0] >= max(won + tied / 2, 0.501))
    assert trusted / EXAMS <= 0.025 + NOISE


@pytest.mark.parametrize("rows", [6, 20, 50])  # all of 5 rows come out alike in one of 32
@pytest.mark.parametrize("name", [name for name in JUDGES if "coin" in name])
def test_by_a_judge_who_tosses_coins_a_model_seems_better_in_at_most_one_of_forty(name, rows):
    """Simulated, as if such a judge were trusted."""
    better = 0
    for (wins, losses, ties), times in exams(name, rows):
        scores = np.array([1.0] * wins + [0.0] * losses + [0.5] * ties)
        sides = Sides(*(np.stack([side, np.ones(rows)], axis=1) for side in (1 - scores, scores)))
        better += times * (gain_interval(sides, lambda share: share)[0] > 0)
    assert better / EXAMS <= 0.025 + NOISE
