"""What an adapter goes to: names that match nothing, ranks without room and dropout on experts end before training."""

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, Gemma3Config, GPT2Config

from finetuning.errors import FinetuningError
from finetuning.lora.config import lora_config
from finetuning.lora.targets import beside_the_text, require_targets, targets
from finetuning.recipe.lora import LoraSpec
from tests.tiny_models import CONFIGS, OTHERS, SMALL


def model_of(name, **settings):
    config_class, particulars = (CONFIGS | OTHERS)[name]
    shapes = {**SMALL, **particulars, "vocab_size": 64, "pad_token_id": 0, "max_position_embeddings": 64, **settings}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config_class(**shapes))


def spec_of(**settings):
    return LoraSpec.model_validate({"r": 4, **settings})


def vision_model():
    text = {**SMALL, "vocab_size": 64, "intermediate_size": 128, "num_key_value_heads": 2, "head_dim": 32}
    vision = {**SMALL, "intermediate_size": 64, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=63)
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("target_modules", ["all-linear", ["q_proj", "v_proj"]])
def test_a_vision_tower_gets_no_adapter(target_modules):
    model = vision_model()
    assert beside_the_text(model) == ["model.vision_tower"]
    spec = spec_of(target_modules=target_modules)
    require_targets(model, spec, "x.yaml")
    adapted = get_peft_model(model, lora_config(spec, model, [], "x.yaml"))
    found = {name.rpartition(".lora_A")[0] for name, _ in adapted.named_parameters() if "lora_A" in name}
    assert len(found) == 2 * (7 if target_modules == "all-linear" else 2)
    assert all(".language_model.layers." in name for name in found)


@pytest.mark.parametrize("name", [*CONFIGS, *OTHERS])
def test_nothing_of_a_language_model_is_beside_the_text(name):
    model = model_of(name)
    assert beside_the_text(model) == []
    found = targets(model, spec_of())
    adapted = get_peft_model(model, lora_config(spec_of(lora_dropout=0), model, [], "x.yaml"), low_cpu_mem_usage=True)
    given = {n.rpartition(".lora_A")[0] for n, _ in adapted.named_parameters() if ".lora_A" in n}
    assert {f"base_model.model.{layer}" for layer in found} <= given


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"target_modules": ["q_proj", "attention"]}, r"'attention' is no linear layer of LlamaForCausalLM"),
        (
            {"target_modules": ["mlp.q_proj"]},
            r"'mlp\.q_proj' is no linear layer.*nearest is q_proj",
        ),
        ({"target_modules": ["layers.9.self_attn.q_proj"]}, r"'layers\.9\.self_attn\.q_proj' is no linear layer"),
        ({"modules_to_save": ["score"]}, r"lora\.modules_to_save: 'score' is no module.*embed_tokens, lm_head"),
        ({"modules_to_save": ["head"]}, r"'head' is no module of LlamaForCausalLM.*nearest is lm_head"),
        ({"r": 65}, r"lora\.r: 65 is more than .* has room for \(\d+ x \d+\).*Write r: 32 or less"),
        ({"r": 33, "target_modules": ["k_proj"]}, r"lora\.r: 33 .*k_proj .*\(32 x 64\).*r: 32"),
    ],
)
def test_what_the_model_has_no_place_for_is_named(settings, told):
    with pytest.raises(FinetuningError, match=rf"^x\.yaml: .*{told}"):
        require_targets(model_of("llama-3"), spec_of(**settings), "x.yaml")


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 64, "target_modules": ["q_proj"]},
        {"target_modules": ["layers.1.self_attn.q_proj"]},
        {"modules_to_save": ["lm_head", "model.embed_tokens", "norm"]},
    ],
)
def test_what_has_a_place_passes(settings):
    require_targets(model_of("llama-3"), spec_of(**settings), "x.yaml")


def test_gpt2s_own_layers_are_targets():
    config = GPT2Config(n_embd=64, n_layer=1, n_head=4, vocab_size=64, n_positions=64)
    model, spec = AutoModelForCausalLM.from_config(config), spec_of(target_modules=["c_attn", "mlp.c_proj"], r=64)
    require_targets(model, spec, "x.yaml")
    assert sorted(targets(model, spec)) == ["transformer.h.0.attn.c_attn", "transformer.h.0.mlp.c_proj"]
    with pytest.raises(FinetuningError, match=r"\(192 x 64\)"):
        require_targets(model, spec.model_copy(update={"r": 65}), "x.yaml")


@pytest.mark.parametrize("name", ["mixtral", "qwen-3-moe"])
def test_dropout_on_a_block_of_experts_says_what_to_write(name):
    model = model_of(name)
    told = r"^x\.yaml: lora\.lora_dropout: 0\.05, .*lora_dropout: 0, or .*: \[k_proj, o_proj, q_proj, v_proj\]"
    with pytest.raises(FinetuningError, match=told):
        lora_config(spec_of(), model, [], "x.yaml")
    get_peft_model(model, lora_config(spec_of(lora_dropout=0), model, [], "x.yaml"), low_cpu_mem_usage=True)


def test_attention_alone_may_have_dropout_beside_experts():
    for name in ("mixtral", "qwen-3-moe"):
        lora_config(spec_of(target_modules=["q_proj", "v_proj"]), model_of(name), [], "x.yaml")
    lora_config(spec_of(), model_of("gpt-oss"), [], "x.yaml")
