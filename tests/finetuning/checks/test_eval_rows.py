"""Whether eval is as it should be: a random draw raises no alarm, one that is unlike train does, with its figures."""

import numpy as np
import pytest

from finetuning.checks import eval_rows
from finetuning.checks.counted import Counted
from finetuning.checks.eval_rows import Aspects, ShortAnswers

ROWS = 1500
DRAWS = 1000


def data(seed: int, classes: int = 6, rows: int = ROWS) -> Aspects:
    """Rows of so many classes, of three sources, and of lengths as conversations have them."""
    rng = np.random.default_rng(seed)
    short = ShortAnswers()
    shares = rng.dirichlet(np.ones(classes))
    answers = [short.number(f"class {n}") for n in rng.choice(classes, rows, p=shares)]
    names = {n: f"dataset.sources[{n}]" for n in range(3)}
    tokens = np.exp(rng.normal(4, 0.7, rows)).astype(int)
    return Aspects(
        short.kinds(np.array(answers)),
        eval_rows.sources(rng.choice(3, rows, p=[0.6, 0.3, 0.1]), names),
        eval_rows.lengths(tokens),
    )


def drawn(rng: np.random.Generator, count: int, rows: int = ROWS) -> np.ndarray:
    is_eval = np.zeros(rows, bool)
    is_eval[rng.choice(rows, count, replace=False)] = True
    return is_eval


@pytest.mark.parametrize("count", [1, 5, 30, 300])
@pytest.mark.parametrize("classes", [2, 40])
def test_random_draws_of_any_size_raise_hardly_ever_an_alarm(count, classes):
    rng, aspects = np.random.default_rng(count), data(count, classes)
    alarms = sum(eval_rows.unlike(drawn(rng, count), aspects).rows > 0 for _ in range(DRAWS // 4))
    # One in a thousand at the very most: two in 250 draws would come by chance three times in a hundred, here never.
    assert alarms <= 1


def test_an_eval_of_one_class_is_found_with_its_figures():
    aspects = data(1)
    common = max(aspects.answers, key=lambda kind: kind.rows.sum())
    is_eval = np.zeros(ROWS, bool)
    is_eval[np.flatnonzero(common.rows)[:30]] = True
    found = eval_rows.unlike(is_eval, aspects)
    assert found.of == 30 and found.rows > 10
    share = common.rows[~is_eval].mean()
    assert found.examples[0].place == common.name
    assert found.examples[0].detail == f"100.0% of eval, {share:.1%} of train"


def test_an_eval_of_long_rows_and_one_of_a_single_source_are_found():
    aspects = data(2)
    for kind in (aspects.lengths[6], aspects.sources[2]):
        is_eval = np.zeros(ROWS, bool)
        is_eval[np.flatnonzero(kind.rows)[:40]] = True
        found = eval_rows.unlike(is_eval, aspects)
        assert found.rows > 20 and kind.name in [example.place for example in found.examples]


def test_a_class_that_eval_lacks_is_found_in_a_larger_eval():
    rng, aspects = np.random.default_rng(3), data(3)
    missing = max(aspects.answers, key=lambda kind: kind.rows.sum())
    is_eval = drawn(rng, 300) & ~missing.rows
    found = eval_rows.unlike(is_eval, aspects)
    assert found.rows > 0 and found.examples[0].detail.startswith("0.0% of eval")


def test_an_eval_of_half_of_all_rows_or_of_none_is_compared_too():
    aspects = data(4)
    assert eval_rows.unlike(np.zeros(ROWS, bool), aspects) == Counted(0, 0, [])
    assert eval_rows.unlike(np.ones(ROWS, bool), aspects).rows == 0
    longer = aspects.lengths[4].rows
    assert eval_rows.unlike(longer, aspects).rows == longer.sum()


def test_only_short_answers_that_come_often_are_classes():
    short = ShortAnswers()
    texts = ["yes"] * 50 + ["no "] * 45 + ["no"] * 5 + ["x" * 50] * 40 + [f"{n}" for n in range(300)]
    kinds = short.kinds(np.array([short.number(text) for text in texts]))
    assert [(kind.name, int(kind.rows.sum())) for kind in kinds] == [("the answer 'yes'", 50), ("the answer 'no'", 50)]


def test_a_class_that_looks_like_a_secret_is_not_named():
    short, secret = ShortAnswers(), "AKIA" + "IOSFODNN7" + "QRSTUVW"
    assert secret not in short.kinds(np.array([short.number(secret)] * 10))[0].name


def test_one_source_alone_is_nothing_to_compare():
    assert eval_rows.sources(np.zeros(10, int), {0: "dataset.sources[0]"}) == []


@pytest.mark.parametrize(("got", "wanted", "rows"), [(78, 156, 78), (20, 5, 15), (10, 10, 0)])
def test_the_size_is_compared_with_what_is_asked_for(got, wanted, rows):
    found = eval_rows.size(got, wanted, 1000)
    assert (found.rows, found.of, found.fraction) == (rows, wanted, got / 1000)
    assert [example.place for example in found.examples] == (
        [f"{got} rows where {wanted} are asked for"] if rows else []
    )
