"""Every shipped recipe on a tiny model of its own architecture: quantize, train two steps, save, load, generate."""

import json
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoTokenizer

from finetuning.base_model.quantized_base_model import quantize
from finetuning.chat.chat_dataset import write_chat
from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.chat.tokenizer import load_tokenizer
from finetuning.dataset.raw_dataset import write_raw
from finetuning.progress import Progress
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.recipe.dataset import DatasetSpec
from finetuning.recipe.loading import find, load
from finetuning.recipe.recipe import Recipe
from finetuning.training.job import TrainingJob
from finetuning.training.lora_adapter import train
from resources.gpu import Gpu
from tests.exams import examined
from tests.tiny_models import CONFIGS, ZEPHYR, save_tiny_model

# Two steps that run on a CPU in a second; everything else is the recipe's own.
SILENT = Progress(lambda line: None, "")
FEW_STEPS = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "packing": False,
    "logging_steps": 1,
}
ROWS = {
    "sources": [
        {
            "generator": "linear-equations",
            "format": "question-answer",
            "columns": {"question": "Problem", "answer": "Solution"},
            "rows": 12,
        }
    ],
    "eval": {"fraction": 0.3},
}


def tiny_version(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with a local base model, a few rows and a few steps."""
    base_model = recipe.base_model.model_dump() | {"repo": str(folder), "package": None, "gguf": None}
    base_model["attention"] = ["sdpa"]
    return recipe.model_copy(
        update={
            "base_model": BaseModelSpec.model_validate(base_model),
            "dataset": DatasetSpec.model_validate(ROWS),
            "training": recipe.training.model_copy(update=FEW_STEPS),
            "chat": recipe.chat.model_copy(update={"max_length": 512}),
            "evaluation": recipe.evaluation.model_copy(update={"rows": 3, "max_new_tokens": 4}),
        }
    )


@pytest.fixture(scope="module", params=sorted(find()))
def trained(request, tmp_path_factory):
    """Folders of one recipe's tiny run, and the summaries of its steps."""
    root, recipe = tmp_path_factory.mktemp(request.param), load(request.param)
    native = ZEPHYR if recipe.base_model.chat_template == "native" else None
    model = save_tiny_model(recipe.name, root / "model", native)
    recipe = tiny_version(recipe, model)
    for name in ("raw", "chat", "base", "adapter"):
        (root / name).mkdir()
    revisions = {"train-00": "1"}
    write_raw(recipe.dataset, revisions, root / "raw", api=None, file=recipe.file)  # type: ignore[arg-type]
    write_chat(root / "raw", root / "chat", recipe, load_tokenizer(recipe.base_model, model, recipe.name))
    kwargs = Gpu().model_kwargs(recipe.base_model)
    quantized = quantize(recipe.base_model, model, root / "base", kwargs, recipe.name)
    job = TrainingJob(
        where=recipe.name,
        lora=recipe.lora,
        training=recipe.training,
        max_length=recipe.chat.max_length,
        chat_dataset=root / "chat",
        base_model=root / "base",
        model_kwargs=kwargs,
        output=root / "adapter",
    )
    summary = train(job, SILENT)
    return {"recipe": recipe, "root": root, "quantized": quantized, "summary": summary}


def test_there_is_a_tiny_model_for_every_recipe():
    assert set(find()) <= set(CONFIGS)


def test_the_base_model_is_quantized_with_a_measured_error(trained):
    assert 0.01 < trained["quantized"].quantization_error < 0.2
    assert trained["quantized"].size_mb <= trained["quantized"].full_size_mb


def test_two_steps_train_every_quantized_layer_with_the_recipes_settings(trained):
    weights = load_file(trained["root"] / "adapter" / "adapter_model.safetensors")
    assert trained["summary"]["steps"] == 2
    assert len(weights) == 2 * len(trained["quantized"].layers)
    assert all(torch.any(weight) for name, weight in weights.items() if "lora_B" in name)
    config = json.loads((trained["root"] / "adapter" / "adapter_config.json").read_text())
    lora = trained["recipe"].lora
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (lora.r, lora.lora_alpha, lora.lora_dropout)


def test_the_adapter_loads_and_generates(trained):
    adapter = trained["root"] / "adapter"
    model = AutoPeftModelForCausalLM.from_pretrained(adapter)
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    question = Conversation([{"role": "user", "content": "Solve for y: 1 = 1y ."}])
    ids = torch.tensor([Renderer(tokenizer).prompt(question)])
    output = model.generate(input_ids=ids, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert output.shape == (1, ids.shape[1] + 3)


def test_base_and_tuned_are_evaluated_on_the_same_rows(trained):
    recipe, root = trained["recipe"], trained["root"]
    kwargs = Gpu().model_kwargs(recipe.base_model)
    found = examined(recipe.evaluation, root, kwargs)
    assert found.rows == 3
    assert set(recipe.evaluation.metrics) <= set(found.metrics)
