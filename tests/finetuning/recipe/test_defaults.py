"""A short recipe has defaults for all the rest, and what is written in its place is taken."""

import pytest
import yaml
from pydantic import ValidationError

from finetuning.freshness.versions import made_from
from finetuning.recipe.loading import load_file
from finetuning.recipe.recipe import Recipe
from tests.finetuning.recipe.short_recipe import SHORT, with_sections, write


def test_a_short_recipe_has_defaults_for_all_the_rest(tmp_path):
    recipe = load_file(write(tmp_path, SHORT))
    assert recipe.name == "short"
    assert recipe.base_model.quantization is not None and recipe.base_model.quantization.type == "nf4"
    assert recipe.dataset.eval.fraction == 0.05
    assert (recipe.lora.target_modules, recipe.training.learning_rate) == ("all-linear", 2.0e-4)
    assert recipe.evaluation.gate == {}
    assert recipe.hub.private


@pytest.mark.parametrize(
    ("method", "settings"), [("sft", (None, None)), ("dpo", (0.1, "sigmoid")), ("kto", (0.1, "kto"))]
)
def test_only_what_compares_with_the_base_has_a_beta_and_a_loss(method, settings, tmp_path):
    format = "unpaired-preference" if method == "kto" else "preference"
    text = SHORT.replace("messages", format) + f"training: {{method: {method}}}\n"
    recipe = load_file(write(tmp_path, text))
    assert (recipe.training.beta, recipe.training.loss_type) == settings
    assert Recipe.model_validate_json(recipe.model_dump_json()).at(recipe.path) == recipe


def test_what_a_cluster_is_asked_for_makes_no_other_recipe_and_more_workers_do(tmp_path):
    def version(asked):
        return made_from(load_file(write(tmp_path, SHORT + f"resources: {{{asked}}}\n")))

    assert version("") == version("cpus: 8, gpus: 1, memory_gb: 64.0") != version("workers: 8")


def test_a_recipe_cannot_be_changed(tmp_path):
    recipe = load_file(write(tmp_path, SHORT))
    with pytest.raises(ValidationError):
        recipe.lora.r = 8


def test_eight_bits_have_neither_type_nor_double_quantization(tmp_path):
    text = SHORT.replace("{repo: some/model}", "{repo: some/model, quantization: {bits: 8}}")
    quantization = load_file(write(tmp_path, text)).base_model.quantization
    assert quantization is not None and (quantization.type, quantization.double) == (None, False)


def test_null_quantization_trains_in_full_precision(tmp_path):
    text = SHORT.replace("{repo: some/model}", "{repo: some/model, quantization: null}")
    assert load_file(write(tmp_path, text)).base_model.quantization is None


def test_a_key_that_takes_the_place_of_a_merged_one_is_no_duplicate(tmp_path):
    text = SHORT.replace(
        "[{hub: some/data, format: messages}]",
        "[&first {hub: some/data, format: messages}, {<<: *first, hub: other/data}]",
    )
    sources = load_file(write(tmp_path, text)).dataset.sources
    assert [(source.hub, source.format) for source in sources] == [
        ("some/data", "messages"),
        ("other/data", "messages"),
    ]


def test_a_step_may_have_as_many_tokens_instead_of_rows(tmp_path):
    recipe = load_file(write(tmp_path, with_sections("training: {tokens_per_step: 4096}")))
    assert recipe.training.tokens_per_step == 4096


def test_packing_is_allowed_where_every_kernel_keeps_rows_apart(tmp_path):
    text = with_sections(
        "base_model: {repo: a/b, attention: [flash_attention_3, flash_attention_2]}\ntraining: {packing: true}"
    )
    assert load_file(write(tmp_path, text)).training.packing


def test_rules_between_sections_also_hold_for_a_recipe_made_in_code(tmp_path):
    data = yaml.safe_load(SHORT) | {"name": "short", "training": {"packing": True}}
    with pytest.raises(ValidationError, match=r"training\.packing: true, and base_model\.attention allows sdpa"):
        Recipe.model_validate(data)
