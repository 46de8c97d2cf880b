"""Drawn tokens: each as often as it is likely, in whichever block of the vocabulary, and never an unlikely one."""

import pytest
import torch

from finetuning.evaluation.decoding import BLOCK, Decoding, drawn

TIMES = 20_000


@pytest.mark.parametrize("tokens", [3, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
def test_tokens_come_as_often_as_they_are_likely(tokens):
    torch.manual_seed(1)
    likely = torch.zeros(tokens)
    places = torch.randperm(tokens)[:3]
    likely[places] = torch.tensor([0.1, 0.2, 0.7])
    found = drawn(likely.expand(TIMES, -1))
    assert found.shape == (TIMES, 1)
    counts = torch.bincount(found[:, 0], minlength=tokens) / TIMES
    assert counts.sum() == pytest.approx(1) and len(counts) == tokens
    noise = 5 * (likely * (1 - likely) / TIMES).sqrt()
    assert ((counts - likely).abs() <= noise).all(), "a token of likelihood 0 is never drawn"


def test_many_small_likelihoods_are_drawn_evenly():
    torch.manual_seed(2)
    tokens = 3 * BLOCK + 5
    counts = torch.bincount(drawn(torch.full((200_000, tokens), 1 / tokens))[:, 0], minlength=tokens).double()
    expected = 200_000 / tokens
    # Of so many independent counts, chi square is about their number, give or take the root of twice it.
    assert abs(float(((counts - expected) ** 2 / expected).sum()) - tokens) < 5 * (2 * tokens) ** 0.5


@pytest.mark.parametrize("share", [0.0, 1 - 2**-53])
def test_the_ends_of_what_can_be_drawn_are_tokens_that_are_likely(monkeypatch, share):
    monkeypatch.setattr(torch, "rand", lambda *shape, **of: torch.full(shape, share, **of))
    likely = torch.zeros(4, 2 * BLOCK + 9)
    likely[torch.arange(4), [0, 5, BLOCK, 2 * BLOCK + 3]] = torch.tensor([1.0, 0.25, 1e-30, 3.0])
    assert drawn(likely)[:, 0].tolist() == [0, 5, BLOCK, 2 * BLOCK + 3]


def test_rows_are_drawn_by_themselves():
    torch.manual_seed(3)
    found = drawn(torch.full((1000, 2), 0.5))[:, 0]
    assert 400 < found.sum() < 600
    assert 400 < (found[1:] != found[:-1]).sum() < 600


def test_what_is_unlikelier_than_top_p_is_left_out():
    torch.manual_seed(4)
    scores = torch.tensor([0.6, 0.3, 0.1]).log().expand(500, -1)
    kept = Decoding(8, temperature=1.0, top_p=0.7).settings()["logits_processor"](None, scores).argmax(1)
    assert set(kept.tolist()) == {0, 1}
    cold = Decoding(8, temperature=0.05).settings()["logits_processor"](None, scores).argmax(1)
    assert set(cold.tolist()) == {0}
