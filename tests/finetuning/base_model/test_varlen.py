"""The attention kernel `varlen`: rows that lie end to end are computed as each would be alone."""

from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from finetuning.base_model import varlen
from finetuning.base_model.loading import load_model
from finetuning.errors import FinetuningError
from tests.tiny_models import save_tiny_model

WINDOW = 16  # of a layer of Gemma 3, below
LENGTHS = (40, 3, 25)
ROWS = [[5 + (7 * i + 3 * length) % 90 for i in range(length)] for length in LENGTHS]
FAMILIES = ["gemma-2b", "mistral-7b-fennec", "llama-3", "qwen-2", "qwen-3", "gemma-3", "phi-4-mini", "smollm3-3b"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return lambda family: save_tiny_model(family, tmp_path_factory.mktemp(family))


def packed():
    return DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)([{"input_ids": row} for row in ROWS])


def logits_of(model, **inputs):
    return model(use_cache=False, **{name: value for name, value in inputs.items() if name != "labels"}).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_each_packed_row_has_the_logits_and_gradients_that_it_has_alone(saved, family, monkeypatch):
    folder = saved(family)
    together, alone = (load_model(folder, attn_implementation=kernel) for kernel in ("varlen", "sdpa"))
    apart = torch.cat([logits_of(alone, input_ids=torch.tensor([row])) for row in ROWS], dim=1)
    # Of packed rows a mask would have as many numbers as they have tokens, squared.
    monkeypatch.setattr(varlen, "sdpa_mask", None)
    found = logits_of(together, **packed())
    assert_close(found, apart, rtol=1e-4, atol=1e-4)
    for logits in (found, apart):
        logits.square().sum().backward()
    for one, other in zip(together.parameters(), alone.parameters(), strict=True):
        assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", ["mistral-7b-fennec", "gemma-3"])
def test_padded_rows_and_generated_tokens_are_those_of_sdpa(saved, family, side):
    folder, width = saved(family), max(LENGTHS)
    filled = [(row, [0] * (width - len(row))) for row in ROWS]
    ids = torch.tensor([row + pad if side == "right" else pad + row for row, pad in filled])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    models = [load_model(folder, attn_implementation=kernel).eval() for kernel in ("varlen", "sdpa")]
    assert_close(*(logits_of(model, **inputs) for model in models))
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    if side == "left":
        assert torch.equal(*(model.generate(**inputs, **settings) for model in models))


def flash(query, key, value, bounds, others, longest, most, scale, window_size, enable_gqa):
    """What torch documents of its kernel, which runs on GPUs alone: a window of (tokens to the left, to the right)."""
    assert bounds is others and longest == most == int(bounds.diff().max())
    assert query.dim() == 3 and key.shape[1] == value.shape[1] and enable_gqa == (query.shape[1] != key.shape[1])
    left, right = window_size
    read = []
    for start, end in pairwise(bounds.tolist()):
        heads = [part[start:end].transpose(0, 1) for part in (query, key, value)]
        places = torch.arange(end - start)
        behind = places[:, None] - places
        mask = (behind >= -right) & ((behind <= left) | (left == -1))
        settings = {"attn_mask": mask, "scale": scale, "enable_gqa": enable_gqa}
        read.append(torch.nn.functional.scaled_dot_product_attention(*heads, **settings).transpose(0, 1))
    return torch.cat(read)


@pytest.mark.parametrize("family", ["gemma-2b", "gemma-3", "mistral-7b-fennec"])
def test_the_kernel_gets_what_it_needs_for_the_same_numbers(saved, family, monkeypatch):
    model = load_model(saved(family), attn_implementation="varlen")
    row_by_row = logits_of(model, **packed())
    monkeypatch.setattr(varlen, "varlen_attn", flash)
    monkeypatch.setattr(varlen, "has_kernel", lambda query: True)
    assert_close(logits_of(model, **packed()), row_by_row, rtol=1e-4, atol=1e-4)


def test_torch_still_has_the_kernel_with_those_arguments_and_that_shape():
    with torch.device("meta"):
        heads = [torch.empty(1, number, 68, 64, dtype=torch.bfloat16) for number in (8, 2, 2)]
        bounds = torch.empty(4, dtype=torch.int32)
    assert varlen.by_kernel(*heads, bounds, 40, None, WINDOW).shape == (1, 68, 8, 64)


def test_a_cpu_has_no_such_kernel():
    assert not varlen.has_kernel(torch.empty(1, 2, 3, 64, dtype=torch.bfloat16))


def test_an_architecture_that_chooses_its_kernels_itself_is_told_not_to_have_it(saved):
    with pytest.raises(FinetuningError, match=r"base_model\.attention: varlen is not a kernel that .* has"):
        load_model(saved("falcon-7b"), attn_implementation="varlen")


def test_attention_with_a_part_that_the_kernel_lacks_is_told():
    with pytest.raises(FinetuningError, match=r"varlen, and the attention of Linear has a part .*\(softcap\)"):
        varlen.attend(torch.nn.Linear(1, 1), *[torch.empty(1, 2, 3, 64)] * 3, None, softcap=50.0)
