"""Training on every architecture: what is adapted, what stays, what is saved, and the arithmetic of batches.

Models are random and two layers deep, with weights large enough for attention to choose. They compute in float32 on the
CPU, so that what is equal on paper differs by no more than the order of additions.

    pytest tests/finetuning/test_architectures.py -k gemma-3
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

from finetuning.base_model.loading import keep_trainable_on_cpu, load_model
from finetuning.base_model.quantized_base_model import quantize
from finetuning.errors import FinetuningError
from finetuning.lora.loading import load_adapter
from finetuning.progress import Progress
from finetuning.recipe.base_model import KEEP_ROWS_APART, BaseModelSpec
from finetuning.recipe.loading import load
from finetuning.recipe.recipe import Recipe
from finetuning.training import lora_adapter
from finetuning.training.job import TrainingJob
from finetuning.training.lora_adapter import train
from resources.gpu import Gpu, detect
from tests.tiny_models import CONFIGS, save_tiny_model

# Where a model's blocks are, and every linear layer of a block. The head is on no list.
FALCON = (
    "transformer.h",
    "self_attention.query_key_value",
    "self_attention.dense",
    "mlp.dense_h_to_4h",
    "mlp.dense_4h_to_h",
)
PHI = (
    "model.layers",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.dense",
    "mlp.fc1",
    "mlp.fc2",
)
LLAMA = (
    "model.layers",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
LINEAR_LAYERS = {
    "falcon-7b": FALCON,
    "gemma-2": LLAMA,
    "gemma-2b": LLAMA,
    "gemma-3": LLAMA,
    "llama-3": LLAMA,
    "mistral-7b-fennec": LLAMA,
    "phi-2": PHI,
    "qwen-2": LLAMA,
    "qwen-3": LLAMA,
    "smollm2-135m": LLAMA,
    "zephyr-7b-beta": LLAMA,
}
FULL_PRECISION = list(LINEAR_LAYERS)
IN_4_BITS = ["falcon-7b in 4 bits", "llama-3 in 4 bits"]
NF4 = {"bits": 4, "type": "nf4", "double": True}
# transformers makes Falcon's mask without the positions that tell packed rows apart.
MIXES_PACKED_ROWS = "falcon-7b"
# Gemma 2 caps its attention scores, which sdpa cannot.
WITHOUT_SDPA = "gemma-2"

# Tokens and supervised tokens of each row: beyond every sliding window, and such that a mean of the rows' means is far
# from the mean over tokens.
SIZES = ((90, 40), (12, 1), (47, 30), (23, 5))
# Plain descent goes as far as the gradient is long; Adam divides its length out, and a wrong factor with it.
DESCENT = {
    "optim": "sgd",
    "learning_rate": 0.2,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "max_steps": 3,
    "per_device_train_batch_size": len(SIZES),
    "bf16": False,
}
# Of a float32's 24 bits, sums of some hundred terms in another order leave about 20 (1e-6) equal after three steps.
ROUNDING = 1e-5
SILENT = Progress(lambda line: None, "")


def rows_of(sizes: tuple[tuple[int, int], ...]) -> list[dict[str, list[int]]]:
    """Random rows with two supervised parts each: a third of the supervised tokens near the start, the rest last."""
    draw, rows = random.Random(0), []
    for length, supervised in sizes:
        ids = draw.choices(range(3, 250), k=length)
        first = supervised // 3
        learned = {*range(2, 2 + first), *range(length - supervised + first, length)}
        rows.append({"input_ids": ids, "labels": [token if i in learned else -100 for i, token in enumerate(ids)]})
    return rows


ROWS = rows_of(SIZES)


@dataclass(frozen=True)
class Trained:
    """One training: its job, whose folders are on the disk, and the very model that was trained."""

    job: TrainingJob
    model: PeftModel

    def base(self, **changes: Any) -> Any:
        """The base model, loaded anew, with the kernels that it was trained with."""
        model = load_model(self.job.base_model, **self.job.model_kwargs | changes)
        keep_trainable_on_cpu(model)
        return model.eval()

    def adapter(self) -> dict[str, torch.Tensor]:
        """The weights that were saved, by their names in the file."""
        return load_file(self.job.output / "adapter_model.safetensors")


@contextmanager
def saved_models() -> Iterator[list[PeftModel]]:
    """The models that peft saves meanwhile, as objects."""
    models, save = [], PeftModel.save_pretrained

    def remember(model: PeftModel, *args: Any, **kwargs: Any) -> None:
        models.append(model)
        save(model, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PeftModel, "save_pretrained", remember)
        yield models


def save_base(name: str, quantization: dict[str, Any] | None, kernel: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of a base model that is ready to train on, and what it is loaded with."""
    source = save_tiny_model(name, folder / "model", initializer_range=0.2)
    settings = {"repo": str(source), "quantization": quantization, "attention": [kernel], "dtype": "float32"}
    spec = BaseModelSpec.model_validate(settings)
    kwargs = Gpu().model_kwargs(spec) | {"device_map": {"": "cpu"}}
    quantize(spec, source, folder / "base", kwargs, f"{name}.yaml")
    return folder / "base", kwargs


