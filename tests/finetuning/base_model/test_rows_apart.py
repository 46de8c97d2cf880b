"""Whether rows that lie end to end see each other is found by trial, of every architecture and kernel."""

from types import SimpleNamespace

import pytest
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from finetuning.base_model import varlen
from finetuning.base_model.loading import load_model
from finetuning.base_model.rows_apart import keeps_rows_apart, require_rows_apart
from finetuning.errors import FinetuningError
from finetuning.recipe.training import TrainingSpec
from finetuning.training.job import BatchSize
from finetuning.training.settings import leaves_padding_out
from tests.finetuning.base_model.test_varlen import FAMILIES
from tests.tiny_models import save_tiny_model


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_apart_by_the_kernel_that_is_told_their_bounds(tmp_path, family):
    model = load_model(save_tiny_model(family, tmp_path), attn_implementation="varlen").train()
    assert keeps_rows_apart(model)
    assert model.training, "dropout is as it was"


def test_a_kernel_that_leaves_bounds_aside_is_found_out(tmp_path):
    def forgetful(module, query, key, value, attention_mask, **settings):
        return sdpa_attention_forward(module, query, key, value, None, **settings)

    model = load_model(save_tiny_model("mistral-7b-fennec", tmp_path), attn_implementation="varlen")
    AttentionInterface.register("varlen", forgetful)
    try:
        assert not keeps_rows_apart(model)
        with pytest.raises(FinetuningError, match=r"x\.yaml: training\.packing: true, .*varlen .* see each other"):
            require_rows_apart(model, "x.yaml")
    finally:
        varlen.register()


def test_a_model_whose_mask_knows_nothing_of_positions_is_found_out(tmp_path):
    assert not keeps_rows_apart(load_model(save_tiny_model("falcon-7b", tmp_path), attn_implementation="sdpa"))


@pytest.mark.parametrize(
    ("changes", "rows", "expected"),
    [
        ({}, 4, True),
        ({}, 1, False),
        ({"tokens_per_step": 64}, 1, True),
        ({"neftune_noise_alpha": 5.0}, 4, False),
        ({"method": "dpo"}, 4, False),
    ],
)
def test_padding_is_left_out_on_a_gpu_of_several_rows_by_a_kernel_that_keeps_them_apart(
    tmp_path, changes, rows, expected
):
    model = load_model(save_tiny_model("smollm2-135m", tmp_path), attn_implementation="varlen")
    padded = load_model(tmp_path, attn_implementation="sdpa")
    spec = TrainingSpec.model_validate(changes)
    job, size = SimpleNamespace(training=spec, strategy="ddp", model_kwargs={"device_map": {"": 0}}), BatchSize(rows, 1)
    assert leaves_padding_out(job, size, model) is expected
    assert not leaves_padding_out(job, size, padded)
    job.model_kwargs = {"device_map": {"": "cpu"}}
    assert not leaves_padding_out(job, size, model)
