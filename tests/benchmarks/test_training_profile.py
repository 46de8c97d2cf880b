"""The profile of a step: every operation is of one kind, and their shares add up."""

import json

from benchmarks.training_profile import KINDS, by_kind, main


def test_an_operation_is_of_the_first_kind_that_its_name_begins_like():
    kinds = by_kind(
        {"aten::mm": 1.0, "aten::bmm": 2.0, "aten::mul": 4.0, "bitsandbytes::dequantize_4bit": 8.0, "x": 16.0}
    )
    assert list(kinds.values()) == [1.0, 2.0, 8.0, 0.0, 0.0, 0.0, 4.0, 16.0] and list(kinds) == list(KINDS)


def test_a_training_is_profiled_and_its_shares_add_up(capfd):
    main(["--steps", "3", "--precision", "bf16"])
    shares = json.loads(capfd.readouterr().out.splitlines()[-1])
    seconds = shares.pop("seconds")
    assert seconds > 0 and abs(sum(shares.values()) - 1) < 1e-3
    assert shares["matrix products of layers and head"] > 0.1
