"""Settings that are tried: which there are, which may be, and that a mistake in one is told before anything runs."""

import pytest

from finetuning.recipe.loading import load_file
from finetuning.recipe.sections import asks_for, sections
from finetuning.recipe.smoke import smoke
from finetuning.recipe.trials import settled, variants_of
from finetuning.recipe.variant_rules import changeable
from tests.finetuning.recipe.short_recipe import mistakes_of, with_sections, write

DATA = "dataset: {sources: [{hub: some/data, format: messages}], dev: {fraction: 0.1}}\n"


def recipe(folder, variants: str, more: str = ""):
    return load_file(write(folder, with_sections(f"{DATA}variants: {variants}\n{more}")))


def mistake(folder, variants: str, more: str = "") -> str:
    (found,) = mistakes_of(write(folder, with_sections(f"{DATA}variants: {variants}\n{more}")))
    return found


def test_a_grid_is_every_combination_and_a_list_what_it_says(tmp_path):
    grid = recipe(tmp_path / "grid", "{grid: {lora.r: [4, 8], training.learning_rate: [1.0e-4, 2.0e-4]}}")
    assert [dict(variant.changes) for variant in variants_of(grid)] == [
        {"lora.r": 4, "training.learning_rate": 1e-4},
        {"lora.r": 4, "training.learning_rate": 2e-4},
        {"lora.r": 8, "training.learning_rate": 1e-4},
        {"lora.r": 8, "training.learning_rate": 2e-4},
    ]
    listed = recipe(tmp_path / "list", "{list: [{lora.r: 4}, {}, {lora.r: 4}, {lora.use_dora: true}]}")
    assert [dict(variant.changes) for variant in variants_of(listed)] == [{"lora.r": 4}, {}, {"lora.use_dora": True}]


def test_a_variant_is_the_recipe_with_its_settings_and_nothing_left_to_try(tmp_path):
    found = recipe(tmp_path, "{grid: {lora.r: [4, 8]}}", "lora: {lora_alpha: 64}")
    by_itself = settled(found, {"lora.r": 4, "lora.target_modules": ["q_proj"]})
    assert (by_itself.lora.r, by_itself.lora.lora_alpha, by_itself.variants) == (4, 64, None)
    assert by_itself.lora.target_modules == ("q_proj",) and by_itself.path == found.path
    assert by_itself.dataset == found.dataset and found.lora.r == 16


def test_runs_draws_so_many_of_them_by_the_seed_in_their_order(tmp_path):
    grid = "grid: {lora.r: [1, 2, 3, 4, 5, 6, 7, 8, 9]}"
    drawn = [
        [variant.changes["lora.r"] for variant in variants_of(recipe(tmp_path / name, f"{{{grid}, {keys}}}"))]
        for name, keys in {"a": "runs: 4", "b": "runs: 4", "c": "runs: 4, seed: 7", "d": "runs: 99"}.items()
    ]
    assert len(drawn[0]) == 4 and drawn[0] == drawn[1] == sorted(drawn[0]) != drawn[2] and len(drawn[3]) == 9


def test_what_is_tried_and_what_it_starts_from_is_in_the_choices_fingerprint_alone(tmp_path):
    first = recipe(tmp_path / "a", "{grid: {lora.r: [4, 8]}}")
    more = recipe(tmp_path / "b", "{grid: {lora.r: [4, 8, 16]}}")
    other = recipe(tmp_path / "c", "{grid: {lora.r: [4, 8]}}", "training: {seed: 7}")
    assert asks_for(first, "variants")
    assert sections(first, "variants") != sections(more, "variants")
    assert sections(first, "variants") != sections(other, "variants")
    for asset in ("raw_dataset", "chat_dataset", "quantized_base_model", "lora_adapter", "evaluation_report"):
        assert sections(first, asset) == sections(more, asset)
    assert "variants" not in sections(settled(first, {"lora.r": 4}), "lora_adapter")


