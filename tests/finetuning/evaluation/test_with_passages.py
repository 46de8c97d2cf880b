"""What passages did for the answers: shares, faults and advice, by answers whose right ones are known."""

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pandas as pd
import pytest

from finetuning.evaluation.comparison import compare_with_published, compare_with_start, evaluate
from finetuning.evaluation.exam import ANSWERS, ANSWERS_WITHOUT, Exam
from finetuning.evaluation.generation import Question
from finetuning.evaluation.metrics import METRICS, Outcome
from finetuning.evaluation.report import Answering, Pair, Report, Sample
from finetuning.evaluation.verdict import judge
from finetuning.evaluation.with_passages import (
    BASE,
    CONTESTANTS,
    HIDDEN,
    PAIRS,
    TUNED,
    WITH,
    advice_on,
    advised,
    in_words,
    without_secrets_of,
)
from finetuning.knowledge.documents import Document
from finetuning.knowledge.passages import passages_in, write_passages
from finetuning.recipe.evaluation import EvaluationSpec, GateSpec
from finetuning.recipe.knowledge import ContextSpec, PassagesSpec
from tests.finetuning.knowledge.sample_documents import KEY_LINES, write

SPEC = EvaluationSpec(metrics=("exact-match",))
NO = ContextSpec().refusal
ROWS = 40  # thirty of which a passage answers, of five of these it was not found


def reference(number):
    return NO if number >= 30 else f"{number}" if number >= 25 else f"{number} [{1 + number % 3}]"


def exam():
    questions = [Question(f"q:{n}", [{"role": "user", "content": f"{n}?"}], [1], reference(n)) for n in range(ROWS)]
    golden = [[1 + n % 3] if n < 25 else [] for n in range(ROWS)]
    ranks = [1 + n % 3 if n < 25 else 0 if n < 30 else None for n in range(ROWS)]
    return Exam(SimpleNamespace(), questions, [[1]] * ROWS, [[1]] * ROWS, questions, golden, ranks)


def right(number):
    return reference(number)


def nothing(number):
    return "I cannot tell."


def refusing(number):
    return NO


def in_a_sentence(number):
    return f"It is {reference(number)}, I think."


def found(root, base, tuned, base_without=nothing, tuned_without=nothing):
    for name, said, without in ((BASE, base, base_without), (TUNED, tuned, tuned_without)):
        (root / name).mkdir(exist_ok=True)
        for file, answer in ((ANSWERS, said), (ANSWERS_WITHOUT, without)):
            rows = [Outcome(reference(n), answer(n), True) for n in range(ROWS)]
            pd.DataFrame(rows).to_parquet(root / name / file)
    return evaluate(SPEC, exam(), root / BASE, root / TUNED, ContextSpec())


def test_scores_are_of_answers_without_their_citations(tmp_path):
    findings = found(tmp_path, nothing, lambda n: reference(n).partition(" [")[0])
    assert findings.metrics["exact-match"].tuned == 1.0 and findings.metrics["exact-match"].base == 0.0
    contestant = findings.context.contestants[TUNED + WITH]
    assert contestant.score == 1.0 and contestant.right_citations == 0.0


def scored(reference, answer, golden=(), rank=None):
    """The exact match of one answer, with passages and without, and of the sample; of a row with these places."""
    question = Question("q:1", [{"role": "user", "content": "?"}], [1], reference)
    asked = Exam(SimpleNamespace(), [question], [[1]], [[1]], [question], [list(golden)], [rank])
    with TemporaryDirectory() as folder:
        for name in (BASE, TUNED):
            (Path(folder) / name).mkdir()
            for file in (ANSWERS, ANSWERS_WITHOUT):
                pd.DataFrame([Outcome(reference, answer, True)]).to_parquet(Path(folder) / name / file)
        findings = evaluate(SPEC, asked, Path(folder) / BASE, Path(folder) / TUNED, ContextSpec())
        both = (asked, Path(folder) / BASE, Path(folder) / TUNED, ContextSpec())
        published, start = compare_with_published(SPEC, *both), compare_with_start(SPEC, *both)
    said = {one.score for one in findings.context.contestants.values()}
    (score,) = said | {findings.samples[0].base_score, published["exact-match"].tuned, start["exact-match"].tuned}
    return score


