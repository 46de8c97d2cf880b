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
from tests.sample_rows import rows_like
from tests.tiny_models import CONFIGS, SAME_MODEL, TO_COPY, save_native_model, save_tiny_model

# Two steps that run on a CPU in a second, and a rank that tiny layers have room for. All else is the recipe's own.
SILENT = Progress(lambda line: None, "")
FEW_STEPS = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "packing": False,
    "logging_steps": 1,
    "warmup_steps": 0,
}
RANK = 8
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
    base_model["attention"] = ["eager" if "eager" in recipe.base_model.attention else "sdpa"]
    return recipe.model_copy(
        update={
            "base_model": BaseModelSpec.model_validate(base_model),
            "dataset": DatasetSpec.model_validate(rows_of(recipe, folder)),
            "lora": recipe.lora.model_copy(update={"r": min(recipe.lora.r, RANK)}),
            "training": recipe.training.model_copy(update=FEW_STEPS),
            "chat": recipe.chat.model_copy(update={"max_length": 2048 if recipe.name in TO_COPY else 512}),
            "evaluation": recipe.evaluation.model_copy(update={"rows": 3, "max_new_tokens": 4}),
        }
    )


def rows_of(recipe: Recipe, folder: Path) -> dict:
    """The recipe's data: as a file with rows like those of its first data set, with code where code is run, or any."""
    (source, *_) = recipe.dataset.sources
    if recipe.name not in TO_COPY and "python-tests" not in recipe.evaluation.metrics:
        return ROWS
    path = folder.with_name("rows.jsonl")
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows_like(str(source.hub), 12)))
    keys = source.model_dump(include={"format", "columns", "system"}, exclude_none=True)
    return {"sources": [{"files": [str(path)], **keys}], "eval": {"fraction": 0.3}}


@pytest.fixture(scope="module", params=sorted(set(find()) - set(SAME_MODEL)))
def trained(request, tmp_path_factory):
    """Folders of one recipe's tiny run, and the summaries of its steps."""
    root, recipe = tmp_path_factory.mktemp(request.param), load(request.param)
    native = recipe.base_model.chat_template == "native" or recipe.name in TO_COPY
    model = (save_native_model if native else save_tiny_model)(recipe.name, root / "model")
    recipe = tiny_version(recipe, model)
    for name in ("raw", "chat", "base", "adapter"):
        (root / name).mkdir()
    revisions = {"train-00": "1"}
    write_raw(recipe.dataset, revisions, root / "raw", api=None, file=recipe.file)  # type: ignore[arg-type]
    write_chat(
        root / "raw",
        root / "chat",
        recipe,
        load_tokenizer(recipe.base_model, model, recipe.name, recipe.chat.template_kwargs),
    )
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
    assert set(find()) <= set(CONFIGS | TO_COPY | SAME_MODEL)


def test_the_base_model_is_quantized_with_a_measured_error(trained):
    quantized, in_full = trained["quantized"], trained["recipe"].base_model.quantization is None
    assert quantized.quantization_error == 0 if in_full else 0.01 < quantized.quantization_error < 0.2
    assert trained["quantized"].size_mb <= trained["quantized"].full_size_mb


def test_two_steps_train_every_quantized_layer_with_the_recipes_settings(trained):
    weights = load_file(trained["root"] / "adapter" / "adapter_model.safetensors")
    assert trained["summary"]["steps"] == 2
    targets = trained["recipe"].lora.target_modules
    layers = len(trained["quantized"].layers) if targets == "all-linear" else 2 * len(targets)
    assert len(weights) == 2 * layers
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
