"""What a training will need: the parts of a prediction, what would fit, and the memory of real trainings beside it."""

import json
import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoTokenizer, Trainer, TrainingArguments

from finetuning.memory.prediction import (
    LIBRARIES,
    MIB,
    Prediction,
    optimizer_state,
    predict,
)
from finetuning.memory.savings import with_settings
from finetuning.memory.shapes import adapted_model, leave_meta
from finetuning.recipe.loading import ROOT, find, load
from finetuning.recipe.recipe import Recipe
from finetuning.training.layers import layers_of
from tests.tiny_models import save_tiny_model

NF4 = {"bits": 4}


def recipe_of(max_length: int = 32, **sections: dict[str, Any]) -> Recipe:
    training = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "activation_checkpointing": False}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "summary": "tiny",
            "base_model": {"repo": "someone/model", "quantization": None, **sections.get("base_model", {})},
            "dataset": {"sources": [{"generator": "linear-equations", "rows": 10}]},
            "chat": {"max_length": max_length},
            "lora": {"r": 4, **sections.get("lora", {})},
            "training": {**training, **sections.get("training", {})},
            "hub": {"repo": "tiny", "license": "mit"},
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def config(folder):
    return AutoConfig.from_pretrained(folder)


def trained(folder, inputs, **training: Any) -> int:
    """Bytes that a process held at most that trained on those inputs."""
    spec, output = recipe_of(training={"max_steps": 2, **training}), Path(mkdtemp(dir=inputs))
    job = {
        "where": "tiny.yaml",
        "lora": spec.lora.model_dump(mode="json"),
        "training": spec.training.model_dump(mode="json"),
        "max_length": 256,
        "chat_dataset": str(inputs),
        "base_model": str(folder),
        "model_kwargs": {"dtype": "bfloat16", "device_map": {"": "cpu"}, "trust_remote_code": False},
        "output": str(output),
    }
    (inputs / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "finetuning.training.process", str(inputs / "job.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return json.loads((output / "summary.json").read_text())["peak_memory_mb"] * MIB


@pytest.mark.long("a process for each training that is measured")
@pytest.mark.skipif(torch.cuda.is_available(), reason="a process with a GPU reports the GPU's memory")
def test_real_trainings_need_what_is_predicted_and_grow_with_their_rows_as_predicted(tmp_path, folder, config):
    ids = list(range(5, 261))
    row = {"input_ids": ids, "labels": [-100] * 128 + ids[128:]}
    for split, count in (("train", 128), ("eval", 4)):
        Dataset.from_list([row] * count).to_parquet(str(tmp_path / f"{split}.parquet"))
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "tokenizer")
    measured, predicted = {}, {}
    for rows in (1, 64):
        changes = {"per_device_train_batch_size": rows}
        # The system may take back pages that a process has not used for a while: the larger of two is what it needs.
        measured[rows] = max(trained(folder, tmp_path, **changes) for _ in range(2))
        predicted[rows] = predict(recipe_of(256, training=changes), config, supervised=128).total
    assert predicted[1] == pytest.approx(measured[1], rel=0.15), f"LIBRARIES: {LIBRARIES // MIB} MiB is no longer right"
    assert predicted[64] == pytest.approx(measured[64], rel=0.15)
    growth = [sizes[64] - sizes[1] for sizes in (predicted, measured)]
    assert growth[0] == pytest.approx(growth[1], rel=0.25)


def test_a_pair_of_answers_needs_what_two_rows_need(config):
    rows = with_settings(
        recipe_of(), {"training.per_device_train_batch_size": 8, "training.per_device_eval_batch_size": 8}
    )
    assert predict(with_settings(recipe_of(), {"training.method": "dpo"}), config) == predict(rows, config)


def test_judged_answers_need_a_pass_that_reads_each_with_another_prompt(config):
    judged, read = {"training.method": "kto"}, {"training.per_device_eval_batch_size": 1}
    rows = recipe_of().training.per_device_train_batch_size
    wide = {"training.per_device_eval_batch_size": rows}
    full = recipe_of().chat.max_length
    both = (with_settings(recipe_of(), judged | read), with_settings(recipe_of(), wide))
    found, expected = (predict(recipe, config, longest=full) for recipe in both)
    assert found == expected
    # Where rows are shorter than they may be, a prompt and an answer of two of them are longer than either.
    short, plain = (predict(recipe, config, longest=full // 2, supervised=full // 4) for recipe in both)
    assert short.total > plain.total and short.activations == plain.activations


def test_a_step_of_tokens_needs_what_its_rows_need(config):
    tokens = {"training.tokens_per_step": 8 * 32, "training.gradient_accumulation_steps": 2}
    assert predict(with_settings(recipe_of(), tokens), config) == predict(recipe_of(), config)


OPTIMIZERS = ["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_32bit", "adafactor", "lion_8bit", "sgd"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_keeps_as_many_bytes_as_predicted(tmp_path, name):
    weights = [torch.nn.Parameter(torch.ones(shape)) for shape in ((16, 576), (1536, 16), (64,))]
    arguments = TrainingArguments(str(tmp_path), optim=name, use_cpu=True)
    optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
    optimizer = optimizer_class(weights, **settings)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = [x for state in optimizer.state.values() for key, x in state.items() if "qmap" not in key]
    size = sum(x.numel() * x.element_size() for x in kept if isinstance(x, torch.Tensor) and x.numel() > 1)
    assert optimizer_state(name, [weight.shape for weight in weights], "cpu") == (size, 0)


def test_paged_states_are_no_part_of_what_a_gpu_needs(config):
    large = torch.Size((4096, 256))
    assert optimizer_state("paged_adamw_32bit", [large, torch.Size((16, 64))], "cuda") == (
        8 * 16 * 64,
        8 * large.numel(),
    )
    assert optimizer_state("adamw_torch", [large], "cuda") == (8 * large.numel(), 0)
    wide = recipe_of(lora={"r": 2000}, training={"optim": "paged_adamw_8bit"})
    prediction = predict(wide, config, device="cuda")
    assert prediction.paged > 0 and prediction.optimizer < prediction.paged < prediction.adapters
    assert prediction.total == sum(getattr(prediction, f.name) for f in fields(Prediction)) - prediction.paged


def test_eager_attention_keeps_the_scores_of_every_layer(config):
    eager, sdpa = (predict(recipe_of(512, base_model={"attention": [k]}), config) for k in ("eager", "sdpa"))
    scores = 2 * 4 * 4 * 512 * 512 * 2  # layers, rows, heads, length, length, bytes
    assert eager.activations - sdpa.activations > scores


def test_fragmentation_is_of_what_passed_and_so_no_less_where_activations_are_computed_twice(config):
    once, twice = (predict(recipe_of(256, training={"activation_checkpointing": x}), config) for x in (False, True))
    assert twice.fragmentation >= once.fragmentation > 0
    assert twice.activations < once.activations
    assert predict(recipe_of(256), config, device="cuda").fragmentation == 0


def test_checkpointing_quantization_and_fewer_supervised_tokens_need_less(config):
    whole = predict(recipe_of(256), config)
    assert predict(recipe_of(256, training={"activation_checkpointing": True}), config).activations < whole.activations
    assert predict(recipe_of(256, base_model={"quantization": NF4}), config).weights < whole.weights
    assert predict(recipe_of(256), config, supervised=10).head < whole.head / 10
    assert predict(recipe_of(256), config, longest=128).total < whole.total


def test_the_eval_loss_counts_where_its_batches_are_larger(config):
    large = recipe_of(training={"per_device_eval_batch_size": 4096})
    one, all_but_one = (predict(large, config, supervised=supervised).evaluation for supervised in (1, 31))
    assert all_but_one - one >= 4096 * 29 * config.vocab_size * 4
    assert predict(recipe_of(), config).evaluation < MIB


def test_rows_of_new_tokens_need_a_copy_of_the_embeddings(config):
    tokens = [config.vocab_size, config.vocab_size + 1]
    plain, more = (predict(recipe_of(), config, new_tokens=new) for new in ([], tokens))
    assert more.adapters - plain.adapters == 2 * config.hidden_size * 4
    assert more.weights > plain.weights


def test_dora_is_predicted_on_quantized_weights_too(config):
    quantized, dense = (recipe_of(base_model={"quantization": q}, lora={"use_dora": True}) for q in (NF4, None))
    prediction = predict(quantized, config)
    assert prediction.weights < predict(dense, config).weights
    assert prediction.activations == predict(dense, config).activations


@pytest.mark.parametrize("quantization", [None, NF4], ids=str)
def test_of_divided_layers_a_gpu_holds_its_share_and_those_that_are_put_together(config, quantization):
    deep = deepcopy(config)
    deep.num_hidden_layers = 32
    recipe = recipe_of(base_model={"quantization": quantization})
    whole, divided = (
        predict(with_settings(recipe, {"resources.workers": 8, "resources.strategy": strategy}), deep, device="cuda")
        for strategy in ("ddp", "fsdp")
    )
    model = adapted_model(recipe, deep, "sdpa", [])
    with FakeTensorMode(allow_non_fake_inputs=True):
        leave_meta(model)
        layers = sum(p.nbytes for layer in layers_of(model.get_base_model()) for p in frozen(layer))
    assert whole.weights - divided.weights == layers * 7 // 8 - layers * 3 // 32
    assert (divided.activations, divided.adapters) == (whole.activations, whole.adapters)
    # What each GPU with all layers keeps of the gradients that it exchanges.
    assert (whole.exchange, divided.exchange) == (whole.adapters, 0)
    alone = predict(recipe, deep, device="cuda")
    assert alone == replace(whole, exchange=0)
    assert predict(with_settings(recipe, {"resources.strategy": "fsdp"}), deep, device="cuda") == alone


def frozen(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in module.parameters() if not parameter.requires_grad]


@pytest.mark.parametrize("name", find())
def test_every_shipped_recipe_is_predicted_for_a_gpu(tmp_path, name):
    config = AutoConfig.from_pretrained(save_tiny_model(name, tmp_path))
    prediction = predict(load(name), config, device="cuda")
    assert prediction.total > prediction.weights + prediction.activations > 0


def test_a_prediction_says_how_much_and_what_for_largest_first():
    parts = {field.name: 0 for field in fields(Prediction)}
    prediction = Prediction(**parts | {"weights": 2048 * MIB, "activations": 4000 * MIB, "paged": 8 * MIB})
    assert prediction.text() == (
        "6,048 MiB at its peak (activations 4,000, weights 2,048); 8 MiB more may go to the machine's memory"
    )