@pytest.mark.parametrize("end", [" [1], [2]", " [1, 2]", "[2]", " 【1】", "**[2]**", " [3]", ""])
def test_an_answer_is_right_however_it_is_cited(end):
    assert scored("18 months [2]", f"18 months{end}", [2], 1) == 1.0
    assert scored("18 months", f"18 months{end}", [], 0) == 1.0, "its passage was not found"
    assert scored("It is 18. [2]", f"It is 18{end}.", [2], 1) == scored("It is 18. [2]", f"It is 18.{end}", [2], 1) == 1
    assert scored(NO, f"{NO}{end}") == 1.0


@pytest.mark.parametrize(
    ("reference", "answer"),
    [("[5]", "[3]"), ("[1]", "[2]"), ("return [1]", "return [0]"), ("return [1]", "return"), ("x = [1]", "x =")],
)
def test_brackets_that_are_no_citations_are_compared(reference, answer):
    for golden, rank in (([], None), ([], 0), ([2], 1)):
        as_asked = f"{reference} [2]" if golden else reference
        assert scored(as_asked, answer, golden, rank) == 0.0
        assert scored(as_asked, reference, golden, rank) == 1.0
    assert scored(f"{reference} [2]", f"{reference} [1]", [2], 1) == 1.0
    assert scored("x", "x [1]") == 0.0, "a row that names no document has no citations"


def test_each_contestant_has_its_shares_and_each_wrong_answer_its_fault(tmp_path):
    context = found(tmp_path, refusing, right, tuned_without=in_a_sentence).context
    base, tuned = context.contestants[BASE + WITH], context.contestants[TUNED + WITH]
    assert (base.right_refusals, base.wrong_refusals, base.right_citations) == (1.0, 1.0, 0.0)
    assert (base.retrievers_fault, base.readers_fault) == (5, 25)
    assert (tuned.score, tuned.right_refusals, tuned.wrong_refusals, tuned.right_citations) == (1.0, 1.0, 0.0, 1.0)
    assert (tuned.retrievers_fault, tuned.readers_fault) == (0, 0)
    alone = context.contestants[TUNED]
    assert alone.score == 0.0 and alone.says_it == 1.0 and alone.right_citations is None
    assert context.retrieval.questions == 30
    assert context.retrieval.recall == {1: 9 / 30, 3: 25 / 30, 5: 25 / 30, 10: 25 / 30}
    assert context.retrieval.mean_reciprocal_rank == pytest.approx((9 + 8 / 2 + 8 / 3) / 30)


@pytest.mark.parametrize(
    ("base", "tuned", "base_without", "tuned_without", "advice"),
    [
        (nothing, right, nothing, nothing, "Use the tuned model with passages"),
        (nothing, right, nothing, right, "Use the tuned model without passages"),
        (right, right, nothing, nothing, "Use the base model with passages: retrieval alone is as good"),
        (nothing, nothing, nothing, right, "Use the tuned model without passages, which add nothing"),
        (nothing, nothing, nothing, nothing, "Use the base model as it is"),
    ],
)
def test_the_report_says_which_of_the_four_to_use(tmp_path, base, tuned, base_without, tuned_without, advice):
    findings = found(tmp_path, base, tuned, base_without, tuned_without)
    assert findings.context.advice.startswith(advice)
    took = Answering(tokens=80, seconds=8.0, tokens_per_second=10.0, peak_memory_mb=1, rows=ROWS, without=(4.0, 40))
    page = "\n".join(in_words(findings.context, {BASE: took, TUNED: took}))
    assert advice in page and "0.20" in page and "0.10" in page and "mean reciprocal rank" in page


def change(interval):
    return {"gain": sum(interval) / 2, "interval": interval}


UP, SAME, DOWN = (0.1, 0.3), (-0.1, 0.2), (-0.8, -0.6)


@pytest.mark.parametrize(
    ("intervals", "scores", "name"),
    [
        # base to base with passages, tuned, tuned with both; base with passages to tuned, to both; tuned to both
        ([(0.05, 0.15), UP, UP, UP, (-0.05, 0.05), DOWN], [0.1, 0.2, 0.9, 0.2], TUNED),
        ([(0.05, 0.15), (-0.05, 0.05), UP, (-0.15, -0.05), UP, (-0.02, 0.3)], [0.1, 0.2, 0.1, 0.3], TUNED + WITH),
        ([SAME, SAME, UP, SAME, SAME, SAME], [0.1, 0.2, 0.2, 0.3], BASE + WITH),
        ([SAME] * 6, [0.1, 0.2, 0.2, 0.3], BASE),
        ([DOWN, SAME, SAME, UP, UP, SAME], [0.8, 0.1, 0.7, 0.7], BASE),
    ],
)
def test_what_is_plainly_worse_is_not_advised(intervals, scores, name):
    pairs = [Pair(before=one, after=two, **change(at)) for (one, two), at in zip(PAIRS, intervals, strict=True)]
    assert advised(dict(zip(CONTESTANTS, scores, strict=True)), pairs) == name


