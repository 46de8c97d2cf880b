"""Texts that differ in white space alone are one, unless it carries meaning."""

from itertools import combinations

import pytest

from finetuning.checks.white_space import bare

PROSE = "The one of Oslo (in the south) is long, isn't it?"


@pytest.mark.parametrize(
    "text",
    [
        PROSE + " ",
        "\n" + PROSE,
        PROSE.replace(" ", "  ", 2),
        PROSE.replace("of Oslo", "of\nOslo"),
        PROSE.replace("long, ", "long,\r\n"),
        PROSE.replace(" ", "\u00a0", 1),
        PROSE.replace(" ", "\t", 1),
        "  " + PROSE + "\t\n",
        PROSE.replace("south) ", "south) \n\n"),
    ],
)
def test_prose_is_the_same_with_any_white_space(text):
    assert text != PROSE and bare(text) == bare(PROSE) == PROSE


@pytest.mark.parametrize(
    "programs",
    [
        ["if x:\n    a()\n    b()", "if x:\n    a()\nb()"],
        ["for i in y:\n\tsum += i\n\tprint(sum)", "for i in y:\n\tsum += i\nprint(sum)"],
        ["while ready:\n  go\n  stop", "while ready:\n  go\nstop", "while ready: go stop"],
        ["print('a  b')", "print('a b')"],
        ["a:\n  b: 1\n  c: 2", "a:\n  b: 1\nc: 2"],
        ["# one\nrun", "# one run"],
        ["1\t\t2", "1\t2"],
        ["```\na\nb\n```", "```\na b\n```"],
        ["x = 1\ny = 2", "x = 1 y = 2"],
    ],
)
def test_what_may_be_a_program_or_data_is_told_apart(programs):
    assert not [pair for pair in combinations(map(bare, programs), 2) if pair[0] == pair[1]]


def test_a_program_is_the_same_with_other_line_ends():
    program = "if x:\n    a()\n\n    b()"
    for other in (program.replace("\n", "\r\n"), program.replace("\n", "  \n"), program + "\n\n", "\n" + program):
        assert bare(other) == program
