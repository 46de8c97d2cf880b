"""A model without data holds what a real one holds, and makes nothing of its size."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers import AutoConfig, Gemma2Config, MistralConfig

from finetuning.base_model.loading import keep_trainable_on_cpu, load_model
from finetuning.fused.products import fuse_products
from finetuning.lora.config import keep_master_weights, lora_config
from finetuning.memory.gpu_layers import as_on_gpu
from finetuning.memory.shapes import (
    LARGE,
    Allocations,
    adapted_model,
    leave_meta,
    mixed_precision,
    one_pass,
    passes,
    size_of,
    tensors_of,
)
from finetuning.quantization import bitsandbytes_config
from finetuning.recipe.recipe import Recipe
from tests.tiny_models import save_tiny_model

NF4 = {"bits": 4}
FP4_UNNESTED = {"bits": 4, "type": "fp4", "double": False}


def recipe_of(quantization: dict | None = None, lora: dict | None = None, training: dict | None = None, **base_model):
    return Recipe.model_validate(
        {
            "name": "tiny",
            "summary": "tiny",
            "base_model": {"repo": "someone/model", "quantization": quantization, **base_model},
            "dataset": {"sources": [{"generator": "linear-equations", "rows": 10}]},
            "chat": {"max_length": 32},
            "lora": {"r": 4, **(lora or {})},
            "training": {"per_device_train_batch_size": 4, "activation_checkpointing": False, **(training or {})},
            "hub": {"repo": "tiny", "license": "mit"},
        }
    )


def on_meta(recipe: Recipe, folder: Path) -> Any:
    """The adapted model of the configuration in `folder`."""
    return adapted_model(recipe, AutoConfig.from_pretrained(folder), recipe.base_model.attention[0], [])


def real(recipe: Recipe, folder: Path) -> Any:
    """The adapted model of the weights in `folder`, made as training makes it."""
    spec = recipe.base_model
    config = bitsandbytes_config(spec.quantization, spec.dtype, outliers=False) if spec.quantization else None
    kernel, place = spec.attention[0], {"": "cpu"}
    model = load_model(
        folder, dtype=spec.dtype, quantization_config=config, device_map=place, attn_implementation=kernel
    )
    keep_trainable_on_cpu(model)
    adapted = get_peft_model(model, lora_config(recipe.lora, model, [], "tiny.yaml"))
    keep_master_weights(adapted)
    return adapted


def held(recipe: Recipe, model: Any) -> list[Any]:
    """Bytes of the model, and of passes over 4 rows of 32 tokens with and without gradients."""
    fuse_products(model, on_cpu=True)
    size = size_of([*tensors_of(model)])
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    with mixed_precision(recipe.base_model.dtype):
        evaluation = one_pass(model, 4, 32, gradients=False)
        if recipe.training.activation_checkpointing:
            model.enable_input_require_grads()
            model.get_base_model().activation_checkpointing_enable()
        return [size, evaluation, one_pass(model, 4, 32)]


@pytest.mark.parametrize(
    ("family", "recipe"),
    [
        ("smollm2-135m", recipe_of(NF4)),
        ("smollm2-135m", recipe_of(attention=["eager"])),
        ("smollm2-135m", recipe_of(lora={"use_dora": True})),
        ("falcon-7b", recipe_of(NF4, training={"activation_checkpointing": True})),
        ("phi-2", recipe_of(FP4_UNNESTED)),
        ("gemma-2b", recipe_of({"bits": 8})),
        ("mistral-7b-fennec", recipe_of(lora={"modules_to_save": ["lm_head"]})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_model_without_data_holds_what_the_real_one_holds(tmp_path, family, recipe):
    folder = save_tiny_model(family, tmp_path)
    model = on_meta(recipe, folder)
    with FakeTensorMode():
        leave_meta(model)
        predicted = held(recipe, model)
    assert predicted == held(recipe, real(recipe, folder))


def test_a_few_layers_tell_what_all_hold():
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 300}
    config, recipe = MistralConfig(**shape, num_key_value_heads=2, num_hidden_layers=7), recipe_of(NF4)
    model: Any = adapted_model(recipe, config, "sdpa", [])
    with FakeTensorMode(), mixed_precision("bfloat16"):
        leave_meta(model)
        assert passes(model, 2, 16) == one_pass(model, 2, 16)
        assert passes(model, 2, 16).kept > 3 * passes(model, 2, 16, gradients=False).kept
    assert len(model.get_base_model().model.layers) == 7


def test_peft_converts_nothing_for_adapters_where_autocast_does(tmp_path):
    model = on_meta(recipe_of(NF4), save_tiny_model("smollm2-135m", tmp_path))
    with FakeTensorMode():
        leave_meta(model)
        with torch.autocast("cpu", torch.bfloat16):
            converted = one_pass(model, 4, 32).kept
        with mixed_precision("bfloat16"):
            assert one_pass(model, 4, 32).kept < converted
    assert not torch.is_autocast_enabled("cuda")


def test_norms_and_powers_keep_more_on_a_gpu_and_dropout_less(tmp_path):
    folder, kept = save_tiny_model("phi-2", tmp_path), {}
    for dropout in (0.0, 0.5):
        for device in ("cpu", "cuda"):
            model = on_meta(recipe_of(lora={"lora_dropout": dropout}), folder)
            with FakeTensorMode():
                leave_meta(model)
                if device == "cuda":
                    as_on_gpu(model, "bfloat16")
                with mixed_precision("bfloat16"):
                    kept[device, dropout] = one_pass(model, 4, 32).kept
    assert kept["cuda", 0.0] > kept["cpu", 0.0]
    masks = {device: kept[device, 0.5] - kept[device, 0.0] for device in ("cpu", "cuda")}
    assert masks["cuda"] < masks["cpu"]


def test_gradients_that_a_pass_makes_are_part_of_its_peak_and_gone_in_the_end(tmp_path):
    model = on_meta(recipe_of(lora={"r": 64}), save_tiny_model("smollm2-135m", tmp_path))
    with FakeTensorMode():
        leave_meta(model)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        made = one_pass(model, 1, 2)
        assert made.peak >= size_of(trained)
        assert all(parameter.grad is None for parameter in trained)
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        assert one_pass(model, 1, 2).peak < made.peak


def test_flash_attention_is_counted_for_models_with_sdpa_and_without():
    for family in (Gemma2Config, MistralConfig):
        shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 300}
        config = family(**shape, num_key_value_heads=2, head_dim=16, num_hidden_layers=2)
        model = adapted_model(recipe_of(NF4), config, "flash_attention_2", [])
        with FakeTensorMode():
            leave_meta(model)
            assert one_pass(model, 2, 16, masked=False).kept > 0


def test_no_tensor_of_a_7b_model_has_data():
    model = adapted_model(recipe_of(NF4), MistralConfig(), "sdpa", [])
    assert all(tensor.is_meta for tensor in model.parameters())
    with FakeTensorMode():
        leave_meta(model)
        tensors = [*tensors_of(model)]
    assert size_of(tensors) > 4e9
    assert all(isinstance(tensor, FakeTensor) for tensor in tensors)


def test_memory_that_tensors_share_counts_once_and_freed_memory_no_longer():
    with Allocations() as memory:
        first = torch.empty(1000)
        view = first[:10].view(2, 5)
        second = torch.empty(500)
        assert (memory.bytes, memory.peak) == (6000, 6000)
        del first
        assert memory.bytes == 6000, "the view holds its memory"
        del view, second
        assert (memory.bytes, memory.peak) == (0, 6000)


def test_what_passed_is_what_was_freed_in_blocks_that_malloc_keeps():
    with Allocations() as memory:
        kept, large, small = torch.empty(1000), torch.empty(LARGE, dtype=torch.uint8), torch.empty(500)
        assert memory.passed == 0
        del large
        assert memory.passed == 0
        del small
        assert memory.passed == 2000
    del kept


def test_flash_attention_keeps_no_scores_of_falcons_either(tmp_path):
    config = AutoConfig.from_pretrained(save_tiny_model("falcon-7b", tmp_path))
    kept = {}
    for kernel in ("flash_attention_2", "eager"):
        model = adapted_model(recipe_of(NF4), config, kernel, [])
        with FakeTensorMode():
            leave_meta(model)
            kept[kernel] = one_pass(model, 2, 256, masked=kernel == "eager").kept
    scores = 2 * 2 * 4 * 256 * 256 * 2  # layers, rows, heads, length, length, bytes
    assert kept["eager"] - kept["flash_attention_2"] > scores