def test_of_all_that_intervals_can_say_the_one_advised_is_never_worse_than_another_and_the_cheapest_such():
    said = set()
    for order in itertools.permutations(range(4)):
        scores = dict(zip(CONTESTANTS, order, strict=True))
        for shown in itertools.product((True, False), repeat=len(PAIRS)):
            signs = {two: (UP if scores[two[0]] < scores[two[1]] else DOWN) for two in PAIRS}
            pairs = [
                Pair(before=one, after=two, **change(signs[one, two] if is_shown else SAME))
                for (one, two), is_shown in zip(PAIRS, shown, strict=True)
            ]
            better = {(p.before, p.after) if p.interval == DOWN else (p.after, p.before) for p in pairs}
            better -= {(p.after, p.before) for p in pairs if p.interval == SAME}
            worse = {loser for _, loser in better}
            name = advised(scores, pairs)
            assert name not in worse and worse.issuperset(CONTESTANTS[: CONTESTANTS.index(name)])
            said.add((name, advice_on(name, pairs)))
    assert {name for name, _ in said} == set(CONTESTANTS) and len(said) == 6


def test_retrieval_that_is_as_good_alone_fails_whatever_the_gate_lets_pass(tmp_path):
    spec = EvaluationSpec(metrics=("exact-match",), gate={"exact-match": GateSpec(min_gain=-1.0)})
    findings = found(tmp_path, right, right)
    verdict = judge(spec, ROWS, findings.metrics, with_passages=True)
    assert not verdict.passed and any("retrieval alone is as good" in reason for reason in verdict.reasons)
    better = found(tmp_path, nothing, right)
    assert judge(spec, ROWS, better.metrics, with_passages=True).passed
    assert judge(spec, ROWS, findings.metrics).passed, "without documents the gate alone decides"


def test_what_was_found_is_read_again_from_the_report(tmp_path):
    context = found(tmp_path, nothing, right).context
    report = {"adapter": "0" * 16, "verdict": {"passed": True}, "rows": 1, "metrics": {}, "answering": {}}
    whole = Report.model_validate(report | {"context": context.model_dump(mode="json")})
    assert whole.context == context and Report.model_validate(whole.as_json()) == whole
    assert "context" not in Report.model_validate(report).as_json()


def test_the_metric_finds_a_reference_as_whole_words():
    assert METRICS["contains"].score(Outcome("4.2", "It weighs 4.2 kg.", True)) == 1.0
    assert METRICS["contains"].score(Outcome("8", "18, or 8.5", True)) == 0.0


def test_a_question_with_a_passage_of_a_document_that_holds_a_key_is_shown_without_it(tmp_path):
    documents = [Document("key.md", KEY_LINES), Document("a.md", "# A\n\nPlain words.")]
    folder, spec = write(tmp_path / "documents", documents), PassagesSpec(max_tokens=32, overlap=0)
    write_passages(folder, tmp_path / "passages", spec, lambda texts: [len(text) for text in texts])
    names = passages_in(tmp_path / "passages", ["document"])["document"].to_pylist()
    samples = [Sample(f"q:{n}", "Which?", "x", "b", "t", 0.0, 1.0, asked=f"passage {n}") for n in range(len(names))]
    rows = pd.DataFrame({"place": [one.place for one in samples], "passages": [[n] for n in range(len(names))]})
    rows.to_parquet(tmp_path / "eval.parquet")
    found = without_secrets_of(samples, tmp_path, tmp_path / "passages", folder)
    assert names.count("key.md") > 2 and found[-1] == samples[-1] and names[-1] == "a.md"
    assert {(one.question, one.asked, one.base, one.tuned) for one in found[:-1]} == {("Which?", *[HIDDEN] * 3)}
    harmless = write(tmp_path / "harmless", documents[1:])
    assert without_secrets_of(samples, tmp_path, tmp_path / "passages", harmless) == samples