def job_on(base: Path, kwargs: dict[str, Any], folder: Path) -> TrainingJob:
    """The job of training on `ROWS`, which are then in `folder`."""
    for split in ("train", "eval"):
        Dataset.from_list(ROWS).to_parquet(str(folder / f"{split}.parquet"))
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "tokenizer")
    return TrainingJob.model_validate(
        {
            "where": "tiny.yaml",
            "lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0},
            "training": DESCENT,
            "max_length": 128,
            "chat_dataset": folder,
            "base_model": base,
            "model_kwargs": kwargs,
            "output": folder / "adapter",
        }
    )


def run(job: TrainingJob) -> Trained:
    """The job, done."""
    with saved_models() as models:
        train(job, SILENT)
    return Trained(job, models[-1].eval())


def run_with(job: TrainingJob, output: Path, **training: Any) -> Trained:
    """The same job with other settings and another output, done."""
    settings = job.training.model_dump() | training
    # Checkpoints are found beside the output; those of another job are none of this one.
    return run(
        TrainingJob.model_validate({**job.model_dump(exclude={"checkpoints"}), "training": settings, "output": output})
    )


@pytest.fixture(scope="module")
def trained_on(tmp_path_factory) -> Callable[[str], Trained]:
    """A function that gives the training on an architecture, which it makes once."""

    @cache
    def trained_once(kind: str) -> Trained:
        name = kind.removesuffix(" in 4 bits")
        folder = tmp_path_factory.mktemp("architecture")
        kernel = "eager" if name == WITHOUT_SDPA else "sdpa"
        return run(job_on(*save_base(name, NF4 if kind in IN_4_BITS else None, kernel, folder), folder))

    return trained_once


@pytest.fixture(params=[*FULL_PRECISION, *IN_4_BITS])
def trained(request, trained_on) -> Trained:
    return trained_on(request.param)


def logits_of(model: Any, side: str = "right") -> torch.Tensor:
    """Logits of `ROWS` as one batch, padded on that side, at all tokens but the padding: (tokens, vocabulary)."""
    width = max(length for length, _ in SIZES)
    ids, mask = torch.full((len(ROWS), width), 2), torch.zeros(len(ROWS), width, dtype=torch.long)
    for i, row in enumerate(ROWS):
        length = len(row["input_ids"])
        place = slice(0, length) if side == "right" else slice(width - length, width)
        ids[i, place], mask[i, place] = torch.tensor(row["input_ids"]), 1
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask).logits[mask.bool()]


def loss_of(logits: torch.Tensor) -> float:
    """Mean loss of all supervised tokens of `ROWS`, written out: each is predicted from the token before it."""
    labels = torch.tensor([label for row in ROWS for label in [*row["labels"][1:], -100]])
    return cross_entropy(logits, labels, ignore_index=-100).item()


def distance(some: Trained, other: Trained) -> float:
    """How far two adapters are apart: the largest norm of a difference of B matrices, over the norm of the matrix.

    A matrix B starts at zero, so that all of it was learned; A hardly leaves its random start.
    """
    first, second = some.adapter(), other.adapter()
    assert first.keys() == second.keys()
    names = [name for name in first if "lora_B" in name]
    return max(((first[name] - second[name]).norm() / second[name].norm()).item() for name in names)


def test_every_architecture_of_the_tiny_models_is_here():
    assert {CONFIGS[name][0] for name in LINEAR_LAYERS} == {config for config, _ in CONFIGS.values()}


@pytest.mark.parametrize("kind", [*FULL_PRECISION, *IN_4_BITS])
def test_all_linear_is_every_linear_layer_of_the_blocks_and_not_the_head(trained_on, kind):
    blocks, *layers = LINEAR_LAYERS[kind.removesuffix(" in 4 bits")]
    assert set(trained_on(kind).adapter()) == {
        f"base_model.model.{blocks}.{block}.{layer}.lora_{matrix}.weight"
        for block in (0, 1)
        for layer in layers
        for matrix in "AB"
    }


