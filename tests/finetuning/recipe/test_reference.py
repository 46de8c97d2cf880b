"""The reference shows every key of a recipe, and each key is what trl, transformers, peft and the Hub take it for."""

import dataclasses
import inspect
from typing import get_args

import pytest
from pydantic import ValidationError

from finetuning.recipe.chat import ChatSpec
from finetuning.recipe.hub import HubSpec
from finetuning.recipe.loading import ROOT, load_file
from finetuning.recipe.lora import LoraMergeSpec, LoraSpec
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.reference import reference
from finetuning.recipe.training import TrainingSpec
from tests.finetuning.recipe.short_recipe import write


def test_the_reference_in_docs_is_up_to_date():
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python -m finetuning.recipe reference > docs/recipe.md"


def test_the_reference_shows_every_key_of_every_section():
    page = reference()
    schema = Recipe.model_json_schema()
    keys = [
        key for section in [schema, *schema["$defs"].values()] for key in section.get("properties", ()) if key != "name"
    ]
    assert len(keys) > 70
    assert all(f"| `{key}` |" in page for key in keys)


def test_the_example_in_the_reference_is_a_right_recipe(tmp_path):
    example = reference().partition("```yaml\n")[2].partition("```")[0]
    assert load_file(write(tmp_path, example)).hub.license == "mit"


def test_every_training_key_is_a_setting_of_trl_that_is_not_deprecated_or_this_projects_own():
    from trl import SFTConfig

    from finetuning.training.settings import OURS

    fields = {field.name: field for field in dataclasses.fields(SFTConfig)}
    handed_on = set(TrainingSpec.model_fields) - OURS
    assert handed_on <= set(fields) and set(TrainingSpec.model_fields) >= OURS
    assert not [key for key in handed_on if "eprecated" in fields[key].metadata.get("help", "")]


def test_every_choice_of_training_is_known_to_transformers_and_needs_nothing_else():
    import torch
    from transformers import get_scheduler
    from transformers.training_args import OptimizerNames

    fields = TrainingSpec.model_fields
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    for name in get_args(fields["lr_scheduler_type"].annotation):
        get_scheduler(name, optimizer, num_warmup_steps=2, num_training_steps=10)
    assert set(get_args(fields["optim"].annotation)) <= {name.value for name in OptimizerNames}


def test_only_the_constant_schedule_ignores_its_warmup():
    import torch
    from transformers import get_scheduler

    def first_rate(name: str) -> float:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return float(get_scheduler(name, optimizer, num_warmup_steps=5, num_training_steps=10).get_last_lr()[0])

    rates = {name: first_rate(name) for name in get_args(TrainingSpec.model_fields["lr_scheduler_type"].annotation)}
    assert [name for name, rate in rates.items() if rate > 0] == ["constant"]


def test_every_lora_key_is_a_setting_of_peft():
    from peft import LoraConfig

    own = {"start_from", "merge"}
    assert set(LoraSpec.model_fields) - own <= {field.name for field in dataclasses.fields(LoraConfig)}
    listed = LoraSpec.model_validate({"target_modules": ["q_proj", "v_proj"]})
    assert set(LoraConfig(**listed.model_dump(exclude=own)).target_modules or ()) == {"q_proj", "v_proj"}


def test_every_key_of_a_merge_but_its_seed_is_one_of_peft():
    from peft.tuners.lora import LoraModel

    known = inspect.signature(LoraModel.add_weighted_adapter).parameters
    assert set(LoraMergeSpec.model_fields) - {"seed"} <= set(known)


def test_repo_names_are_those_that_the_hub_client_takes():
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    names = ["a", "a/b", "a.b-c_d/E", "-a", "a-", "a--b", "a..b", "a/b/c", "a b", "a.git", "/a", "a/", "x" * 97, "ä"]
    for name in names:
        try:
            validate_repo_id(name)
            known = True
        except HFValidationError:
            known = False
        assert recipe_takes(name) == known, name


def recipe_takes(name: str) -> bool:
    try:
        HubSpec(repo=name, license="mit")
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "strftime_now", "two words", "not"])
def test_arguments_that_are_not_the_recipes_to_give_are_refused(name):
    with pytest.raises(ValidationError, match=rf"{name}.* is (given to the template by|not a name)"):
        ChatSpec(template_kwargs={name: True})
