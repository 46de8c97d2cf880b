"""Batches: every row once an epoch, and the same rows in a step however it is cut."""

from itertools import chain

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from finetuning.training.batches import EpochLoader, StepBatches, TokenRows

LENGTHS = np.random.default_rng(0).integers(5, 300, 1_003)


def batches(order="group_by_length", rows_per_step=8, parts=2, lengths=LENGTHS, **more) -> StepBatches:
    return StepBatches(np.asarray(lengths), rows_per_step, parts, order, seed=1, **more)


@given(
    st.sampled_from(["random", "sequential", "group_by_length"]),
    st.integers(0, 60),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_every_row_is_in_one_batch_of_one_process_and_all_processes_have_as_many(order, rows, size, parts, processes):
    lengths = np.arange(rows) % 7 + 1
    size = max(size, parts * processes)
    all_batches = [list(batches(order, size, parts, lengths, process=i, processes=processes)) for i in range(processes)]
    found = [row for own in all_batches for batch in own for row in batch if row >= 0]
    assert sorted(found) == list(range(rows))
    assert {len(own) for own in all_batches} == {len(batches(order, size, parts, lengths, processes=processes))}
    assert all(batch for own in all_batches for batch in own)


def step_rows(found: list[list[int]], parts: int) -> list[list[int]]:
    return [
        sorted(row for batch in found[i : i + parts] for row in batch if row >= 0) for i in range(0, len(found), parts)
    ]


@pytest.mark.parametrize("order", ["random", "group_by_length"])
def test_a_step_has_the_same_rows_however_it_is_cut(order):
    whole, cut = (step_rows(list(batches(order, parts=parts)), parts) for parts in (1, 4))
    assert whole == cut
    shared = [list(batches(order, parts=1, process=i, processes=2)) for i in range(2)]
    assert whole == [sorted(first + second) for first, second in zip(*shared, strict=True)]


def test_grouping_by_length_pads_hardly_at_all_and_leaves_steps_in_random_order():
    def padding(found):
        longest = sum(len(rows) * LENGTHS[rows].max() for rows in found)
        return 1 - sum(LENGTHS[rows].sum() for rows in found) / longest

    grouped, mixed = batches().steps(), batches("random").steps()
    assert padding(grouped) < 0.03 < 0.3 < padding(mixed)
    means = [LENGTHS[rows].mean() for rows in grouped]
    rank = np.corrcoef(np.arange(len(means)), means)[0, 1]
    assert abs(rank) < 0.3, "long rows come early or late"


def test_each_epoch_has_an_order_of_its_own_that_the_seed_decides():
    loader = EpochLoader(range(1_003), batch_sampler=batches())
    orders = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        orders.append([batch.tolist() for batch in loader])
    assert orders[0] == orders[2] != orders[1]


def test_a_row_for_a_process_that_has_none_teaches_nothing():
    rows = TokenRows(
        Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}, {"input_ids": [4], "labels": [4]}])
    )
    assert rows.lengths.tolist() == [3, 1] and len(rows) == 2
    assert rows[0]["labels"] == [-100, 2, 3]
    assert rows[-1] == {"input_ids": [1, 2, 3], "labels": [-100] * 3}
    assert list(batches("sequential", 4, 1, [9, 8, 7, 6, 5], process=1, processes=2)) == [[2, 3], [-5]]


def test_a_loader_draws_nothing_from_the_random_numbers_of_training():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(EpochLoader(range(16), batch_sampler=batches(lengths=[1] * 16), generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_row_of_two_answers_is_as_long_as_the_longer_one_and_teaches_nothing_of_either_where_it_has_to():
    first = {"input_ids": [1, 2], "labels": [-100, 2], "rejected_input_ids": [1, 3, 4], "rejected_labels": [-100, 3, 4]}
    second = {"input_ids": [1, 2], "labels": [-100, 2], "rejected_input_ids": [3], "rejected_labels": [3]}
    rows = TokenRows(Dataset.from_list([first, second]))
    assert rows.lengths.tolist() == [3, 2]
    assert rows[-1] == first | {"labels": [-100] * 2, "rejected_labels": [-100] * 3}


@pytest.mark.parametrize("order", ["random", "sequential", "group_by_length"])
def test_a_step_of_tokens_holds_as_many_rows_as_there_is_room_for(order):
    found = batches(order, tokens_per_step=2_000)
    steps, later = found.steps(), batches(order, tokens_per_step=2_000, epoch=1).steps()
    assert sorted(chain.from_iterable(steps)) == list(range(len(LENGTHS)))
    held = [len(rows) * LENGTHS[rows].max() for rows in steps]
    assert max(held) <= 2_000 and np.median(held) > 1_700
    assert {tuple(sorted(rows)) for rows in steps} == {tuple(sorted(rows)) for rows in later}
    assert (order == "sequential") == all(map(np.array_equal, steps, later))
    assert len(found) == 2 * len(steps) == len(list(found))


def test_a_step_of_tokens_has_the_same_rows_however_it_is_cut():
    whole, cut = (step_rows(list(batches(parts=parts, tokens_per_step=2_000)), parts) for parts in (1, 4))
    assert whole == cut


def test_a_row_that_fills_a_step_alone_leaves_the_other_passes_with_nothing_to_learn():
    found = list(batches(lengths=[900, 5, 6, 7], tokens_per_step=1_000))
    assert [0] in found and [-1] in found
    assert sorted(row for batch in found for row in batch if row >= 0) == [0, 1, 2, 3]
