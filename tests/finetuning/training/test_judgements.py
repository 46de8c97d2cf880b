"""Kahneman-Tversky optimization: trl's loss and gradients, the same steps however they are cut, and what they teach."""

import random
import signal

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import KTOConfig, KTOTrainer, SFTConfig

from finetuning.base_model.loading import load_model
from finetuning.lora.config import lora_config
from finetuning.recipe.lora import LoraSpec
from finetuning.training.judged_rows import MismatchedBatches
from finetuning.training.judgements import JudgementTrainer
from finetuning.training.process import INTERRUPTED
from resources.launcher import Launcher
from tests.finetuning.training.test_lost_training import ADAPTER, Training, until
from tests.finetuning.training.test_preferences import ARGUMENTS, ROUNDING, trained
from tests.tiny_models import save_tiny_model
from tests.waiting import PATIENCE

LOSSES = ["kto", "apo_zero_unpaired"]
WEIGHTS = {"desirable_weight": 1.5, "undesirable_weight": 0.5}


def judged(prompt: list[int], answer: list[int], desirable: bool) -> dict:
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer, "desirable": desirable}


ROWS = [
    judged(list(range(5, 17)), list(range(17, 25)), True),
    judged(list(range(40, 49)), list(range(49, 52)), False),
    judged(list(range(60, 64)), list(range(64, 90)), True),
    judged(list(range(5, 13)), list(range(30, 36)), False),
]


class TrlTrainer(KTOTrainer):
    """trl's trainer on rows that are tokens already, each with the answer of the row before it."""

    def _prepare_dataset(self, dataset, *args):
        rows = [
            {
                "prompt_ids": [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100],
                "completion_ids": [label for label in row["labels"] if label != -100],
                "label": row["desirable"],
            }
            for row in dataset
        ]
        if self.calculate_KL:
            rows = [row | {"KL_completion_ids": rows[i - 1]["completion_ids"]} for i, row in enumerate(rows)]
        return Dataset.from_list(rows)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("tiny"))


