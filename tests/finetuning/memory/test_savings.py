"""Changes of a recipe that save memory: the smallest of each kind, together where none is enough, or none."""

from typing import Any

from finetuning.memory.savings import settings_that_fit, smaller_passes, with_settings
from finetuning.recipe.base_model import QuantizationSpec
from finetuning.recipe.recipe import Recipe


def recipe_of(
    training: dict[str, Any] | None = None,
    lora: dict[str, Any] | None = None,
    rows: bool = True,
    resources: dict[str, Any] | None = None,
) -> Recipe:
    passes = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "activation_checkpointing": False}
    if not rows:
        del passes["per_device_train_batch_size"]
    return Recipe.model_validate(
        {
            "name": "tiny",
            "summary": "tiny",
            "base_model": {"repo": "someone/model", "quantization": None},
            "dataset": {"sources": [{"generator": "linear-equations", "rows": 10}]},
            "chat": {"max_length": 32},
            "lora": lora or {},
            "training": {**passes, **(training or {})},
            "resources": resources or {},
            "hub": {"repo": "tiny", "license": "mit"},
        }
    )


def test_smaller_passes_keep_the_rows_of_a_step():
    recipe = recipe_of(training={"per_device_train_batch_size": 42, "gradient_accumulation_steps": 2})
    passes = [with_settings(recipe, settings).training for settings in smaller_passes(recipe)]
    assert [p.per_device_train_batch_size for p in passes] == [21, 7, 3, 1]
    assert {p.per_device_train_batch_size * p.gradient_accumulation_steps for p in passes} == {84}
    assert [p.per_device_eval_batch_size for p in passes] == [4, 4, 3, 1]


def test_a_step_of_tokens_is_cut_into_more_passes():
    recipe = recipe_of(training={"tokens_per_step": 4096, "gradient_accumulation_steps": 3}, rows=False)
    key = "training.gradient_accumulation_steps"
    assert smaller_passes(recipe) == [{key: 6}, {key: 12}, {key: 24}, {key: 48}]


def bytes_of(recipe: Recipe) -> int:
    """Made up, so that each kind of change counts: 8 per row and token, halved by checkpointing, and the weights."""
    size = 8 * recipe.training.per_device_train_batch_size * recipe.chat.max_length
    weights = 100 if recipe.base_model.quantization else 400
    if recipe.resources.strategy == "fsdp":
        weights //= recipe.resources.workers or 1
    return weights + (size // 2 if recipe.training.activation_checkpointing else size)


def test_of_each_kind_of_change_the_smallest_that_fits_is_named():
    # 400 + 8 * 4 * 32 = 1424 as it is.
    found = settings_that_fit(recipe_of(), 32, 1200, bytes_of)
    assert [settings for settings, _ in found] == [
        {
            "training.per_device_train_batch_size": 2,
            "training.gradient_accumulation_steps": 2,
            "training.per_device_eval_batch_size": 2,
        },
        {"training.activation_checkpointing": True},
        {"base_model.quantization": QuantizationSpec(bits=4)},
        {"chat.max_length": 16},
    ]
    assert [size for _, size in found] == [912, 912, 1124, 912]


def test_changes_are_put_together_where_none_is_enough_alone():
    ((settings, size),) = settings_that_fit(recipe_of(), 32, 240, bytes_of)
    assert bytes_of(with_settings(recipe_of(), settings)) == size == 228
    assert "chat.max_length" not in settings
    ((settings, _),) = settings_that_fit(recipe_of(), 32, 170, bytes_of)
    assert settings["chat.max_length"] == 16
    assert settings_that_fit(recipe_of(), 32, 90, bytes_of) == []


def test_weights_that_an_adapter_is_taken_out_of_are_not_to_be_quantized():
    recipe = recipe_of(lora={"init_lora_weights": "pissa"})
    found = settings_that_fit(recipe, 32, 1200, bytes_of)
    assert found and all("base_model.quantization" not in settings for settings, _ in found)


def test_several_processes_may_divide_the_weights():
    found = settings_that_fit(recipe_of(resources={"workers": 4}), 32, 1200, bytes_of)
    assert ({"resources.strategy": "fsdp"}, 1124) in found
    alone, divided = recipe_of(), recipe_of(resources={"workers": 4, "strategy": "fsdp"})
    for recipe in (alone, divided):
        assert all("resources.strategy" not in settings for settings, _ in settings_that_fit(recipe, 32, 900, bytes_of))


def test_weights_of_8_bits_are_not_to_be_divided():
    recipe = with_settings(recipe_of(resources={"workers": 4}), {"base_model.quantization": QuantizationSpec(bits=8)})
    found = settings_that_fit(recipe, 32, 900, bytes_of)
    assert found and all("resources.strategy" not in settings for settings, _ in found)
