"""A base model that is divided among two processes is trained as the whole one, to the last bit."""

import random
import signal
import weakref
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from finetuning.training import sharding
from finetuning.training.process import INTERRUPTED
from resources.launcher import Launcher
from tests.finetuning.training.test_lost_training import ADAPTER, Training, make_inputs, row, until
from tests.tiny_models import save_tiny_model
from tests.waiting import PATIENCE

pytestmark = pytest.mark.long("two processes that divide a model, beside two that do not")

MIB = 2**20
IN_FOUR_BITS = {"num_train_epochs": 6, "save_steps": None, "activation_checkpointing": True, "eval_steps": 20}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """Rows, and a base model of four bits with quantized scales."""
    folder = make_inputs(tmp_path_factory.mktemp("quantized"))
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", quantization_config=config, device_map={"": "cpu"})
    model.save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, quantized):
    """A training of two processes, each with the whole base model."""
    return trained(tmp_path_factory.mktemp("whole"), quantized, "ddp", **IN_FOUR_BITS)


def started(folder, inputs, strategy, **settings):
    training = Training(folder, inputs, **settings)
    training.job["strategy"] = strategy
    return training, training.start(*Launcher().start(2), OMP_NUM_THREADS="1")


def trained(folder, inputs, strategy, **settings) -> Training:
    training, process = started(folder, inputs, strategy, **settings)
    try:
        code = process.wait(PATIENCE)
    finally:
        process.terminate()
    assert code == 0, training.words()[-3000:]
    assert training.summary()["strategy"] == strategy
    return training


def alike(one: Training, other: Training, *also: str) -> bool:
    """Whether both trained the same adapter, with the same losses on their way."""
    keys = ("curve", "eval_curve", "eval_loss", "tokens", *also)
    same = all(one.summary()[key] == other.summary()[key] for key in keys)
    return same and (one.output / ADAPTER).read_bytes() == (other.output / ADAPTER).read_bytes()


@pytest.mark.parametrize("bits", [4, None])
def test_no_undivided_layer_stays_when_its_turn_is_over(tmp_path, quantized, monkeypatch, bits):
    """They would fill a GPU that has room for the parts."""
    base = AutoModelForCausalLM.from_pretrained(
        quantized / "model" if bits else save_tiny_model("smollm2-135m", tmp_path), device_map={"": "cpu"}
    )
    model = get_peft_model(base, LoraConfig(target_modules="all-linear"))
    frozen = [[weakref.ref(p) for p in layer.parameters() if not p.requires_grad] for layer in base.model.layers]
    there = []

    def divide(*args, **settings):
        fully_shard(*args, **settings)
        there.append([sum(p() is not None for p in layer) for layer in frozen])

    monkeypatch.setattr(sharding, "fully_shard", divide)
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        args = SimpleNamespace(device=torch.device("cpu"), world_size=2)
        sharding.shard(SimpleNamespace(model=model, args=args), "tiny.yaml")  # pyright: ignore[reportArgumentType]
    finally:
        torch.distributed.destroy_process_group()
    count = len(frozen[0])
    assert there == [[0, count], [0, 0], [0, 0]] and count > 0


def test_a_divided_base_model_of_four_bits_is_trained_as_the_whole_one(tmp_path, quantized, whole):
    divided = trained(tmp_path, quantized, "fsdp", **IN_FOUR_BITS)
    assert alike(divided, whole)
    summary = divided.summary()
    model = AutoModelForCausalLM.from_pretrained(quantized / "model", device_map={"": "cpu"})
    layers = sum(p.nbytes for layer in model.model.layers for p in layer.parameters()) / MIB
    assert layers > 0.2 * summary["weights_mb"]
    assert summary["weights_mb"] - summary["weights_held_mb"] == pytest.approx(layers / 2, abs=0.002)


def test_a_divided_training_that_was_asked_to_end_goes_on_with_the_same_weights(tmp_path, quantized, whole):
    ended, process = started(tmp_path, quantized, "fsdp", **IN_FOUR_BITS)
    until(lambda: "'loss'" in ended.words(), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == INTERRUPTED, ended.words()[-3000:]
    assert 0 < ended.steps_saved()[-1] < whole.summary()["steps"], "too early or too late to prove anything"
    divided = trained(tmp_path, quantized, "fsdp", **IN_FOUR_BITS)
    assert "going on from the checkpoint" in divided.words() and alike(divided, whole)


@pytest.mark.parametrize(
    ("lora", "bits"),
    [({"use_dora": True, "modules_to_save": ["lm_head"]}, 4), ({"init_lora_weights": "pissa"}, None)],
    ids=str,
)
def test_kinds_of_adapters_that_read_weights_are_trained_as_on_a_whole_model(tmp_path, quantized, lora, bits):
    inputs, settings = quantized if bits else make_inputs(tmp_path), {"lora": lora, "max_steps": 6}
    whole = trained(tmp_path / "whole", inputs, "ddp", **settings)
    assert alike(trained(tmp_path / "divided", inputs, "fsdp", **settings), whole)


def test_preferences_are_learned_from_a_divided_model(tmp_path):
    """Of five eval batches one process has three, and the other one, which has two, goes along with the third."""
    inputs, draw = make_inputs(tmp_path), random.Random(1)
    for split, count in (("train", 40), ("eval", 5)):
        pairs = [row(draw) | {f"rejected_{key}": value for key, value in row(draw).items()} for _ in range(count)]
        Dataset.from_list(pairs).to_parquet(str(inputs / f"{split}.parquet"))
    settings = {"method": "dpo", "learning_rate": 1e-3, "per_device_eval_batch_size": 1, "max_steps": 4}
    whole = trained(tmp_path / "whole", inputs, "ddp", **settings)
    assert alike(trained(tmp_path / "divided", inputs, "fsdp", **settings), whole, "reward_margin")
