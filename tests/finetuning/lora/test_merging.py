"""Adapters that become one: as peft merges them on the model itself, the same each time, and never by half."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from finetuning.errors import FinetuningError
from finetuning.lora.merging import Part, merge_adapters, settings_of_merged
from finetuning.recipe.lora import LoraMergeSpec
from tests.tiny_models import save_tiny_model

ATTENTION = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"]}
WEIGHTS = {"sums": 0.7, "differences": -0.3}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("tiny"))


def part(tiny, out, recipe, seed, **settings):
    """A trained adapter of the tiny model."""
    torch.manual_seed(seed)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), LoraConfig(**ATTENTION | settings))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(out, save_embedding_layers=False)
    return Part(recipe, WEIGHTS[recipe], out)


@pytest.fixture
def parts(tiny, tmp_path):
    return [
        part(tiny, tmp_path / "a", "sums", 1, use_rslora=True),
        part(tiny, tmp_path / "b", "differences", 2),
    ]


def spec(**settings):
    return LoraMergeSpec.model_validate({"adapters": WEIGHTS, **settings})


def merged(tiny, parts, out, **settings):
    merge_adapters(spec(**settings), parts, tiny, out, "x.yaml")
    return load_file(out / "adapter_model.safetensors")


def on_the_model(tiny, parts, kind, density):
    """What peft makes of them on the whole model, by the names of the file."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), str(parts[0].folder), "one")
    model.load_adapter(str(parts[1].folder), "two")
    weights = [one.weight for one in parts]
    model.base_model.add_weighted_adapter(["one", "two"], weights, "whole", combination_type=kind, density=density)
    return {name.replace(".whole", ""): value for name, value in model.state_dict().items() if ".whole." in name}


@pytest.mark.parametrize(
    ("kind", "density"), [("cat", None), ("linear", None), ("ties", 0.5), ("magnitude_prune", 0.5)]
)
def test_it_is_what_peft_makes_on_the_model_itself(tiny, parts, tmp_path, kind, density):
    ours = merged(tiny, parts, tmp_path / "out", combination_type=kind, density=density)
    theirs = on_the_model(tiny, parts, kind, density)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_cat_makes_changes_the_weights_by_the_sum_of_what_its_parts_change(tiny, parts, tmp_path):
    """With other ranks and scales, and as whoever loads the published adapter has it."""
    parts[1] = part(tiny, tmp_path / "wide", "differences", 3, r=5)
    merged(tiny, parts, tmp_path / "out")

    def change(folder):
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), str(folder))
        return model.base_model.model.model.layers[1].self_attn.v_proj.get_delta_weight("default")

    wanted = sum(one.weight * change(one.folder) for one in parts)
    torch.testing.assert_close(change(tmp_path / "out"), wanted)
    said = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (said["r"], said["lora_alpha"], said["use_rslora"], said["task_type"]) == (8, 8, False, "CAUSAL_LM")
    assert said["base_model_name_or_path"] == str(tiny)
    assert settings_of_merged(spec(), parts, "x.yaml") == {
        "r": 8,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"],
    }


def test_what_is_drawn_depends_on_the_seed_alone(tiny, parts, tmp_path):
    drawn = {"combination_type": "dare_ties", "density": 0.5}
    torch.manual_seed(1)
    first, before = merged(tiny, parts, tmp_path / "1", **drawn), torch.rand(1)
    torch.manual_seed(2)
    again, other = (merged(tiny, parts, tmp_path / str(seed), **drawn, seed=seed) for seed in (42, 7))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), before), "what else is drawn in this process is as it was"


@pytest.mark.parametrize(
    ("settings", "kind", "told"),
    [
        (
            {"r": 4},
            "linear",
            r"linear needs adapters of one rank, and sums has 3, differences has 4\.",
        ),
        ({"target_modules": ["q_proj"]}, "cat", r"sums and differences go to other layers: sums alone to 2, such as "),
        ({"use_dora": True}, "cat", r"the adapter of differences has its magnitudes \(DoRA\), which peft's merge"),
        ({"bias": "lora_only"}, "cat", "the adapter of differences has biases, which"),
        ({"modules_to_save": ["norm"]}, "cat", "the adapter of differences has the modules that it trained whole,"),
        ({"trainable_token_indices": [1]}, "cat", "the adapter of differences has the rows of new tokens,"),
        ({"rank_pattern": {"q_proj": 2}}, "cat", "the adapter of differences has layers with a rank of their own,"),
    ],
)
def test_adapters_that_do_not_go_together_are_told_apart(tiny, parts, tmp_path, settings, kind, told):
    parts[1] = part(tiny, tmp_path / "other", "differences", 2, **settings)
    with pytest.raises(FinetuningError, match=rf"^x\.yaml: lora\.merge.*{told}"):
        settings_of_merged(spec(combination_type=kind), parts, "x.yaml")


def test_adapters_that_undo_each_other_are_no_adapter(tiny, parts, tmp_path):
    same = [Part("sums", 1.0, parts[0].folder), Part("differences", -1.0, parts[0].folder)]
    with pytest.raises(FinetuningError, match="matrices are zero all over"):
        merge_adapters(spec(combination_type="linear"), same, tiny, tmp_path / "out", "x.yaml")
