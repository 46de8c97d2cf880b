"""Which exams are compared: those of the same rows, asked in the same way."""

from dataclasses import replace

from finetuning.evaluation.report import InContext, Retrieval
from finetuning.leaderboard.groups import groups_of
from finetuning.leaderboard.leaderboard import write_leaderboard
from tests.finetuning.leaderboard.made import TOOK, entrant
from tests.judges import judge_report

SCORES = [1.0, 0.0] * 10
QUESTIONS = [f"question {row}" for row in range(20)]
PASSAGES = InContext(
    contestants={}, pairs=[], retrieval=Retrieval(questions=0, recall={}, mean_reciprocal_rank=0.0), advice=""
)


def names(*entrants) -> list[list[str]]:
    return [[one.name for one in group.entrants] for group in groups_of(entrants)]


def test_exams_of_the_same_rows_are_one_group_in_whatever_order_they_were_asked():
    turned = entrant("b", SCORES, questions=QUESTIONS[::-1])
    (group,) = groups_of([turned, entrant("a", SCORES)])
    assert [one.name for one in group.entrants] == ["a", "b"]
    assert group.digest() == groups_of([entrant("c", SCORES[::-1])])[0].digest()
    assert [turned.scores[row] for row in group.rows][:2] == [0.0, 1.0]


def test_exams_of_other_rows_or_asked_otherwise_are_groups_of_their_own():
    apart = [
        entrant("metric", SCORES, "contains"),
        entrant("tokens", SCORES, max_new_tokens=64),
        entrant("markers", SCORES, answer_markers=["Antwort"]),
        entrant("passages", SCORES, context=PASSAGES),
        entrant("rows", SCORES, questions=[f"another {row}" for row in range(20)]),
    ]
    assert names(entrant("a", SCORES), entrant("b", SCORES, batch_size=1), *apart) == [
        ["a", "b"],
        ["rows"],
        *([name] for name in ("markers", "metric", "passages", "tokens")),
    ]


def test_exams_that_differ_in_few_rows_are_compared_on_those_that_all_were_asked():
    fewer = entrant("b", SCORES[:19], questions=QUESTIONS[:19])
    other = entrant("c", SCORES, questions=[*QUESTIONS[1:], "another"])
    (group,) = groups_of([entrant("a", SCORES), fewer, other])
    assert {row.question for row in group.rows} == set(QUESTIONS[1:19])
    half = entrant("half", SCORES[:10], questions=QUESTIONS[:10])
    assert names(entrant("a", SCORES), fewer, half) == [["a", "b"], ["half"]]


def test_the_rows_that_most_were_asked_decide():
    others = [entrant(name, SCORES[:18], questions=QUESTIONS[:18]) for name in "xy"]
    (group,) = groups_of([entrant("a", SCORES), *others])
    assert len(group.rows) == 18 and len(group.entrants) == 3
    nothing = [entrant(name, [1.0], questions=[name]) for name in "ab"]
    assert names(*nothing) == [["a"], ["b"]]


def test_losses_over_other_tokens_are_not_compared():
    alike = [entrant(name, [0.5, 0.7], "loss", supervised=[3, 9]) for name in "ab"]
    assert names(*alike, entrant("c", [0.5, 0.7], "loss", supervised=[4, 9])) == [["a", "b"], ["c"]]
    weighed = alike[0].side(groups_of(alike)[0].rows)
    assert weighed.tolist() == [[1.5, 3.0], [6.3, 9.0]]


def test_a_row_that_was_asked_twice_counts_once():
    (group,) = groups_of([entrant("a", [1.0, 0.0, 1.0], questions=["x", "y", "x"])])
    assert [row.question for row in group.rows] == ["x", "y"]


def judged(name, base="b" * 16, carries=True):
    one = entrant(name, SCORES, "judge")
    took = {"base": TOOK.model_copy(update={"fingerprint": base}), "tuned": TOOK}
    report = one.examined.report.model_copy(update={"judge": judge_report(carries=carries), "answering": took})
    return replace(one, examined=replace(one.examined, report=report))


def test_a_judges_scores_are_compared_beside_the_same_base_answers_alone():
    (both, alone) = groups_of([judged("a"), judged("b"), judged("c", base="c" * 16)])
    assert [one.name for one in both.entrants] == ["a", "b"] and [one.name for one in alone.entrants] == ["c"]
    assert both.way.against == f"fake against base answers {'b' * 16}"


def test_scores_of_a_judge_that_carries_no_verdict_are_left_out(tmp_path):
    board = write_leaderboard(tmp_path, [judged("a"), judged("b", carries=False), entrant("c", SCORES)])
    assert [one.name for group in board.groups for one in group.models] == ["a", "c"]
    assert [one.name for one in board.left_out] == ["b"] and "carries no verdict" in board.left_out[0].why
    assert "by fake against base answers" in (tmp_path / "leaderboard.md").read_text()