def trainer_of(folder, out, loss_type="kto", rows=4, own_head=True, rows_of=ROWS, max_length=None, **more):
    """Ours, with steps of four rows, `rows` of them a pass."""
    model = load_model(folder)
    cut = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": -(-4 // rows)}
    return JudgementTrainer(
        model=model,
        args=SFTConfig(str(out), **ARGUMENTS, **cut, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=Dataset.from_list(rows_of),
        eval_dataset=Dataset.from_list(rows_of),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=lora_config(LoraSpec(r=4, lora_dropout=0.0), model, [], "tiny.yaml"),
        rows_per_step=4,
        order="sequential",
        own_head=own_head,
        beta=0.5,
        loss_type=loss_type,
        max_length=max_length,
        **{**WEIGHTS, **more},
    )


def trl_of(folder, out, loss_type, max_length=None):
    model = load_model(folder)
    arguments = ARGUMENTS | {"max_length": max_length}
    return TrlTrainer(
        model=model,
        args=KTOConfig(str(out), **arguments, **WEIGHTS, beta=0.5, loss_type=loss_type, per_device_train_batch_size=4),
        train_dataset=Dataset.from_list(ROWS),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=lora_config(LoraSpec(r=4, lora_dropout=0.0), model, [], "tiny.yaml"),
    )


def points(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if "loss" in entry]


def same(found, expected):
    assert found[0] == pytest.approx(expected[0], abs=ROUNDING)
    assert found[1].keys() == expected[1].keys()
    for name, weight in expected[1].items():
        torch.testing.assert_close(found[1][name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("loss_type", "max_length"), [("kto", None), ("kto", 30), ("apo_zero_unpaired", None)])
def test_losses_gradients_and_divergence_are_those_of_trls_own_trainer(tiny, tmp_path, loss_type, max_length):
    trainer, other = (
        trainer_of(tiny, tmp_path, loss_type, max_length=max_length),
        trl_of(tiny, tmp_path, loss_type, max_length),
    )
    ours, theirs = trained(trainer), trained(other)
    same(ours, theirs)
    assert abs(ours[0][0] - ours[0][2]) > 1e-2, "nothing was learned, so equal losses prove nothing"
    if loss_type == "kto":
        assert points(trainer, "kl") == pytest.approx(points(other, "kl"), abs=1e-4)
        assert points(trainer, "kl")[-1] > 1e-3, "a divergence of nothing proves nothing"


def test_trls_head_gives_the_same_losses_and_gradients(tiny, tmp_path):
    same(*(trained(trainer_of(tiny, tmp_path, own_head=own_head)) for own_head in (True, False)))


@pytest.mark.parametrize("rows", [1, 3])
def test_a_step_in_smaller_pieces_has_the_same_loss_and_the_same_divergence(tiny, tmp_path, rows):
    pieces, whole = (trainer_of(tiny, tmp_path, rows=size) for size in (rows, 4))
    same(trained(pieces), trained(whole))
    assert points(pieces, "kl") == pytest.approx(points(whole, "kl"), abs=ROUNDING)


def test_before_the_first_step_the_loss_is_half_and_no_reward_is_given(tiny, tmp_path):
    metrics = trainer_of(tiny, tmp_path, desirable_weight=1.0, undesirable_weight=1.0).evaluate()
    assert metrics["eval_loss"] == pytest.approx(0.5, abs=1e-7)
    rewards = ("eval_kl", "eval_reward_chosen", "eval_reward_rejected", "eval_reward_margin")
    assert [metrics[name] for name in rewards] == [0, 0, 0, 0]


def test_good_answers_alone_have_no_reward_of_bad_ones(tiny, tmp_path):
    metrics = trainer_of(tiny, tmp_path, rows_of=[row for row in ROWS if row["desirable"]]).evaluate()
    assert "eval_reward_chosen" in metrics and "eval_reward_rejected" not in metrics


def test_a_row_for_a_process_that_has_none_counts_for_nothing(tiny, tmp_path):
    trainer = trainer_of(tiny, tmp_path)
    trained(trainer)
    token_rows = trainer.token_rows(trainer.train_dataset)
    pairs = [(0, 1), (1, 2), (2, 3), (3, 0)]
    found = []
    for some in (pairs, [*pairs, (-2, 3)]):
        inputs = trainer._prepare_inputs(trainer.data_collator([token_rows[pair] for pair in some]))
        _, rows = trainer.get_batch_samples(iter([dict(inputs)]), 1, torch.device("cpu"))
        with torch.no_grad():
            found.append([int(rows), trainer.divergence.item(), *trainer.measured(inputs).tolist()])
    assert found[0] == pytest.approx(found[1], abs=1e-5) and found[0][0] == 4


@pytest.mark.parametrize(("rows", "size"), [(10, 4), (9, 4), (1, 4)])
def test_every_answer_of_a_step_is_read_once_with_another_prompt(rows, size):
    def pairs(processes, parts):
        batches = [
            MismatchedBatches(np.arange(rows) + 5, size, parts, "random", 3, process, processes)
            for process in range(processes)
        ]
        return sorted(pair for some in batches for batch in some for pair in batch if pair[0] >= 0)

    found = pairs(1, 1)
    assert sorted(row for row, _ in found) == list(range(rows))
    assert all(row != other for row, other in found) or rows == 1
    if rows == 10:
        assert sorted(other for _, other in found) == list(range(rows))
    assert pairs(1, 2) == found and pairs(2, 1) == found


SETTINGS = {"method": "kto", "beta": 0.5, "num_train_epochs": 2}
REWARDS = ("eval_loss", "reward_chosen", "reward_rejected", "reward_margin", "kl")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A base model and answers of random lengths, of which those with even numbers were judged good."""
    folder = tmp_path_factory.mktemp("inputs")
    save_tiny_model("smollm2-135m", folder / "model")
    draw = random.Random(0)
    for split, count in (("train", 123), ("eval", 9)):
        Dataset.from_list([drawn(draw, n % 3 > 0) for n in range(count)]).to_parquet(str(folder / f"{split}.parquet"))
    AutoTokenizer.from_pretrained(folder / "model").save_pretrained(folder / "tokenizer")
    return folder


def drawn(draw: random.Random, desirable: bool) -> dict:
    prompt, answer = [[draw.randint(3, 45) for _ in range(draw.randint(4, 30))] for _ in range(2)]
    return judged(prompt, [2 * i + (not desirable) for i in answer], desirable)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, inputs):
    """A training that nothing happened to."""
    whole = Training(tmp_path_factory.mktemp("whole"), inputs, **SETTINGS)
    whole.finish()
    return whole


def test_a_short_training_makes_good_answers_likelier_and_bad_ones_less_likely(whole):
    summary = whole.summary()
    assert summary["eval_loss"] < min(0.45, summary["curve"][0]["loss"])
    assert summary["reward_chosen"] > 0 > summary["reward_rejected"] and summary["reward_margin"] > 1
    assert summary["reward_margin"] == pytest.approx(summary["reward_chosen"] - summary["reward_rejected"])
    assert summary["kl"] >= 0


@pytest.mark.long("trainings that are cancelled")
def test_a_cancelled_training_that_goes_on_ends_with_the_same_weights(tmp_path, inputs):
    settings = {**SETTINGS, "num_train_epochs": 4}
    whole, training = Training(tmp_path / "whole", inputs, **settings), Training(tmp_path, inputs, **settings)
    whole.finish()
    process = training.start()
    until(lambda: "'loss'" in training.words(), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == INTERRUPTED, training.words()[-3000:]
    done = training.steps_saved()[-1]
    assert 0 < done < whole.summary()["steps"], "it was cancelled too early or too late to prove anything"
    assert training.finish() == (whole.output / ADAPTER).read_bytes()
    for name in ("curve", *REWARDS):
        assert training.summary()[name] == whole.summary()[name]


@pytest.mark.long("two processes that train")
def test_two_processes_have_the_losses_of_one_with_twice_the_batch(tmp_path, inputs):
    settings = {**SETTINGS, "lora": {"lora_dropout": 0.0}, "gradient_accumulation_steps": 1, "learning_rate": 1e-3}
    two = Training(tmp_path / "two", inputs, **settings, per_device_train_batch_size=4)
    one = Training(tmp_path / "one", inputs, **settings, per_device_train_batch_size=8)
    process = two.start(*Launcher().start(2), OMP_NUM_THREADS="1")
    assert process.wait(PATIENCE) == 0, two.words()[-3000:]
    one.finish()
    for shared, alone in zip(two.summary()["curve"], one.summary()["curve"], strict=True):
        assert shared["step"] == alone["step"] and shared["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    for name in REWARDS:
        assert two.summary()[name] == pytest.approx(one.summary()[name], rel=1e-4, abs=1e-4)
