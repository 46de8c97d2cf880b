"""Adapters before they count: what is not whole, or does nothing, is refused, and whatever was trained passes."""

import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from finetuning.errors import FinetuningError
from finetuning.lora.checks import WEIGHTS
from finetuning.lora.loading import load_adapter
from tests.tiny_models import save_tiny_model

PROMPT = [5, 9, 11, 30]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("tiny"))


def base(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


def saved(folder, out, learned=True, **settings):
    """An adapter for the tiny model in `out`, trained (its matrices B are not zero) or not."""
    settings = {"r": 2, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    model = get_peft_model(base(folder), LoraConfig(**settings))
    if learned:
        for name, weight in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name or "bias" in name:
                torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(out, save_embedding_layers=False)
    return out


KINDS = {
    "plain": {},
    "DoRA": {"use_dora": True},
    "rank-stabilized": {"use_rslora": True},
    "a head trained whole": {"modules_to_save": ["lm_head"]},
    "some layers": {"target_modules": ["q_proj", "v_proj"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_that_was_trained_passes(folder, tmp_path, kind):
    model = load_adapter(base(folder), saved(folder, tmp_path, **KINDS[kind]), PROMPT)
    assert not model.training


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_an_adapter_that_started_as_a_part_of_the_base_model_passes(folder, tmp_path, start):
    settings = {"r": 2, "target_modules": "all-linear", "task_type": "CAUSAL_LM", "init_lora_weights": start}
    model = get_peft_model(base(folder), LoraConfig(**settings))
    model.save_pretrained(tmp_path / "start", save_embedding_layers=False)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data += 0.1 * torch.randn_like(weight)
    model.save_pretrained(
        tmp_path / "adapter",
        save_embedding_layers=False,
        path_initial_model_for_weight_conversion=str(tmp_path / "start"),
    )
    load_adapter(base(folder), tmp_path / "adapter", PROMPT)


def test_an_adapter_that_learned_nothing_is_refused(folder, tmp_path):
    saved(folder, tmp_path, learned=False)
    with pytest.raises(FinetuningError, match=r"14 B matrices of the adapter are zero.*q_proj.*nothing was learned"):
        load_adapter(base(folder), tmp_path, PROMPT)


def test_one_layer_that_learned_nothing_is_named(folder, tmp_path):
    weights = load_file(saved(folder, tmp_path) / WEIGHTS)
    name = next(name for name in weights if "layers.1.mlp.up_proj.lora_B" in name)
    save_file(weights | {name: torch.zeros_like(weights[name])}, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(FinetuningError, match=r"1 B matrices.*layers\.1\.mlp\.up_proj"):
        load_adapter(base(folder), tmp_path, PROMPT)


def test_a_module_that_is_trained_whole_and_is_what_it_was_is_refused(folder, tmp_path):
    untied = save_tiny_model("llama-3", tmp_path / "base")
    saved(untied, tmp_path / "adapter", modules_to_save=["lm_head"])
    weights = load_file(tmp_path / "adapter" / WEIGHTS)
    head = base(untied).lm_head.weight.detach().clone()
    save_file(weights | {"base_model.model.lm_head.weight": head}, tmp_path / "adapter" / WEIGHTS, {"format": "pt"})
    with pytest.raises(FinetuningError, match=r"lm_head, which lora\.modules_to_save trains whole, is what it was"):
        load_adapter(base(untied), tmp_path / "adapter", PROMPT)


def edited(folder, out, edit):
    weights = load_file(saved(folder, out) / WEIGHTS)
    edit(weights)
    save_file(weights, out / WEIGHTS, {"format": "pt"})


def test_a_missing_weight_is_an_error_where_peft_would_start_it_afresh(folder, tmp_path):
    name = "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight"
    edited(folder, tmp_path, lambda weights: weights.pop(name))
    with pytest.raises(FinetuningError, match=rf"1 missing \(the first is {re.escape(name)}\), 0 unknown"):
        load_adapter(base(folder), tmp_path, PROMPT)


def test_a_weight_that_peft_would_pass_over_is_an_error(folder, tmp_path):
    edited(folder, tmp_path, lambda weights: weights.update({"base_model.model.other.lora_A.weight": torch.ones(2, 2)}))
    with pytest.raises(FinetuningError, match=r"0 missing, 1 unknown \(the first is base_model\.model\.other"):
        load_adapter(base(folder), tmp_path, PROMPT)


def test_an_adapter_of_another_shape_is_an_error(folder, tmp_path):
    name = "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight"
    edited(folder, tmp_path, lambda weights: weights.update({name: torch.ones(3, 64)}))
    with pytest.raises(FinetuningError, match=r"does not fit the base model: .*size mismatch"):
        load_adapter(base(folder), tmp_path, PROMPT)


def test_an_adapter_without_effect_is_refused_however_large_its_matrices(folder, tmp_path):
    edited(folder, tmp_path, lambda weights: [w.zero_() for name, w in weights.items() if "lora_A" in name])
    with pytest.raises(FinetuningError, match=r"logits of the tuned model equal those of the base model in all of \d+"):
        load_adapter(base(folder), tmp_path, PROMPT)


def test_logits_that_are_no_numbers_are_refused(folder, tmp_path):
    edited(folder, tmp_path, lambda weights: [w.fill_(1e30) for name, w in weights.items() if "lora_B" in name])
    with pytest.raises(FinetuningError, match=r"logits of the tuned model are no finite numbers.*learning_rate"):
        load_adapter(base(folder), tmp_path, PROMPT)
