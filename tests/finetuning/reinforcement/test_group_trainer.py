"""Groups of answers: trl's own losses and gradients, and the same weights whenever a training was stopped."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from finetuning.base_model.loading import load_model
from finetuning.lora.config import lora_config
from finetuning.progress import Progress
from finetuning.recipe.lora import LoraSpec
from finetuning.reinforcement import group_trainer
from finetuning.reinforcement.group_trainer import GroupTrainer, at_the_left
from finetuning.reinforcement.rewards import Rewards
from finetuning.training.checkpoints import adopt, keep
from finetuning.training.interruption import Interrupted
from tests.finetuning.reinforcement.group_jobs import QUESTIONS, questions, rows_of, tiny_model, trained

ADAPTER = "adapter_model.safetensors"
# Of sums in float32 that are made in another order, after three steps that move weights by hundredths.
ROUNDING = 1e-5
# By plain gradients, so that equal weights are equal gradients.
ARGUMENTS = {
    "max_steps": 3,
    "learning_rate": 0.05,
    "optim": "sgd",
    "max_grad_norm": 0,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "seed": 1,
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "save_strategy": "no",
    "disable_tqdm": True,
    "gradient_checkpointing": False,
    "num_generations": 4,
    "max_completion_length": 12,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "top_k": 0,
}
ALONE = "each answer read by itself"


class OfTable:
    """Draws the same answers for whoever asks: of one group all are alike, so that it has no signal."""

    def _tokenize_prompts(self, prompts):
        return prompts, None, {}

    def _generate_single_turn(self, prompt_ids, *args, **settings):
        random = torch.Generator().manual_seed(len(prompt_ids) + self.state.global_step)
        lengths = torch.randint(2, 11, (len(prompt_ids),), generator=random).tolist()
        drawn = {}
        for number, (prompt, length) in enumerate(zip(prompt_ids, lengths, strict=True)):
            ids = torch.randint(5, 200, (length,), generator=random).tolist()
            ended = [self._tokenizer.eos_token_id] * (number % 2)
            drawn[number] = [30, 31, 32] if tuple(prompt) == tuple(prompt_ids[-1]) else ids + ended
        return [drawn[number] for number in range(len(prompt_ids))], None


class Ours(OfTable, GroupTrainer):
    pass


class Theirs(OfTable, GRPOTrainer):
    def _get_train_sampler(self, dataset=None):
        return [i for i in range(4) for _ in range(4)] * 4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def by_trainer(kind, tiny, out, more, **own):
    model, tokenizer = load_model(tiny), AutoTokenizer.from_pretrained(tiny)
    rewards = Rewards({"chrf": 1.0, "length": 0.5}, tokenizer, 12)
    rows = rows_of(tokenizer)
    prompts = [
        {"prompt": [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100]}
        | {"reference": row["messages"][-1]["content"]}
        for row in rows
    ]
    own = own or {"reward_funcs": rewards.functions()}
    trainer = kind(
        model=model,
        args=GRPOConfig(str(out), **(ARGUMENTS | {"reward_weights": [1.0, 0.5]} | more)),
        train_dataset=Dataset.from_list(rows if kind is Ours else prompts),
        processing_class=tokenizer,
        peft_config=lora_config(LoraSpec(r=4, lora_dropout=0.0), model, [], "tiny.yaml"),
        **own,
    )
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) / 9)
    trainer.train()
    curve = [entry for entry in trainer.state.log_history if "reward" in entry]
    return curve, {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}


KINDS = {
    "dapo": {},
    "grpo, held to where it started": {"loss_type": "grpo", "beta": 0.3},
    "dr_grpo, unscaled": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    # In one pass: which answers share one is each side's own draw.
    "bnpo, hot": {
        "loss_type": "bnpo",
        "temperature": 1.7,
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 1,
    },
    "learned from twice": {"num_iterations": 2, "max_steps": 4, "epsilon": 0.05, "epsilon_high": 0.1},
    "cut off": {"mask_truncated_completions": True},
    ALONE: {"temperature": 1.5},
}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_those_of_trls_own_trainer(tiny, tmp_path, kind, monkeypatch):
    if kind == ALONE:
        monkeypatch.setattr(group_trainer, "reads_once", lambda model: False)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    own = {
        "rewards": Rewards({"chrf": 1.0, "length": 0.5}, tokenizer, 12),
        "order": "sequential",
        "own_head": True,
        "drawn_together": 16,
    }
    ours, weights = by_trainer(Ours, tiny, tmp_path / "ours", KINDS[kind], **own)
    theirs, expected = by_trainer(Theirs, tiny, tmp_path / "theirs", KINDS[kind])
    assert len(ours) == len(theirs) >= 2
    for mine, other in zip(ours, theirs, strict=True):
        for name in (
            "reward",
            "reward_std",
            "frac_reward_zero_std",
            "rewards/chrf/mean",
            "completions/mean_length",
        ):
            assert mine.get(name) == pytest.approx(other.get(name), abs=1e-5), name
        if kind != "cut off":  # trl counts 0 for a pass whose answers are all cut off
            # Of a group without a signal no entropy is known.
            assert mine["entropy"] == pytest.approx(other["entropy"], rel=0.05)
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert mine["frac_reward_zero_std"] == 0.25
    moved = max((weights[name] - expected[name]).abs().max() for name in weights)
    for name, weight in expected.items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-3, atol=ROUNDING, msg=f"{name}, {moved}")
    assert any(entry["grad_norm"] > 1e-3 for entry in ours), "nothing was learned, so equal weights prove nothing"


def test_rows_are_moved_to_the_left_with_their_answers_as_labels():
    ids = torch.tensor([[0, 0, 5, 6, 7, 0], [1, 2, 3, 4, 8, 9]])
    found = at_the_left(ids, torch.tensor([[0, 0, 1, 1, 1, 0], [1] * 6]), 2)
    assert found["input_ids"].tolist() == [[5, 6, 7, 0, 0, 0], [1, 2, 3, 4, 8, 9]]
    assert found["labels"].tolist() == [[-100, -100, 7, -100, -100, -100], [-100] * 4 + [8, 9]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    questions(folder, tiny_model(folder / "tiny"))
    return folder


TWICE = {"num_iterations": 2, "max_steps": 6}


@pytest.fixture(scope="module")
def whole(folder):
    return trained(folder, folder / "tiny", TWICE, output=folder / "whole")


def same(summary, whole, adapter, folder):
    assert (adapter / ADAPTER).read_bytes() == (folder / "whole" / ADAPTER).read_bytes()
    for key in ("curve", "reward_curve", "eval_loss", "tokens"):
        assert summary[key] == whole[key]


class EndsAt(Progress):
    """Asks the process to end as the line of some step is said for so many times."""

    def __init__(self, word, times):
        super().__init__(lambda line: None, "")
        self.word, self.left = word, times

    def update(self, state):
        if self.word in state:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGTERM)


# While answers are drawn, after a step that is learned from again, and while nothing is at work.
@pytest.mark.parametrize(
    ("word", "times"), [("step 3/6: 0/8", 5), ("step 3/6 ·", 1), ("step 4/6 ·", 1), ("step 1/6: 0", 1)]
)
def test_a_training_that_is_ended_anywhere_ends_with_the_same_weights(folder, whole, tmp_path, word, times):
    ends = EndsAt(word, times)
    with pytest.raises(Interrupted):
        trained(folder, folder / "tiny", TWICE, progress=ends, output=tmp_path / "a")
    assert ends.left == 0
    same(trained(folder, folder / "tiny", TWICE, output=tmp_path / "a"), whole, tmp_path / "a", folder)


def test_one_that_was_killed_between_two_passes_over_the_same_answers_does_too(folder, whole, tmp_path):
    trained(folder, folder / "tiny", TWICE, output=tmp_path / "a", until=0.5)  # after step 3 of 6
    keep(tmp_path / "a.checkpoints", tmp_path / "kept")
    adopt(tmp_path / "kept", tmp_path / "b.checkpoints")
    same(trained(folder, folder / "tiny", TWICE, output=tmp_path / "b"), whole, tmp_path / "b", folder)


def test_one_whose_answers_are_held_to_where_it_started_does_too(folder, whole, tmp_path):
    start = {"from": str(folder / "whole"), "lora_dropout": 0.1}
    held = {"beta": 0.5, "max_steps": 3, "num_iterations": 1}
    one = trained(folder, folder / "tiny", held, lora=start, output=tmp_path / "one")
    with pytest.raises(Interrupted):
        trained(folder, folder / "tiny", held, EndsAt("step 2/3: 0/8", 5), start, output=tmp_path / "two")
    two = trained(folder, folder / "tiny", held, lora=start, output=tmp_path / "two")
    assert (tmp_path / "one" / ADAPTER).read_bytes() == (tmp_path / "two" / ADAPTER).read_bytes()
    assert one["reward_curve"] == two["reward_curve"]


def test_what_was_counted_before_it_was_ended_is_in_the_curve(folder, tmp_path):
    seldom = {"max_steps": 4, "logging_steps": 2}
    one = trained(folder, folder / "tiny", seldom, output=tmp_path / "one")
    with pytest.raises(Interrupted):
        trained(folder, folder / "tiny", seldom, EndsAt("step 2/4: 0/8", 5), output=tmp_path / "two")
    two = trained(folder, folder / "tiny", seldom, output=tmp_path / "two")
    assert [point["step"] for point in one["reward_curve"]] == [2, 4] and two["reward_curve"] == one["reward_curve"]


def test_answers_are_drawn_without_the_dropout_that_they_are_learned_with(folder, tmp_path, monkeypatch):
    seen, draw = [], group_trainer.draw

    def drawn(model, *asked):
        seen.append([module.training for module in model.modules()])
        return draw(model, *asked)

    monkeypatch.setattr(group_trainer, "draw", drawn)
    trained(folder, folder / "tiny", {"max_steps": 2}, output=tmp_path / "a")
    assert len(seen) == 2 and not any(map(any, seen))


def test_divergence_is_measured_from_the_very_numbers_that_training_goes_on_from(tiny):
    model = get_peft_model(load_model(tiny), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    model.add_adapter("ref", model.peft_config["default"])  # as trl does, of numbers that it may have rounded
    GroupTrainer.keep_start(SimpleNamespace(model=model))
    own, kept = ({n.replace(f".{side}.", "."): p for n, p in model.named_parameters() if f".{side}." in n}
        for side in ("default", "ref"))  # fmt: skip
    assert own and all(torch.equal(own[name], kept[name]) for name in own)
    assert all(own[name].data_ptr() != kept[name].data_ptr() for name in own)


def test_smaller_passes_draw_fewer_answers_at_once_and_make_the_same_groups(folder, tmp_path):
    said = []

    class Lines(Progress):
        def update(self, state):
            said.append(state)

    smaller = {"batch_size": {"rows": 2, "accumulation": 4}}
    summary = trained(
        folder, folder / "tiny", {"max_steps": 2}, Lines(said.append, ""), output=tmp_path / "a", **smaller
    )
    assert [point["step"] for point in summary["reward_curve"]] == [1, 2]
    assert any("step 1/2: 4/8 answers drawn, 4 at work" in line for line in said)
    assert (summary["per_device_train_batch_size"], summary["gradient_accumulation_steps"]) == (2, 4)


def test_the_curve_has_each_reward_by_itself_and_how_many_groups_say_nothing(whole):
    points = whole["reward_curve"]
    assert [point["step"] for point in points] == [1, 3, 5], "answers are drawn for two steps"
    for point in points:
        assert point["reward"] == pytest.approx(point["reward/chrf"] + 0.1 * point["reward/length"], abs=1e-6)
        assert {"spread", "length", "cut_off", "no_signal", "entropy"} <= set(point)


@pytest.mark.parametrize("answer", ["It is #### 5", "no number"])
def test_steps_without_any_signal_change_nothing_and_are_counted(folder, tmp_path, answer):
    rows = rows_of(AutoTokenizer.from_pretrained(folder / "tiny"), [answer] * len(QUESTIONS))
    questions(tmp_path, folder / "tiny", rows)
    all_wrong = {"reward": ["exact-match"], "max_steps": 2}
    summary = trained(tmp_path, folder / "tiny", all_wrong, output=tmp_path / "a")
    assert [point["no_signal"] for point in summary["reward_curve"]] == [1, 1]
    assert not any("entropy" in point for point in summary["reward_curve"]), "nothing was read, so none is known"
    assert summary["train_loss"] == 0


def test_an_adapter_that_is_gone_on_from_is_what_its_divergence_is_measured_from(folder, whole, tmp_path):
    held = {"beta": 0.5, "max_steps": 2, "num_iterations": 1}
    summary = trained(
        folder, folder / "tiny", held, lora={"from": str(folder / "whole"), "lora_dropout": 0.0}, output=tmp_path / "a"
    )
    first, second = (point["kl"] for point in summary["reward_curve"])
    assert first == pytest.approx(0, abs=1e-6) and second > 1e-5
    assert {path.name for path in (tmp_path / "a").iterdir() if path.is_dir()} <= {"tensorboard"}, "no second adapter"
