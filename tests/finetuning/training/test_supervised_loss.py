"""The loss of supervised tokens: of every architecture that of the plain logits, though no mask marks the padding."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from finetuning.training.supervised_loss import loss_in_tiles, read_by, supervised_loss
from tests.tiny_models import CONFIGS, OTHERS, TO_COPY, save_tiny_model

# Which sdpa cannot compute: capped scores, and sinks.
EAGER = {"gemma-2", "gpt-oss"}
LENGTHS, PROMPT = (90, 12, 47, 23), 5  # tokens of a row, and those of them that are not learned


@pytest.fixture
def batch() -> dict[str, Any]:
    """Rows that are padded at their ends, as trl's collator pads them."""
    torch.manual_seed(0)
    ids = torch.randint(5, 250, (len(LENGTHS), max(LENGTHS)))
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, :PROMPT] = -100
    for row, length in enumerate(LENGTHS):
        ids[row, length:], labels[row, length:], mask[row, length:] = 2, -100, 0
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


@pytest.mark.parametrize("name", sorted(CONFIGS | OTHERS | TO_COPY))
def test_the_loss_is_that_of_the_logits_with_a_mask(tmp_path, name, batch):
    kernel = "eager" if name.startswith(tuple(EAGER)) else "sdpa"
    folder = save_tiny_model(name, tmp_path, initializer_range=0.2)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=kernel).eval()
    add_fused_lm_head(model)
    with torch.no_grad():
        logits = model(**{key: batch[key] for key in ("input_ids", "attention_mask")}).logits[:, :-1]
        expected = cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum")
        found = [supervised_loss(model, model.get_output_embeddings(), batch), loss_in_tiles(model, batch)]
    assert [count.item() for _, count in found] == [sum(length - PROMPT for length in LENGTHS)] * 2
    assert [total.item() for total, _ in found] == pytest.approx([expected.item()] * 2, rel=1e-5)


def test_a_batch_with_nothing_to_learn_has_a_loss_of_zero(tmp_path, batch):
    model = AutoModelForCausalLM.from_pretrained(save_tiny_model("smollm2-135m", tmp_path))
    add_fused_lm_head(model)
    batch["labels"][:] = -100
    assert [x.item() for x in loss_in_tiles(model, batch)] == [0, 0]


def test_flash_attention_is_told_where_a_single_row_ends(tmp_path, batch):
    model = AutoModelForCausalLM.from_pretrained(save_tiny_model("smollm2-135m", tmp_path))
    one = {key: value[:1] for key, value in batch.items()}
    assert read_by(model, one).keys() == {"input_ids"}
    model.config._attn_implementation_internal = "flash_attention_2"
    assert read_by(model, batch).keys() == {"input_ids"}
    told = read_by(model, one)
    assert told["cu_seq_lens_q"].tolist() == told["cu_seq_lens_k"].tolist() == [0, 90]
    assert told["max_length_q"] == told["max_length_k"] == 90
