"""The profile of a step: every operation is of one kind."""

from benchmarks.training_profile import KINDS, by_kind


def test_an_operation_is_of_the_first_kind_that_its_name_begins_like():
    kinds = by_kind(
        {"aten::mm": 1.0, "aten::bmm": 2.0, "aten::mul": 4.0, "bitsandbytes::dequantize_4bit": 8.0, "x": 16.0}
    )
    assert list(kinds.values()) == [1.0, 2.0, 8.0, 0.0, 0.0, 0.0, 4.0, 16.0] and list(kinds) == list(KINDS)
