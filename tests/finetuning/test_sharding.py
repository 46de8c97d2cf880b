"""A base model that is divided among two processes is trained as the whole one, to the last bit."""

import random
import signal

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from finetuning.training_process import INTERRUPTED
from resources.launcher import Launcher
from tests.finetuning.test_lost_training import ADAPTER, Training, make_inputs, row, until

MIB = 2**20
SETTINGS = {"lora": {"r": 4, "lora_dropout": 0.1}, "num_train_epochs": 1, "save_steps": None}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """Rows, and a base model of four bits with quantized scales."""
    folder = make_inputs(tmp_path_factory.mktemp("quantized"))
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", quantization_config=config, device_map={"": "cpu"})
    model.save_pretrained(folder / "model")
    return folder


def trained(folder, inputs, strategy, **settings) -> Training:
    training = Training(folder, inputs, **{**SETTINGS, **settings})
    training.job["strategy"] = strategy
    process = training.start(*Launcher().start(2), OMP_NUM_THREADS="1")
    assert process.wait(180) == 0, training.words()[-3000:]
    return training


@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_a_divided_base_model_of_four_bits_is_trained_as_the_whole_one(tmp_path, quantized, activation_checkpointing):
    settings = {"activation_checkpointing": activation_checkpointing, "eval_steps": 8}
    whole = trained(tmp_path / "whole", quantized, "ddp", **settings)
    divided = trained(tmp_path / "divided", quantized, "fsdp", **settings)
    assert (divided.output / ADAPTER).read_bytes() == (whole.output / ADAPTER).read_bytes()
    for key in ("curve", "eval_curve", "eval_loss", "tokens"):
        assert divided.summary()[key] == whole.summary()[key]
    assert (whole.summary()["strategy"], divided.summary()["strategy"]) == ("ddp", "fsdp")


def test_each_process_holds_half_of_the_layers(tmp_path, quantized):
    summary = trained(tmp_path, quantized, "fsdp", max_steps=1).summary()
    model = AutoModelForCausalLM.from_pretrained(quantized / "model", device_map={"": "cpu"})
    layers = sum(p.nbytes for layer in model.model.layers for p in layer.parameters())
    assert layers > 0.2 * MIB * summary["weights_mb"]
    assert summary["weights_mb"] - summary["weights_held_mb"] == pytest.approx(layers / 2 / MIB, abs=0.002)


def test_a_divided_training_that_is_asked_to_end_goes_on_with_the_same_weights(tmp_path, quantized):
    whole = trained(tmp_path / "whole", quantized, "ddp", num_train_epochs=6)
    divided = Training(tmp_path / "divided", quantized, **SETTINGS | {"num_train_epochs": 6})
    divided.job["strategy"] = "fsdp"
    process = divided.start(*Launcher().start(2), OMP_NUM_THREADS="1")
    until(lambda: "'loss'" in divided.words(), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == INTERRUPTED, divided.words()[-3000:]
    assert 0 < divided.steps_saved()[-1] < whole.summary()["steps"], "too early or too late to prove anything"
    divided = trained(tmp_path / "divided", quantized, "fsdp", num_train_epochs=6)
    assert "going on from the checkpoint" in divided.words()
    assert (divided.output / ADAPTER).read_bytes() == (whole.output / ADAPTER).read_bytes()
    assert divided.summary()["curve"] == whole.summary()["curve"]


@pytest.mark.parametrize(
    "lora", [{"use_dora": True}, {"init_lora_weights": "pissa"}, {"modules_to_save": ["lm_head"]}], ids=str
)
def test_kinds_of_adapters_that_read_weights_are_trained_as_on_a_whole_model(tmp_path, tmp_path_factory, lora):
    dense = make_inputs(tmp_path_factory.mktemp("dense"))
    settings = {"lora": {"r": 4, **lora}, "max_steps": 6}
    whole = trained(tmp_path / "whole", dense, "ddp", **settings)
    divided = trained(tmp_path / "divided", dense, "fsdp", **settings)
    assert divided.summary()["curve"] == whole.summary()["curve"]
    assert (divided.output / ADAPTER).read_bytes() == (whole.output / ADAPTER).read_bytes()


def test_preferences_are_learned_from_a_divided_model(tmp_path, tmp_path_factory):
    """One process of the two has a batch less to compare where the eval split has an odd number of them."""
    inputs = make_inputs(tmp_path_factory.mktemp("pairs"))
    draw = random.Random(1)
    for split, count in (("train", 40), ("eval", 5)):
        pairs = [row(draw) | {f"rejected_{key}": value for key, value in row(draw).items()} for _ in range(count)]
        Dataset.from_list(pairs).to_parquet(str(inputs / f"{split}.parquet"))
    settings = {"method": "dpo", "learning_rate": 1e-3, "per_device_eval_batch_size": 1, "max_steps": 4}
    whole = trained(tmp_path / "whole", inputs, "ddp", **settings)
    divided = trained(tmp_path / "divided", inputs, "fsdp", **settings)
    assert divided.summary()["curve"] == whole.summary()["curve"]
    assert divided.summary()["reward_margin"] == whole.summary()["reward_margin"]
