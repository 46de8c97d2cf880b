"""Direct preference optimization: trl's loss and gradients, the base model as reference, and the same steps always."""

import math
import random
import signal

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig

from finetuning.base_model.loading import load_model
from finetuning.lora.config import lora_config
from finetuning.lora.embeddings import adapt_head
from finetuning.progress import Progress
from finetuning.recipe.lora import LoraSpec
from finetuning.training.job import TrainingJob
from finetuning.training.lora_adapter import train
from finetuning.training.preferences import PreferenceTrainer
from finetuning.training.process import INTERRUPTED
from finetuning.training.reference import as_it_was
from resources.launcher import Launcher
from tests.finetuning.training.test_lost_training import ADAPTER, Training, until
from tests.tiny_models import save_tiny_model
from tests.waiting import PATIENCE

# An answer's likelihood is about 80 nats here, which float32 knows to 4e-6, and a margin has four of them.
ROUNDING = 1e-5
LOSSES = ["sigmoid", "hinge", "ipo"]


def pair(prompt: list[int], chosen: list[int], rejected: list[int]) -> dict[str, list[int]]:
    return {
        "input_ids": prompt + chosen,
        "labels": [-100] * len(prompt) + chosen,
        "rejected_input_ids": prompt + rejected,
        "rejected_labels": [-100] * len(prompt) + rejected,
    }


PAIRS = [
    pair(list(range(5, 17)), list(range(17, 25)), list(range(40, 43))),
    pair(list(range(40, 49)), list(range(49, 52)), list(range(60, 78))),
    pair(list(range(60, 64)), list(range(64, 90)), list(range(30, 50))),
]


class TrlTrainer(DPOTrainer):
    """trl's trainer on rows that are tokens already."""

    def _prepare_dataset(self, dataset, *args):
        return Dataset.from_list(
            [
                {
                    "prompt_ids": [
                        i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100
                    ],
                    "chosen_ids": [label for label in row["labels"] if label != -100],
                    "rejected_ids": [label for label in row["rejected_labels"] if label != -100],
                }
                for row in dataset
            ]
        )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("tiny"))


# By plain gradients, so that equal weights are equal gradients.
ARGUMENTS = {
    "max_steps": 3,
    "learning_rate": 0.01,
    "optim": "sgd",
    "max_grad_norm": 0,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "seed": 1,
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "save_strategy": "no",
    "max_length": None,
    "disable_tqdm": True,
    "gradient_checkpointing": False,
}


