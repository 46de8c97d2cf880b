"""The profile of a step: every operation is of one kind, and their shares add up."""

import json

from benchmarks.training_profile import KINDS, by_kind, show


def test_an_operation_is_of_the_first_kind_that_its_name_begins_like():
    kinds = by_kind(
        {"aten::mm": 1.0, "aten::bmm": 2.0, "aten::mul": 4.0, "bitsandbytes::dequantize_4bit": 8.0, "x": 16.0}
    )
    assert list(kinds.values()) == [1.0, 2.0, 8.0, 0.0, 0.0, 0.0, 4.0, 16.0] and list(kinds) == list(KINDS)


def test_the_shares_add_up_and_the_largest_comes_first(capsys):
    show({"attention": 1.0, "loss": 2.0, "optimizer": 0.5})
    *table, last = capsys.readouterr().out.splitlines()
    shares = json.loads(last)
    assert shares.pop("seconds") == 3.5 and abs(sum(shares.values()) - 1) < 1e-3
    assert [line.split()[-1] for line in table] == ["loss", "attention", "optimizer"] and "57.1%" in table[0]
