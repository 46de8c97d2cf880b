"""The asset `lora_adapter` around its training: what it says of memory, and what it hands on."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from finetuning.memory.fit import MIB, Placement, predicted, told
from finetuning.memory.predicted_training import settle
from finetuning.recipe.recipe import Recipe
from finetuning.training.job import BatchSize, TrainingJob, TrainingTask
from finetuning.training.process import Lines
from resources.gpu import Gpu
from tests.tiny_models import save_tiny_model


@pytest.fixture
def inputs(tmp_path) -> tuple[Path, Path]:
    """A chat data set of one short row, and its base model."""
    base, chat = save_tiny_model("smollm2-135m", tmp_path / "base"), tmp_path / "chat"
    AutoTokenizer.from_pretrained(base).save_pretrained(chat / "tokenizer")
    for split in ("train", "eval"):
        Dataset.from_list([{"labels": [-100, 7, 7]}]).to_parquet(str(chat / f"{split}.parquet"))
    return chat, base


def recipe_of(base_model: dict[str, Any] | None = None, training: dict[str, Any] | None = None) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "summary": "tiny",
            "base_model": {"repo": "someone/model", **(base_model or {})},
            "dataset": {"sources": [{"generator": "linear-equations", "rows": 10}]},
            "training": training or {},
            "hub": {"repo": "tiny", "license": "mit"},
        }
    )


def test_training_is_told_what_was_decided_and_what_would_fit(inputs):
    recipe = recipe_of()
    fit = predicted(dg.build_asset_context().log, Gpu().adapted(recipe), *inputs, Placement("cpu", 1))
    assert fit and recipe.training.activation_checkpointing is None
    task = told(TrainingTask.of(recipe), fit)
    assert task.training.model_dump() == recipe.training.model_dump() | {"activation_checkpointing": False}
    assert task.fit == fit.advice()


def test_what_the_recipe_says_of_checkpointing_is_kept(inputs):
    recipe = recipe_of(training={"activation_checkpointing": True})
    fit = predicted(dg.build_asset_context().log, Gpu().adapted(recipe), *inputs, Placement("cpu", 1))
    assert fit and told(TrainingTask.of(recipe), fit).training.activation_checkpointing is True


@pytest.mark.parametrize("size", [None, BatchSize(1, 8)])
def test_all_processes_train_as_the_first_one_predicted(inputs, tmp_path, monkeypatch, size):
    recipe, gpu = recipe_of(), Gpu()
    job = TrainingJob(
        **dict(TrainingTask.of(recipe)) | {"batch_size": size},
        recipe=gpu.adapted(recipe),
        chat_dataset=inputs[0],
        base_model=inputs[1],
        model_kwargs=gpu.model_kwargs(recipe.base_model),
        output=tmp_path / "adapter",
    )
    read, said = TrainingJob.model_validate_json(job.model_dump_json()), []
    first, known = settle(read, tmp_path / "job.json", Lines(said.append))
    assert first.training.activation_checkpointing is False and first.fit and first.batch_size == size
    assert said[0].startswith(f"memory: {known['predicted_memory_mb']:,} MiB at its peak (")
    fewer = recipe.training.model_copy(update={"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8})
    trained = recipe.model_copy(update={"training": fewer}) if size else recipe
    fit = predicted(Lines(said.append), gpu.adapted(trained), *inputs, Placement("cpu", 1))
    assert fit and fit.prediction.total // MIB == known["predicted_memory_mb"]
    monkeypatch.setenv("RANK", "1")
    assert settle(read, tmp_path / "job.json", None) == (first, known)


@pytest.mark.parametrize("broken", ["code of its own", "no configuration", "no rows"])
def test_what_can_not_be_predicted_is_trained_all_the_same(inputs, broken, capfd):
    recipe = recipe_of({"trust_remote_code": broken == "code of its own"})
    if broken == "no configuration":
        (inputs[1] / "config.json").write_text("{}")
    if broken == "no rows":
        (inputs[0] / "train.parquet").unlink()
    assert predicted(dg.build_asset_context().log, Gpu().adapted(recipe), *inputs, Placement("cpu", 1)) is None
    assert "memory: not predicted (" in capfd.readouterr().err
    assert told(TrainingTask.of(recipe), None) == TrainingTask.of(recipe)