def test_training_leaves_every_bit_of_the_base_model_as_it_was(trained):
    after = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): weight
        for name, weight in trained.model.state_dict().items()
        if ".lora_" not in name
    }
    before = trained.base().state_dict()
    assert after.keys() == before.keys()
    assert [name for name in before if not torch.equal(after[name], before[name])] == []


def test_the_saved_adapter_on_a_fresh_base_has_the_logits_of_the_model_that_was_trained(trained):
    reloaded = load_adapter(trained.base(), trained.job.output, [3, 4, 5])
    assert torch.equal(logits_of(reloaded), logits_of(trained.model))


def test_the_adapter_changes_the_logits_of_every_token_and_learns_the_rows(trained):
    base, tuned = (logits_of(model) for model in (trained.base(), trained.model))
    assert (tuned - base).abs().amax(dim=1).min() > 1e-2
    assert loss_of(tuned) < loss_of(base) - 0.1
    assert all(torch.any(weight) for name, weight in trained.adapter().items() if "lora_B" in name)


@pytest.mark.parametrize("name", FULL_PRECISION)
def test_a_batch_of_four_rows_trains_what_four_batches_of_one_row_train(trained_on, name, tmp_path):
    four = trained_on(name)
    ones = run_with(four.job, tmp_path / "ones", per_device_train_batch_size=1, gradient_accumulation_steps=4)
    assert distance(ones, four) < ROUNDING


@pytest.mark.parametrize("name", [name for name in FULL_PRECISION if name != MIXES_PACKED_ROWS])
def test_packed_rows_train_what_unpacked_rows_train(trained_on, name, tmp_path):
    unpacked = trained_on(name)
    assert distance(run_with(unpacked.job, tmp_path / "packed", packing=True), unpacked) < ROUNDING


@pytest.mark.parametrize("name", [name for name in FULL_PRECISION if name != MIXES_PACKED_ROWS])
def test_rows_end_to_end_train_what_padded_rows_train(trained_on, name, tmp_path, monkeypatch):
    padded = trained_on(name)
    # As on a GPU with a kernel that keeps rows apart.
    monkeypatch.setattr(lora_adapter, "leaves_padding_out", lambda *_: True)
    assert distance(run_with(padded.job, tmp_path / "end to end"), padded) < ROUNDING


def test_rows_packed_for_falcon_see_each_other_without_a_flash_kernel(trained_on, tmp_path):
    unpacked = trained_on(MIXES_PACKED_ROWS)
    assert distance(run_with(unpacked.job, tmp_path / "packed", packing=True), unpacked) > 0.1


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_a_recipe_that_packs_is_refused_with_a_kernel_that_may_mix_rows(kernel):
    recipe = load("falcon-7b").model_dump()
    recipe["base_model"]["attention"], recipe["training"]["packing"] = ["flash_attention_2", kernel], True
    with pytest.raises(ValueError, match=rf"training\.packing: true, and base_model\.attention allows {kernel}"):
        Recipe.model_validate(recipe)


@pytest.mark.skipif(detect().device == "cuda", reason="this machine may have a flash kernel")
def test_the_shipped_recipe_that_packs_does_so_where_there_is_no_flash_kernel():
    recipe = load("gemma-2b")
    assert recipe.training.packing and set(recipe.base_model.attention) <= set(KEEP_ROWS_APART)
    assert Gpu().attention(recipe.base_model).kernel == "varlen"


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", [name for name in FULL_PRECISION if name != WITHOUT_SDPA])
def test_sdpa_and_eager_attention_agree_on_a_padded_batch(trained_on, name, side):
    eager, sdpa = (logits_of(trained_on(name).base(attn_implementation=kernel), side) for kernel in ("eager", "sdpa"))
    assert (eager - sdpa).abs().max() < ROUNDING * eager.abs().max()


@pytest.mark.parametrize("quantization", [None, NF4], ids=["in full precision", "in 4 bits"])
def test_a_kernel_that_an_architecture_does_not_have_is_a_mistake_of_the_recipe(tmp_path, quantization):
    with pytest.raises(FinetuningError, match=r"base_model\.attention.*sdpa.*Gemma2ForCausalLM.*eager"):
        run(job_on(*save_base(WITHOUT_SDPA, quantization, "sdpa", tmp_path), tmp_path))