def trainer_of(
    folder, out, loss_type="sigmoid", rows=1, own_head=True, lora=None, new_tokens=(), rows_of=PAIRS, **more
):
    """Ours, with steps of three pairs, `rows` of them a pass."""
    model = load_model(folder)
    spec = LoraSpec(r=4, **{"lora_dropout": 0.0, **(lora or {})})
    cut = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": -(-3 // rows)}
    trainer = PreferenceTrainer(
        model=model,
        args=SFTConfig(str(out), **ARGUMENTS, **cut, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=Dataset.from_list(rows_of),
        eval_dataset=Dataset.from_list(rows_of),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=lora_config(spec, model, list(new_tokens), "tiny.yaml"),
        rows_per_step=3,
        order="sequential",
        own_head=own_head,
        beta=0.5,
        loss_type=loss_type,
        **more,
    )
    adapt_head(trainer.model, list(new_tokens))
    return trainer


def trl_of(folder, out, loss_type):
    model = load_model(folder)
    return TrlTrainer(
        model=model,
        args=DPOConfig(str(out), **ARGUMENTS, beta=0.5, loss_type=[loss_type], per_device_train_batch_size=3),
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=lora_config(LoraSpec(r=4, lora_dropout=0.0), model, [], "tiny.yaml"),
    )


def trained(trainer):
    """The losses and the trained weights of its steps."""
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("loss_type", LOSSES)
def test_losses_and_gradients_are_those_of_trls_own_trainer(tiny, tmp_path, loss_type):
    ours, theirs = trained(trainer_of(tiny, tmp_path, loss_type)), trained(trl_of(tiny, tmp_path, loss_type))
    assert ours[0] == pytest.approx(theirs[0], abs=ROUNDING)
    assert abs(ours[0][0] - ours[0][2]) > 1e-2, "nothing was learned, so equal losses prove nothing"
    assert ours[1].keys() == theirs[1].keys()
    for name, weight in theirs[1].items():
        torch.testing.assert_close(ours[1][name], weight, rtol=1e-4, atol=1e-6)


def test_trls_head_gives_the_same_losses_and_gradients(tiny, tmp_path):
    own, trls = (trained(trainer_of(tiny, tmp_path, own_head=own_head)) for own_head in (True, False))
    assert own[0] == pytest.approx(trls[0], abs=ROUNDING)
    for name, weight in trls[1].items():
        torch.testing.assert_close(own[1][name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [2, 3])
def test_a_step_in_larger_pieces_has_the_same_loss_even_where_these_are_not_alike(tiny, tmp_path, rows):
    small, large = (trained(trainer_of(tiny, tmp_path, rows=size)) for size in (1, rows))
    assert small[0] == pytest.approx(large[0], abs=ROUNDING)
    for name, weight in large[1].items():
        torch.testing.assert_close(small[1][name], weight, rtol=1e-4, atol=1e-6)


def test_before_the_first_step_the_loss_is_ln_2_and_no_answer_is_preferred(tiny, tmp_path):
    metrics = trainer_of(tiny, tmp_path).evaluate()
    assert metrics["eval_loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert (metrics["eval_reward_accuracy"], metrics["eval_reward_margin"]) == (0, 0)


def test_a_pair_for_a_process_that_has_none_counts_for_nothing(tiny, tmp_path):
    nothing = {name: ids if name.endswith("ids") else [-100] * len(ids) for name, ids in PAIRS[1].items()}
    with_it, without = (trainer_of(tiny, tmp_path, rows_of=rows) for rows in ([*PAIRS, nothing], PAIRS))
    inputs = with_it._prepare_inputs(with_it.data_collator([*PAIRS, nothing]))
    _, pairs = with_it.get_batch_samples(iter([inputs]), 1, torch.device("cpu"))
    assert pairs == 3
    assert with_it.evaluate() == pytest.approx(without.evaluate())


def test_a_step_of_so_many_tokens_has_those_of_both_answers(tiny, tmp_path):
    trainer = trainer_of(tiny, tmp_path, rows=3, tokens_per_step=100)
    found = [batch["input_ids"].numel() for batch in trainer.get_train_dataloader()]
    assert len(found) == 3 and max(found) <= 100


ADAPTERS = {
    "LoRA with dropout": ("smollm2-135m", {"lora_dropout": 0.3}, ()),
    "DoRA": ("smollm2-135m", {"use_dora": True}, ()),
    "a head that is trained whole": ("mistral-7b-fennec", {"modules_to_save": ("lm_head",)}, ()),
    "new tokens, tied": ("smollm2-135m", {}, (22, 50)),
    "new tokens, untied": ("mistral-7b-fennec", {}, (22, 50)),
    "new tokens under a head with a bias": ("phi-2", {}, (22, 50)),
    "a base model with dropout": ("phi-2 with dropout", {}, ()),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_reference_is_the_base_model_as_it_was_whatever_is_trained(tmp_path, name):
    family, lora, new_tokens = ADAPTERS[name]
    dropout = {"resid_pdrop": 0.5} if family.endswith("with dropout") else {}
    folder = save_tiny_model(family.split()[0], tmp_path / "model", **dropout)
    trainer = trainer_of(folder, tmp_path, lora=lora, new_tokens=new_tokens)
    names = set(trainer.trainable())
    trainer.train()
    ids = torch.tensor([PAIRS[0]["input_ids"], [*range(16, 24), *range(44, 56)]])
    trainer.model.train()
    with torch.no_grad():
        changed = trainer.model(ids).logits
        with as_it_was(trainer.model):
            before = trainer.model(ids).logits
        base = load_model(folder)(ids).logits
    torch.testing.assert_close(before, base, rtol=0, atol=0)
    assert (changed - base).abs().max() > 1e-3, "nothing was learned, so an equal reference proves nothing"
    assert set(trainer.trainable()) == names and trainer.model.training
    trainer.model.eval()
    with as_it_was(trainer.model):
        pass
    assert not trainer.model.training


def test_an_end_within_the_reference_leaves_an_adapter_that_is_saved_and_used(tiny, tmp_path):
    trainer = trainer_of(tiny, tmp_path)
    trainer.train()
    names, moment = set(trainer.trainable()), trainer.moment()
    trainer.model.base_model.disable_adapter_layers()
    assert not trainer.trainable()
    trainer.go_back(moment)
    assert set(trainer.trainable()) == names


SETTINGS = {"method": "dpo", "beta": 0.5, "num_train_epochs": 1}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A base model and pairs of random lengths, of which those with even numbers are preferred."""
    folder = tmp_path_factory.mktemp("inputs")
    save_tiny_model("smollm2-135m", folder / "model")
    draw = random.Random(0)
    for split, count in (("train", 123), ("eval", 9)):
        Dataset.from_list([drawn(draw) for _ in range(count)]).to_parquet(str(folder / f"{split}.parquet"))
    AutoTokenizer.from_pretrained(folder / "model").save_pretrained(folder / "tokenizer")
    return folder


def drawn(draw: random.Random) -> dict[str, list[int]]:
    prompt, *answers = [[draw.randint(3, 45) for _ in range(draw.randint(4, 30))] for _ in range(3)]
    chosen, rejected = ([2 * i + odd for i in answer] for odd, answer in enumerate(answers))
    return pair(prompt, chosen, rejected)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, inputs):
    """A training that nothing happened to."""
    whole = Training(tmp_path_factory.mktemp("whole"), inputs, **SETTINGS)
    whole.finish()
    return whole


def test_a_short_training_makes_the_preferred_answers_the_likelier_ones(whole):
    summary = whole.summary()
    assert summary["curve"][0]["loss"] < math.log(2) + 0.05
    assert summary["eval_loss"] < 0.5
    assert summary["reward_accuracy"] == 1 and summary["reward_margin"] > 1


@pytest.mark.long("trainings that are cancelled")
def test_a_cancelled_training_that_goes_on_ends_with_the_same_weights(tmp_path, inputs):
    settings = {**SETTINGS, "num_train_epochs": 4}
    whole, training = Training(tmp_path / "whole", inputs, **settings), Training(tmp_path, inputs, **settings)
    whole.finish()
    process = training.start()
    until(lambda: "'loss'" in training.words(), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == INTERRUPTED, training.words()[-3000:]
    done = training.steps_saved()[-1]
    assert 0 < done < whole.summary()["steps"], "it was cancelled too early or too late to prove anything"
    assert training.finish() == (whole.output / ADAPTER).read_bytes()
    assert training.summary()["curve"] == whole.summary()["curve"]
    assert training.summary()["reward_margin"] == whole.summary()["reward_margin"]


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
    for name in ("eval_loss", "reward_accuracy", "reward_margin"):
        assert two.summary()[name] == pytest.approx(one.summary()[name], rel=1e-5)


def test_activations_that_are_computed_twice_change_nothing(tmp_path, inputs):
    found = []
    for again in (False, True):
        settings = {
            **SETTINGS,
            "activation_checkpointing": again,
            "max_steps": 4,
            "eval_steps": 2,
            "learning_rate": 1e-2,
        }
        job = TrainingJob.model_validate(
            {
                "where": "tiny.yaml",
                "lora": {"r": 4, "lora_dropout": 0.1},
                "training": {**settings, "logging_steps": 1, "early_stopping_patience": 2},
                "max_length": 64,
                "chat_dataset": inputs,
                "base_model": inputs / "model",
                "model_kwargs": {"dtype": "float32", "device_map": {"": "cpu"}, "trust_remote_code": False},
                "output": tmp_path / str(again),
            }
        )
        summary = train(job, Progress(lambda line: None, ""))
        found.append([summary[key] for key in ("curve", "eval_curve", "reward_accuracy", "reward_margin")])
    assert found[0] == found[1]
