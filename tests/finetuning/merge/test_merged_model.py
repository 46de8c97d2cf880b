"""Merging: the merged model is base and adapter as training saw them, whatever the adapter is made of."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetuning.base_model.loading import dequantize, is_quantized, load_model
from finetuning.base_model.quantized_base_model import quantize
from finetuning.lora.loading import load_base
from finetuning.merge.agreement import MergedSummary, faults
from finetuning.merge.merged_model import Parts, compare, logits_of, merge, merged_model, probes_of
from finetuning.progress import Progress
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.recipe.merge import MergeSpec
from finetuning.training.lora_adapter import train
from resources.gpu import Gpu
from tests.finetuning.training.adapter_jobs import ROWS, data, job_of
from tests.tiny_models import ZEPHYR, save_tiny_model

QUIET = Progress(lambda line: None, "")
KINDS = {
    "LoRA": {},
    "rsLoRA": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "a head that is trained whole": {"modules_to_save": ["lm_head"]},
    "all biases": {"bias": "all"},
}


def trained(folder, kind, quantization, family="smollm2-135m", dtype="float32"):
    """The folders of a base model and of an adapter that learned something, and how the first is loaded."""
    source, base = save_tiny_model(family, folder / "source", ZEPHYR), folder / "base"
    spec = BaseModelSpec.model_validate({"repo": str(source), "quantization": quantization, "dtype": dtype})
    kwargs = Gpu().model_kwargs(spec)
    quantize(spec, source, base, kwargs, "tiny")
    data(folder, source)
    settings = {"max_steps": 3, "learning_rate": 3e-2, "per_device_train_batch_size": 3, "bf16": False}
    lora = {"r": 4, "lora_dropout": 0.0, **KINDS[kind]}
    job = job_of(folder, base, lora, settings, model_kwargs=kwargs)
    train(job, QUIET)
    return base, job.output, kwargs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "quantization",
    [
        pytest.param(None, id="in full precision"),
        pytest.param({"bits": 4}, id="in 4 bits", marks=pytest.mark.long("a merge of each kind once more")),
    ],
)
def test_a_merged_model_in_float32_has_the_logits_of_base_and_adapter(tmp_path, kind, quantization):
    base, adapter, kwargs = trained(tmp_path, kind, quantization, "phi-2" if kind == "all biases" else "smollm2-135m")
    summary = merge(
        Parts(base, adapter, tmp_path, kwargs), tmp_path / "merged", "tiny", MergeSpec(dtype="float32"), QUIET
    )
    assert summary.agreement == 1.0 and summary.kl < 1e-6
    assert summary.positions == sum(label != -100 for row in ROWS for label in row["labels"][1:])
    probes = probes_of(tmp_path / "eval.parquet")
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    beside = logits_of(PeftModel.from_pretrained(load_base(tokenizer, base, kwargs, "tiny"), str(adapter)), probes)
    merged = logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), probes)
    before = logits_of(load_model(base, **kwargs), probes)
    torch.testing.assert_close(merged, beside, atol=2e-4, rtol=1e-4)
    assert compare(before, merged).kl > 1e-3, "the adapter does nothing, so equal logits prove nothing"


def test_what_is_merged_are_the_weights_that_training_saw_and_not_those_before_quantization(tmp_path):
    base, adapter, kwargs = trained(tmp_path, "LoRA", {"bits": 4})
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    merged = dict(merged_model(base, adapter, tokenizer, torch.float32, kwargs).named_parameters())
    beside = PeftModel.from_pretrained(load_model(base, **kwargs), str(adapter))
    layers = [(name, m) for name, m in beside.get_base_model().named_modules() if hasattr(m, "lora_A")]
    for name, layer in layers:
        assert is_quantized(layer.base_layer)
        added = merged[f"{name}.weight"] - dequantize(layer.base_layer)
        torch.testing.assert_close(added, layer.get_delta_weight("default"), atol=1e-6, rtol=1e-4)
    assert len(layers) == 14


def test_the_merged_files_are_plain_weights_that_stop_where_the_template_does(tmp_path):
    base, adapter, kwargs = trained(tmp_path, "LoRA", {"bits": 4})
    merge(Parts(base, adapter, tmp_path, kwargs), tmp_path / "merged", "tiny", MergeSpec(), QUIET)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not hasattr(model.config, "quantization_config")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.generation_config.eos_token_id == AutoTokenizer.from_pretrained(tmp_path / "merged").eos_token_id


def test_the_gguf_file_of_a_merged_model_is_compared_with_the_adapter_too(tmp_path):
    base, adapter, kwargs = trained(tmp_path, "LoRA", {"bits": 4})
    spec = MergeSpec.model_validate({"dtype": "float32", "gguf": "q8_0"})
    summary = merge(Parts(base, adapter, tmp_path, kwargs), tmp_path / "merged", "tiny", spec, QUIET)
    measured, file = summary.gguf, tmp_path / "merged" / "tiny.q8_0.gguf"
    assert measured and measured.file == file.name and measured.positions == summary.positions
    assert measured.size_mb == round(file.stat().st_size / 2**20, 1)
    assert summary.kl < measured.kl < 1e-3
    assert faults(spec, summary) == []
    worse = summary.model_copy(update={"gguf": measured.model_copy(update={"agreement": 0.5, "kl": 0.25})})
    assert [fault.partition(" and ")[0] for fault in faults(spec, worse)] == ["tiny.q8_0.gguf", "tiny.q8_0.gguf"]


def merged_with(measured):
    return MergedSummary(parameters=1, size_mb=1.0, dtype="bfloat16", **dict(measured))


def test_models_that_differ_are_told_apart():
    first = [torch.tensor([[4.0, 0.0], [0.0, 4.0]])]
    assert dict(compare(first, first)) == {"agreement": 1.0, "kl": 0.0, "positions": 2}
    found = compare(first, [torch.tensor([[4.0, 0.0], [4.0, 0.0]])])
    log_p, log_q = torch.tensor([0.0, 4.0]).log_softmax(0), torch.tensor([4.0, 0.0]).log_softmax(0)
    assert found.agreement == 0.5
    assert found.kl == pytest.approx(((log_p - log_q) * log_p.exp()).sum().item() / 2)
    missed = faults(MergeSpec(), merged_with(found))
    assert len(missed) == 2 and "agree on 50.00% of 2 tokens" in missed[0] and "nats a token apart" in missed[1]
    assert faults(MergeSpec(), merged_with(compare(first, first))) == []
