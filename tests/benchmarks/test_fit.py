"""What predictions beside measurements come to."""

import json

import pytest

from benchmarks.fit import Comparison, result, table

FOUND = [Comparison(4, 1100, 1000, 1.5), Comparison(8, 1600, 2000, 1.0), Comparison(16, 3000, 3000, 1.0)]


def test_the_largest_error_counts_whatever_its_sign():
    assert [it.error for it in FOUND] == pytest.approx([0.1, -0.2, 0.0])
    found = json.loads(json.dumps(result(FOUND)))
    assert found["largest_error"] == 0.2
    assert found["trainings"][0] == {"rows": 4, "predicted": 1100, "measured": 1000, "seconds": 1.5, "error": 0.1}


def test_the_table_has_a_line_for_each_training():
    *_, first, second, third = table(FOUND).splitlines()
    assert first.split() == ["4", "1,100", "MiB", "1,000", "MiB", "+10.0%", "1.5", "s"]
    assert second.split()[5] == "-20.0%" and third.split()[5] == "+0.0%"
