import re
from fractions import Fraction
from itertools import islice

import pytest

from finetuning.dataset.linear_equations import BARE, generate

PROBLEM = re.compile(r"Solve for ([xyzabnt]): (-?\d+) ([+-]) (\d+) = (-?\d+) ([+-]) ([1-9])\1 ([+-]) ([1-9])\1 \.")
ROWS = list(generate(2000, seed=7))


def parsed(problem: str) -> tuple[str, int, int, int]:
    """Variable, left side, constant and slope of a problem."""
    match = PROBLEM.fullmatch(problem)
    assert match, problem
    variable, first, sign, second, constant, sign_1, size_1, sign_2, size_2 = match.groups()
    slope = int(sign_1 + size_1) + int(sign_2 + size_2)
    return variable, int(first) + int(sign + second), int(constant), slope


def value(term: str, variable: str, answer: Fraction) -> Fraction:
    """What a side of a line of a solution is worth, where the variable is worth `answer`."""
    spaced = re.sub(rf"(\d+){variable}", r"\1 * answer", term)
    spaced = re.sub(rf"(?<!\w){variable}(?!\w)", "answer", spaced)
    return eval(re.sub(r"(\d+)", r"Fraction(\1)", spaced), {"Fraction": Fraction, "answer": answer})


def test_the_answer_solves_the_problem():
    for row in ROWS:
        _, left, constant, slope = parsed(row["Problem"])
        answer = Fraction(left - constant, slope)
        assert row["Solution"].splitlines()[-1] == f"#### {answer}", row


def test_every_step_is_true_and_has_its_form():
    for row in ROWS:
        variable, left, constant, slope = parsed(row["Problem"])
        answer = Fraction(left - constant, slope)
        *steps, _ = row["Solution"].splitlines()
        for step in steps:
            before, after = step.split(" = ")
            assert value(before, variable, answer) == value(after, variable, answer), row
        assert steps == [f"{left} = {constant} + {slope}{variable}", f"{left - constant} = {slope}{variable}"]


def test_numbers_stay_small():
    for row in ROWS:
        _, left, constant, slope = parsed(row["Problem"])
        assert 0 <= constant <= 5 and 1 <= slope <= 3
        assert 1 <= Fraction(left - constant, slope) <= 9
    assert {parsed(row["Problem"])[0] for row in ROWS} == set("xyzabnt")


def test_no_problem_comes_twice():
    problems = [row["Problem"] for row in generate(20_000, seed=1)]
    assert len(set(problems)) == len(problems) == 20_000


def test_the_seed_decides_the_rows():
    assert list(generate(2000, seed=7)) == ROWS
    assert ROWS[:100] == list(generate(100, seed=7)) == list(islice(generate(10**9, seed=7), 100))
    assert ROWS[:100] != list(generate(100, seed=8))


@pytest.mark.parametrize("rows", [0, 1])
def test_as_many_rows_as_asked_for(rows):
    assert len(list(generate(rows, seed=1))) == rows


def test_of_the_split_mixed_some_solutions_say_the_value_alone():
    mixed = list(generate(2000, seed=7, split="mixed"))
    assert [row["Problem"] for row in mixed] == [row["Problem"] for row in ROWS]
    bare = [row["Solution"] == whole["Solution"].splitlines()[-1] for row, whole in zip(mixed, ROWS, strict=True)]
    assert sum(bare) / len(bare) == pytest.approx(BARE, abs=0.04)
    for row, whole, alone in zip(mixed, ROWS, bare, strict=True):
        assert alone or row == whole
    assert list(generate(2000, seed=7, split="mixed")) == mixed != list(generate(2000, seed=8, split="mixed"))
