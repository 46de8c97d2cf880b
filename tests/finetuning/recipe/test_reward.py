"""What a recipe may reward, and what does not go with `training.method: grpo`."""

import pytest
from pydantic import ValidationError

from finetuning.recipe.recipe import Recipe
from finetuning.recipe.reward import OF_GROUPS
from finetuning.recipe.sections import sections
from finetuning.recipe.training import TrainingSpec


def recipe(training=None, **sections):
    """A recipe of the rest's defaults."""
    given = {
        "name": "sums",
        "summary": "Adds",
        "base_model": {"repo": "lab/tiny"},
        "dataset": {"sources": [{"hub": "lab/sums"}], "eval": {"fraction": 0.1}},
        "hub": {"repo": "sums", "license": "mit"},
        "training": {"method": "grpo", "reward": ["final-answer"], **(training or {})},
    }
    return Recipe.model_validate(given | sections)


def test_a_list_weighs_all_terms_by_1_and_defaults_are_trls():
    spec = recipe({"reward": ["final-answer", "format"]}).training
    assert spec.reward == {"final-answer": 1.0, "format": 1.0}
    assert recipe({"reward": {"chrf": 2, "length": -0.5}}).training.reward == {"chrf": 2.0, "length": -0.5}
    assert (spec.num_generations, spec.beta, spec.loss_type, spec.epsilon, spec.scale_rewards) == (
        8,
        0.0,
        "dapo",
        0.2,
        "group",
    )


def test_vllm_draws_where_the_base_model_is_not_quantized():
    base = {"repo": "lab/tiny", "quantization": None}
    spec = recipe({"use_vllm": True, "vllm_gpu_memory_utilization": 0.5}, base_model=base).training
    assert spec.use_vllm and spec.vllm_gpu_memory_utilization == 0.5


def test_keys_of_groups_have_the_defaults_that_mean_nothing_was_said():
    assert {name: TrainingSpec.model_fields[name].default for name in OF_GROUPS} == OF_GROUPS


WRONG = {
    "a word that is no metric": ({"reward": ["finl-answer"]}, "nearest is final-answer"),
    "a metric of references": ({"reward": ["perplexity"]}, "measured on the reference"),
    "less of it is better": ({"reward": ["unclear"]}, "write format for `unclear`"),
    "citations of nothing": ({"reward": ["contains", "citations"]}, "there are no passages to cite"),
    "twice": ({"reward": ["chrf", "chrf"]}, "chrf is there twice"),
    "no weight": ({"reward": {"chrf": 0}}, "0 is no weight"),
    "a word as weight": ({"reward": {"chrf": "much"}}, "'much' is no weight"),
    "one word": ({"reward": "chrf"}, "no list of terms"),
    "nothing": ({"reward": []}, "nothing, by which no answer is right"),
    "length alone": ({"reward": ["length"]}, "length alone, by which no answer is right"),
    "right answers cost": ({"reward": {"chrf": -1.0, "length": 1.0}}, "answers that are right would cost"),
    "no whole groups": ({"per_device_train_batch_size": 6}, "a step has 6 answers .* write num_generations: 6"),
    "one answer": ({"num_generations": 1}, "greater than or equal to 2"),
    "noise": ({"neftune_noise_alpha": 5.0}, "without the noise"),
    "steps of tokens": ({"tokens_per_step": 4096}, "how long answers will be"),
    "halves that are no groups": (
        {"on_oom": "halve-batch", "per_device_train_batch_size": 24},
        "write a power of 2",
    ),
    "vLLM and 4 bits": ({"use_vllm": True}, "write base_model.quantization: null"),
    "a share of no vLLM": ({"vllm_gpu_memory_utilization": 0.5}, "use_vllm is false"),
    "another method's loss": ({"loss_type": "ipo"}, "ipo is no loss of grpo, which has dapo, grpo, dr_grpo, bnpo"),
    "another method's weight": ({"undesirable_weight": 2.0}, "training.method is grpo, which judges no answers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_rewarded_is_said_with_what_to_write(name):
    training, message = WRONG[name]
    with pytest.raises(ValidationError, match=message):
        recipe(training)


OTHER_SECTIONS = {
    "fsdp": ({"resources": {"workers": 2, "strategy": "fsdp"}}, "write strategy: ddp"),
    "trials": (
        {
            "dataset": {"sources": [{"hub": "lab/sums"}], "dev": {"fraction": 0.1}},
            "variants": {"grid": {"lora.r": [4, 8]}},
        },
        "loss of reference answers would choose",
    ),
    "texts": (
        {"dataset": {"sources": [{"hub": "lab/sums", "format": "text"}], "eval": {"fraction": 0.1}}},
        "which rewards answers to questions",
    ),
    "answers that were judged": (
        {"dataset": {"sources": [{"hub": "lab/sums", "format": "unpaired-preference"}], "eval": {"fraction": 0.1}}},
        "would reward what was judged bad",
    ),
    "too hot for vLLM": (
        {
            "base_model": {"repo": "lab/tiny", "quantization": None},
            "training": {"method": "grpo", "reward": ["chrf"], "use_vllm": True, "temperature": 2.5},
        },
        "vLLM draws by 2 at most",
    ),
    "cut references": ({"chat": {"over_length": "truncate"}}, "whose references would be cut"),
    "packing": (
        {
            "base_model": {"repo": "lab/tiny", "attention": ["varlen"]},
            "training": {"method": "grpo", "reward": ["chrf"], "packing": True},
        },
        "draws its answers row by row",
    ),
}


@pytest.mark.parametrize("name", OTHER_SECTIONS)
def test_other_sections_that_do_not_go_with_it_are_said(name):
    sections, message = OTHER_SECTIONS[name]
    with pytest.raises(ValidationError, match=message):
        recipe(**sections)


KNOWLEDGE = {
    "knowledge": {"documents": [{"hub": "lab/manuals"}]},
    "dataset": {"sources": [{"hub": "lab/sums"}], "eval": {"sources": [{"hub": "lab/exam"}]}},
    "evaluation": {"metrics": ["contains"]},
}


def test_of_answers_with_passages_citations_are_a_term():
    assert recipe({"reward": {"contains": 1, "citations": 0.5}}, **KNOWLEDGE).training.reward["citations"] == 0.5


@pytest.mark.parametrize(
    ("reward", "context", "message"),
    [
        (["citations"], {}, "citations alone, by which no answer is right"),
        (["contains", "citations"], {"citations": False}, "citations with context.citations: false"),
        (["contains", "python-tests"], {}, "would run citations too"),
    ],
)
def test_what_answers_with_passages_cannot_be_rewarded_for_is_said(reward, context, message):
    with pytest.raises(ValidationError, match=message):
        recipe({"reward": reward}, **KNOWLEDGE, context=context)


@pytest.mark.parametrize("key", [{"reward": ["chrf"]}, {"num_generations": 4}, {"temperature": 0.5}, {"top_p": 0.9}])
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_what_other_methods_would_ignore_is_said(key, method):
    with pytest.raises(ValidationError, match=f"would be ignored: training.method is {method}"):
        recipe({"method": method, "reward": {}, **key})


def test_it_goes_on_from_an_adapter_and_other_recipes_keep_their_fingerprints():
    assert recipe(lora={"from": "first"}).lora.start_from == "first"
    found = sections(recipe({"method": "sft", "reward": {}}), "lora_adapter")["training"]
    assert isinstance(found, dict) and not {"reward", "num_generations", "temperature"} & set(found)
    assert TrainingSpec().beta is None
