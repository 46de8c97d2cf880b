"""Models whose layers are no plain linear ones: experts in one block, GPT-2's own, a vision tower beside the text."""

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Gemma3Config

from finetuning.base_model.loading import load_model
from finetuning.base_model.quantized_base_model import quantize
from finetuning.lora.loading import load_adapter, load_base
from finetuning.memory.prediction import predict
from finetuning.merge.merged_model import Parts, merge
from finetuning.progress import Progress
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.recipe.merge import MergeSpec
from finetuning.recipe.recipe import Recipe
from finetuning.training.lora_adapter import train
from resources.gpu import Gpu
from tests.conftest import train_tiny_tokenizer
from tests.finetuning.training.adapter_jobs import data, job_of
from tests.tiny_models import SMALL, ZEPHYR, save_tiny_model

SILENT = Progress(lambda line: None, "")
# Adapted matrices of a model of two layers: those of attention and experts (with the router), or all of GPT-2's.
ADAPTED = {"mixtral": 14, "qwen-3-moe": 14, "gpt-oss": 8, "gpt-2": 8, "gemma-3 with vision": 14}


def save_vision_model(folder):
    tokenizer = train_tiny_tokenizer()
    tokenizer.chat_template = ZEPHYR
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id", "bos_token_id")}
    shapes = {"intermediate_size": 128, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": len(tokenizer) + 1}
    vision = {**SMALL, "intermediate_size": 64, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(
        text_config={**SMALL, **shapes, **ids},
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=len(tokenizer),
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.long("trainings of many models")
@pytest.mark.parametrize("name", ADAPTED)
def test_it_is_quantized_predicted_trained_loaded_and_merged(name, tmp_path):
    source = tmp_path / "source"
    save_vision_model(source) if "vision" in name else save_tiny_model(name, source, ZEPHYR)
    attention = ["eager"] if name == "gpt-oss" else ["sdpa"]
    lora = {"r": 4, "lora_dropout": 0.0}
    spec = BaseModelSpec.model_validate({"repo": str(source), "attention": attention})
    kwargs, base = Gpu().model_kwargs(spec), tmp_path / "base"
    summary = quantize(spec, source, base, Gpu().quantization_kwargs(spec), "tiny")
    assert any("experts" in note for note in summary.notes) == (name in ("mixtral", "qwen-3-moe", "gpt-oss"))
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "summary": "tiny",
            "base_model": {"repo": str(source), "attention": attention, "dtype": kwargs["dtype"]},
            "dataset": {"sources": [{"generator": "linear-equations", "rows": 10}]},
            "chat": {"max_length": 32},
            "lora": lora,
            "hub": {"repo": "tiny", "license": "mit"},
        }
    )
    prediction, kept = predict(recipe, AutoConfig.from_pretrained(base)), load_model(base, **kwargs)
    held = sum(tensor.nbytes for tensor in [*kept.parameters(), *kept.buffers()])
    assert held <= prediction.weights < 1.2 * held, "experts that stay in full, and scales of the others"
    data(tmp_path, source)
    trained = train(job_of(tmp_path, base, lora, {"max_steps": 3, "learning_rate": 1e-2}, model_kwargs=kwargs), SILENT)
    assert trained["trainable_parameters"] * 4 == prediction.adapters
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    adapted = load_adapter(load_base(tokenizer, base, kwargs, "tiny"), tmp_path / "adapter", [5, 9, 11])
    assert sum("lora_A" in layer for layer, _ in adapted.named_parameters()) == ADAPTED[name]
    parts = Parts(base, tmp_path / "adapter", tmp_path, kwargs)
    merged = merge(parts, tmp_path / "merged", "tiny", MergeSpec(dtype="float32"), SILENT)
    assert merged.kl < 0.01
