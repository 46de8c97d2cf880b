"""A base model that would be trained in vain is refused before, with what to do about it."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Mistral3Config

from finetuning.base_model.loading import load_model
from finetuning.base_model.quantized_base_model import quantize
from finetuning.base_model.source import fetch
from finetuning.errors import FinetuningError
from finetuning.recipe.base_model import BaseModelSpec
from resources.gpu import Gpu
from tests.tiny_models import save_tiny_model

WEIGHTS = "model.safetensors"


def quantized(folder, out, loftq=None, **settings):
    """What `quantize` says of the folder, fetched as the pipeline does."""
    spec = BaseModelSpec.model_validate({"repo": str(folder), **settings})
    fetch(spec, "", None, "x.yaml")  # pyright: ignore[reportArgumentType] # no hub is asked for a folder
    out.mkdir(exist_ok=True)
    return quantize(spec, folder, out, Gpu().quantization_kwargs(spec), "x.yaml", loftq)


def edited(folder, edit):
    """The folder, whose weights `edit` has changed."""
    weights = load_file(folder / WEIGHTS)
    edit(weights)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    return folder


def configured(folder, name="config.json", **changes):
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | changes))
    return folder


@pytest.fixture
def untied(tmp_path):
    return save_tiny_model("llama-3", tmp_path / "model")


@pytest.mark.parametrize("quantization", [None, {"bits": 4}, {"bits": 8}])
@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_a_weight_that_is_missing_is_never_made_up(untied, tmp_path, name, quantization):
    edited(untied, lambda weights: weights.pop(name))
    with pytest.raises(FinetuningError, match=rf"^x\.yaml: base_model: .*lack 1 .*{name}.*random") as error:
        quantized(untied, tmp_path / "out", quantization=quantization)
    assert ("tie_word_embeddings" in str(error.value)) == (name == "lm_head.weight")


def test_a_head_that_is_the_embeddings_is_not_missing(tmp_path):
    folder = save_tiny_model("smollm2-135m", tmp_path / "model")
    assert "lm_head.weight" not in load_file(folder / WEIGHTS)
    assert quantized(folder, tmp_path / "out").layers


def test_a_classifier_says_that_it_is_one(untied, tmp_path):
    def edit(weights):
        del weights["lm_head.weight"]
        weights["score.weight"] = torch.ones(2, 64)

    with pytest.raises(FinetuningError, match=r"lack 1 .*lm_head\.weight.*they have score\.weight"):
        quantized(edited(untied, edit), tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "shape"), [("model.layers.2.mlp.up_proj.weight", (128, 64)), ("model.layers.0.mlp.up_proj.bias", (128,))]
)
def test_a_weight_of_the_model_that_its_configuration_would_leave_out_is_an_error(untied, tmp_path, name, shape):
    edited(untied, lambda weights: weights.update({name: torch.ones(shape)}))
    with pytest.raises(FinetuningError, match=rf"{name}.*config\.json"):
        quantized(untied, tmp_path / "out")


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "vision_tower.conv.weight"])
def test_what_is_beside_the_language_model_is_left_out_and_said(untied, tmp_path, name):
    edited(untied, lambda weights: weights.update({name: torch.ones(16)}))
    summary = quantized(untied, tmp_path / "out")
    assert any(name in note for note in summary.notes) == name.startswith("vision")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight", "model.norm.weight"]
)
def test_weights_that_are_no_numbers_are_named(untied, tmp_path, name, value):
    edited(untied, lambda weights: weights[name].view(-1)[7:9].fill_(value))
    with pytest.raises(FinetuningError, match=rf"2 of [\d,]+ numbers of {name} are infinite or not a number"):
        quantized(untied, tmp_path / "out")


def test_weights_that_are_too_large_for_the_recipes_format_say_so(untied, tmp_path):
    edited(untied, lambda weights: weights["model.norm.weight"].fill_(1e6))
    with pytest.raises(FinetuningError, match=r"base_model\.dtype.*float16.*bfloat16"):
        quantized(untied, tmp_path / "out", dtype="float16")


def adapter(folder, out):
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(r=2, target_modules="all-linear"))
    model.save_pretrained(out)
    return out


def test_a_folder_that_is_an_adapter_names_its_base(untied, tmp_path):
    with pytest.raises(FinetuningError, match=rf"is an adapter .*base_model: {{repo: {untied}}}.*lora: {{from: "):
        quantized(adapter(untied, tmp_path / "adapter"), tmp_path / "out")


@pytest.mark.parametrize("left", ["adapter_config.json", "adapter_model.safetensors", None])
def test_an_adapter_beside_the_weights_is_never_loaded_with_them(untied, tmp_path, left):
    adapter(untied, untied)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if left and name != left:
            (untied / name).unlink()
    with pytest.raises(FinetuningError, match=r"^x\.yaml: base_model: .* an adapter beside its weights"):
        quantized(untied, tmp_path / "out")


@pytest.mark.parametrize("bits", [4, 8])
def test_a_base_that_bitsandbytes_has_quantized_is_taken_as_it_is(untied, tmp_path, bits):
    settings = {"quantization": {"bits": bits}, "dtype": "float32"}
    quantized(untied, tmp_path / "first", **settings)
    summary = quantized(tmp_path / "first", tmp_path / "second", **settings)
    assert summary.as_it_came and summary.layers == [] and summary.size_mb < summary.full_size_mb
    assert summary.parameters == AutoModelForCausalLM.from_pretrained(untied).num_parameters()
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("first", "second"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (None, r"base_model\.quantization: null.*\{bits: 4, type: nf4\}"),
        ({"bits": 8}, r"base_model\.quantization: \{bits: 8\}.*\{bits: 4, type: nf4\}"),
        ({"bits": 4, "type": "fp4"}, r"base_model\.quantization: \{bits: 4, type: fp4\}.*\{bits: 4, type: nf4\}"),
    ],
)
def test_a_recipe_that_asks_for_another_quantization_is_told_which_one_there_is(untied, tmp_path, asked, told):
    quantized(untied, tmp_path / "first")
    with pytest.raises(FinetuningError, match=told):
        quantized(tmp_path / "first", tmp_path / "second", quantization=asked)


def test_what_quantization_took_cannot_be_given_back_where_nobody_has_it(untied, tmp_path):
    quantized(untied, tmp_path / "first")
    with pytest.raises(FinetuningError, match=r"lora\.init_lora_weights: loftq.*quantized already"):
        quantized(tmp_path / "first", tmp_path / "second", loftq=2)


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors", "hqq", "torchao", "some-new-one"])
def test_other_quantizations_are_named(untied, tmp_path, method):
    configured(untied, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(FinetuningError, match=rf"quantized already, by {method}.*in full precision"):
        quantized(untied, tmp_path / "out")


@pytest.mark.parametrize("attribute", ["pad_token", "eos_token", "bos_token"])
def test_a_special_token_without_a_row_is_named(untied, tmp_path, attribute):
    tokenizer = AutoTokenizer.from_pretrained(untied)
    rows = len(tokenizer)
    tokenizer.add_special_tokens({attribute: "[NEW]"})
    tokenizer.save_pretrained(untied)
    with pytest.raises(FinetuningError, match=rf"{attribute} '\[NEW\]' has the number {rows}.* {rows} rows"):
        quantized(untied, tmp_path / "out")


def test_a_token_for_what_is_unknown_needs_no_row_where_the_tokenizer_knows_all(untied, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(untied)
    tokenizer.add_special_tokens({"unk_token": "[NEW]"})
    tokenizer.save_pretrained(untied)
    quantized(untied, tmp_path / "out")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("key", ["pad_token_id", "eos_token_id"])
def test_a_token_of_the_configuration_without_a_row_is_named(untied, tmp_path, name, key):
    configured(untied, name, **{key: 40_000})
    with pytest.raises(FinetuningError, match=rf"{name}: {key} is 40000, .* rows"):
        quantized(untied, tmp_path / "out")


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": False, "temperature": 0.6, "top_p": 0.9},
        {"temperature": 0.7},
        {"num_beams": 1, "early_stopping": True, "length_penalty": 2.0},
    ],
)
@pytest.mark.parametrize("quantization", [None, {"bits": 4}])
def test_settings_of_generation_that_cannot_be_saved_are_mended_and_said(untied, tmp_path, settings, quantization):
    configured(untied, "generation_config.json", eos_token_id=[1, 2], **settings)
    summary = quantized(untied, tmp_path / "out", quantization=quantization)
    assert any("generation_config.json" in note for note in summary.notes)
    assert json.loads((tmp_path / "out/generation_config.json").read_text())["eos_token_id"] == [1, 2]


def test_settings_of_generation_that_are_right_stay(untied, tmp_path):
    configured(untied, "generation_config.json", do_sample=True, temperature=0.6)
    summary = quantized(untied, tmp_path / "out")
    assert summary.notes == ()
    assert json.loads((tmp_path / "out/generation_config.json").read_text())["temperature"] == 0.6


def gpt_oss_in_mxfp4(folder):
    """A tiny gpt-oss whose experts are stored as OpenAI stores them, and the numbers that those stand for."""
    save_tiny_model("gpt-oss", folder)
    values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    numbers = {}

    def edit(weights):
        for name in [name for name in weights if name.endswith(("gate_up_proj", "down_proj"))]:
            experts, inputs, outputs = weights.pop(name).shape
            blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
            scales = torch.randint(118, 124, (experts, outputs, inputs // 32), dtype=torch.uint8)
            weights |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
            pairs = torch.stack([values[(blocks & 15).long()], values[(blocks >> 4).long()]], -1).flatten(-2)
            full = pairs * (2.0 ** (scales.float() - 127))[..., None]
            numbers[name] = full.flatten(-2).transpose(1, 2)

    edited(folder, edit)
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    configured(folder, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": kept})
    return numbers


@pytest.mark.parametrize("quantization", [None, {"bits": 4}])
def test_gpt_oss_experts_are_written_out_of_mxfp4(tmp_path, quantization):
    numbers = gpt_oss_in_mxfp4(tmp_path / "model")
    summary = quantized(tmp_path / "model", tmp_path / "out", quantization=quantization, attention=["eager"])
    kept = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    experts = {name: weight for name, weight in kept.named_parameters() if name in numbers}
    assert len(experts) == 4 and all(torch.equal(experts[name].float(), numbers[name]) for name in numbers)
    assert any("mxfp4" in note for note in summary.notes)
    assert len(summary.layers) == (8 if quantization else 0)


def test_a_model_that_no_language_model_can_be_made_of_says_which_kind_it_is(untied, tmp_path):
    Mistral3Config().save_pretrained(untied)
    with pytest.raises(FinetuningError, match=r"Mistral3Config in config\.json is no configuration of a causal"):
        quantized(untied, tmp_path / "out")


def test_a_number_that_stands_alone_beside_the_model_is_left_out(untied, tmp_path):
    edited(untied, lambda weights: weights.update({"logit_scale": torch.ones(1)}))
    assert "logit_scale" in quantized(untied, tmp_path / "out").notes[0]


def test_weights_in_fp8_are_written_out(tmp_path):
    folder, numbers = save_tiny_model("llama-3", tmp_path / "model", hidden_size=128, intermediate_size=256), {}

    def edit(weights):
        for name in [name for name in weights if "_proj" in name]:
            scale = weights[name].abs().max() / 448
            weights[name] = (weights[name] / scale).to(torch.float8_e4m3fn)
            blocks = [-(-size // 128) for size in weights[name].shape]
            weights[f"{name}_scale_inv"] = torch.full(blocks, scale.item())
            numbers[name] = weights[name].float() * scale

    edited(folder, edit)
    configured(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
    quantized(folder, tmp_path / "out", quantization=None, dtype="float32")
    found = load_file(tmp_path / "out" / WEIGHTS)
    assert len(numbers) == 14 and not any("scale" in name for name in found)
    for name, weight in numbers.items():
        torch.testing.assert_close(found[name], weight)


def test_experts_that_stay_in_full_are_said(tmp_path):
    for name, count in (("mixtral", 2 * 4 * 3 * 64 * 128), ("qwen-3-moe", 2 * 4 * 3 * 64 * 128), ("gemma-3", 0)):
        summary = quantized(save_tiny_model(name, tmp_path / name), tmp_path / f"{name}-out")
        told = [note for note in summary.notes if "experts" in note]
        assert bool(told) == bool(count) and (not count or f"{count:,}" in told[0])


def test_gpt2_is_quantized_in_its_own_direction_and_measured_right(tmp_path):
    folder = save_tiny_model("gpt-2", tmp_path / "model")
    summary = quantized(folder, tmp_path / "out")
    assert {layer.layer.rpartition(".")[2] for layer in summary.layers} == {"c_attn", "c_proj", "c_fc"}
    assert 0.05 < summary.quantization_error < 0.15
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        dense = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
        kept = load_model(tmp_path / "out", dtype=torch.float32)(ids).logits
    assert torch.corrcoef(torch.stack([dense.flatten(), kept.flatten()]))[0, 1] > 0.9
