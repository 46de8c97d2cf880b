"""LoftQ: what quantization took is given back as far as the adapter's rank goes, whatever the adapter's scale."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.nn.functional import mse_loss

from finetuning.base_model.loading import load_model
from finetuning.base_model.loftq import FILE, start_from_factors, write_factors
from finetuning.base_model.quantized_base_model import load_dense, quantize
from finetuning.progress import Progress
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.training.lora_adapter import train
from resources.gpu import Gpu
from tests.finetuning.training.adapter_jobs import data, job_of
from tests.tiny_models import save_tiny_model


@pytest.mark.parametrize("settings", [{"lora_alpha": 16}, {"lora_alpha": 64}, {"lora_alpha": 8, "use_rslora": True}])
def test_the_adapted_model_starts_nearer_to_the_full_one_than_the_quantized_one_is(tmp_path, settings):
    source = save_tiny_model("smollm2-135m", tmp_path / "source")
    spec = BaseModelSpec.model_validate({"repo": str(source)})
    kwargs = Gpu().model_kwargs(spec)
    quantize(spec, source, tmp_path, kwargs, "tiny", loftq=16)
    ids = torch.arange(1, 41)[None]
    with torch.no_grad():
        full = load_dense(spec, source, "bfloat16", "tiny")(ids).logits
        quantized = load_model(tmp_path, **kwargs)
        before = mse_loss(quantized(ids).logits, full)
        adapted = get_peft_model(quantized, LoraConfig(r=16, target_modules="all-linear", **settings))
        start_from_factors(adapted, tmp_path)
        after = mse_loss(adapted(ids).logits, full)
    assert after < 0.8 * before


def test_a_matrix_that_is_smaller_than_the_rank_is_given_back_whole(tmp_path):
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(5, 3, bias=False)

    difference = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    write_factors([("layer", difference)], 8, tmp_path)
    model = get_peft_model(Net(), LoraConfig(r=8, lora_alpha=24, target_modules=["layer"]))  # pyright: ignore
    before = model.base_model.model.layer.weight.clone()
    start_from_factors(model, tmp_path)
    merged = model.merge_and_unload().layer.weight  # pyright: ignore
    torch.testing.assert_close(merged - before, difference)


def test_training_starts_from_it(tmp_path):
    source, base = save_tiny_model("smollm2-135m", tmp_path / "source"), tmp_path / "base"
    spec = BaseModelSpec.model_validate({"repo": str(source)})
    kwargs = Gpu().model_kwargs(spec)
    quantize(spec, source, base, kwargs, "tiny", loftq=4)
    data(tmp_path, source)
    lora = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "init_lora_weights": "loftq"}
    settings = {"max_steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0, "warmup_steps": 0}
    train(job_of(tmp_path, base, lora, settings, model_kwargs=kwargs), Progress(lambda line: None, ""))
    saved, factors = load_file(tmp_path / "adapter/adapter_model.safetensors"), load_file(base / FILE)
    layers = [name for name in factors if name.endswith(".B")]
    for name in layers:
        prefix = f"base_model.model.{name.removesuffix('.B')}"
        given = 2 * saved[f"{prefix}.lora_B.weight"] @ saved[f"{prefix}.lora_A.weight"]
        torch.testing.assert_close(given, factors[name] @ factors[f"{name.removesuffix('.B')}.A"], atol=1e-6, rtol=1e-5)
    assert len(layers) == 14