@pytest.mark.parametrize(
    ("variants", "told"),
    [
        ("{}", "variants: has neither grid nor list; write exactly one of them"),
        ("{grid: {lora.r: [4, 8]}, list: [{}, {lora.r: 8}]}", "variants: has both grid and list; write exactly one"),
        ("{grid: {lora.r: [4]}}", "variants.grid: one variant alone, so that there is nothing to choose"),
        ("{grid: {lora.r: 4}}", "variants.grid.lora.r: 4 is not a list"),
        ("{grid: {lora.r: []}}", "variants.grid.lora.r: [] is empty."),
        ("{list: [{lora.r: 4}, {lora.r: 4}]}", "variants.list: one variant alone"),
        ("{grid: {lora.r: [4, 0]}}", "variants.grid: lora.r: 0 is not a positive number"),
        ("{grid: {lora.rank: [4, 8]}}", "variants.grid: lora.rank: no key that a variant may change"),
        ("{grid: {learning_rate: [0.1, 0.2]}}", "nearest is training.learning_rate"),
        ("{grid: {training.learning_rate: [1e-4, 0.2]}}", "learning_rate: '1e-4' is text, not a number; write 1.0e-4"),
        ("{grid: {chat.max_length: [64, 128]}}", "exams compare what chat decides: write a recipe of its own"),
        ("{grid: {training.method: [sft, dpo]}}", "since losses could not be compared"),
        ("{grid: {lora.from: [one, two]}}", "since losses could not be compared"),
        ("{grid: {training.save_minutes: [1.0, 2.0]}}", "training.save_minutes: no key that a variant may change"),
        ("{grid: {lora.init_lora_weights: [true, loftq]}}", "loftq: changes quantized_base_model, which all variants"),
        ("{grid: {lora.init_lora_weights: [true, pissa]}}", "pissa, which takes the adapter out of the base model's"),
        ("{grid: {training.warmup_steps: [1.0, 9.0], training.max_steps: [4, 5]}}", "9, and the training has 4 steps"),
        ("{grid: {lora.r: [4, 8]}, first_share: 1.0}", "variants.first_share: 1.0 is not less than 1"),
        ("{grid: {lora.r: [4, 8]}, minutes: 0}", "variants.minutes: 0 is not a positive number"),
        ("{grid: {lora.r: [4, 8]}, reduction_factor: 1}", "variants.reduction_factor: 1 is not at least 2"),
    ],
)
def test_a_mistake_in_a_variant_is_told_with_its_place(tmp_path, variants, told):
    found = "\n".join(mistakes_of(write(tmp_path, with_sections(f"{DATA}variants: {variants}\n"))))
    assert "short.yaml:" in found and told in found


def test_too_many_combinations_are_refused(tmp_path):
    many = "{grid: {lora.r: " + str(list(range(1, 1002))) + "}}"
    assert "1,001 combinations, of which 1,000" in mistake(tmp_path, many)


def test_the_rows_of_the_exam_never_choose(tmp_path):
    text = "dataset: {sources: [{hub: some/data}]}\nvariants: {grid: {lora.r: [4, 8]}}"
    (found,) = mistakes_of(write(tmp_path, with_sections(text)))
    assert "variants: without dataset.dev, so that the rows of the exam would choose" in found


def test_what_a_variant_may_change_makes_another_adapter_and_no_other_loss():
    assert {"lora.r", "lora.use_dora", "training.learning_rate", "training.num_train_epochs"} <= set(changeable())
    assert not {"training.beta", "training.bf16", "training.report_to", "lora.from"} & set(changeable())


def test_a_smoke_run_tries_the_same_settings_but_those_that_it_limits(tmp_path):
    found = smoke(recipe(tmp_path, "{grid: {lora.r: [4, 8], training.max_steps: [50, 100]}}"))
    assert [dict(variant.changes) for variant in variants_of(found)] == [{"lora.r": 4}, {"lora.r": 8}]
    assert settled(found, {"lora.r": 4}).training.max_steps == 4 and settled(found, {"lora.r": 4}).smoke
    assert found.dataset.dev and found.dataset.dev.fraction == 0.125
    alone = smoke(recipe(tmp_path / "steps", "{grid: {training.max_steps: [50, 100]}}"))
    assert [dict(variant.changes) for variant in variants_of(alone)] == [{}]
