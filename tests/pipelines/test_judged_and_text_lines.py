"""Judged answers and plain text through the public command: from rows as they are published to a published adapter."""

import json

import pytest

from assets import chat_dataset, lora_adapter
from finetuning.recipe.loading import load
from resources.artifacts import Artifacts
from tests.pipelines.command import World
from tests.pipelines.main_line import PASSES
from tests.tiny_models import ZEPHYR, save_tiny_model


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def recipe(world):
    base_model = save_tiny_model("smollm2-135m", world.root / "tiny-llama", ZEPHYR)
    return {
        "summary": "Says numbers",
        "base_model": {"repo": str(base_model)},
        "lora": {"r": 4},
        "training": {
            "max_steps": 15,
            "per_device_train_batch_size": 4,
            "learning_rate": 1.0e-2,
            "activation_checkpointing": False,
            "logging_steps": 5,
        },
        "evaluation": {"rows": 8, "max_new_tokens": 4},
        "hub": {"repo": "tiny", "license": "mit"},
    }


def dataset_of(world, name: str, rows: list[dict]) -> dict:
    (world.root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"sources": [{"files": [str(world.root / f"{name}.jsonl")]}], "eval": {"fraction": 0.25}}


def prompt(number: int) -> str:
    return f"What is {number} and {number * 7 % 31} and {number * number % 37}?"


def judged(number: int) -> dict:
    is_good = number % 2 == 0
    completion = f"#### {number}" if is_good else "Who would know that?"
    return {"prompt": prompt(number), "completion": completion, "label": is_good}


@pytest.mark.long("the whole line once more")
def test_one_command_takes_judged_answers_to_a_published_adapter(world, recipe, monkeypatch):
    gate = {"metrics": ["exact-match"], "gate": PASSES}
    changes = {
        "dataset": dataset_of(world, "judged", [judged(number) for number in range(48)]),
        "training": recipe["training"] | {"method": "kto"},
        "evaluation": recipe["evaluation"] | gate,
        "hub": {"repo": "tiny-judged", "license": "mit"},
    }
    world.write_recipe("judged", recipe | changes)
    run = world.materialize_warm("judged")
    assert run.returncode == 0, run.stdout[-4000:]
    assert "answers were judged good and" in run.stdout
    found = world.artifacts("judged")
    adapter = found["lora_adapter"]["summary"]
    assert adapter["reward_chosen"] > 0 > adapter["reward_rejected"] and adapter["reward_margin"] > 0.1
    assert adapter["eval_loss"] < 0.5 and adapter["kl"] >= 0 and adapter["predicted_memory_mb"] > 0
    report = json.loads((world.folder("evaluation_report", "judged") / "report.json").read_text())
    assert report["rows"] <= 8
    answers = (world.folder("evaluation_report", "judged") / "report.md").read_text()
    assert "#### " in answers and "Who would know" not in answers.split("**Reference**")[1].split("**Answers**")[0]
    card = (world.folder("published_repo", "judged") / "README.md").read_text()
    assert "towards answers that were judged good and away from bad ones (KTO, beta 0.1, kto loss)" in card
    monkeypatch.setenv("FINETUNING_RECIPES", str(world.root / "recipes"))
    shown = lora_adapter.metadata_of(Artifacts(root=str(world.root / "artifacts")).current("lora_adapter", "judged"))
    assert {"reward_chosen", "reward_rejected", "reward_margin", "kl"} <= shown.keys()


@pytest.mark.long("the whole line once more")
def test_one_command_takes_text_to_a_published_adapter(world, recipe, monkeypatch):
    rows = [{"text": f"### Human: {prompt(n)}### Assistant: It is {n}, and so it goes on."} for n in range(48)]
    longer = {"training": recipe["training"] | {"max_steps": 80}, "hub": {"repo": "tiny-text", "license": "mit"}}
    changes = {"dataset": dataset_of(world, "text", rows), **longer}
    world.write_recipe("text", recipe | changes)
    run = world.materialize_warm("text")
    assert run.returncode == 0, run.stdout[-4000:]
    assert "48 of 48 texts look like conversations" in run.stdout
    assert "evaluation.metrics: perplexity, for all 8 eval rows are texts" in run.stdout
    adapter = world.artifacts("text")["lora_adapter"]["summary"]
    assert adapter["eval_loss"] < adapter["curve"][0]["loss"] - 0.5
    report = json.loads((world.folder("evaluation_report", "text") / "report.json").read_text())
    assert report["verdict"]["passed"] and {"perplexity", "chrf"} <= report["metrics"].keys()
    card = (world.folder("published_repo", "text") / "README.md").read_text()
    assert "supervised, on all tokens of texts" in card
    monkeypatch.setenv("FINETUNING_RECIPES", str(world.root / "recipes"))
    store = Artifacts(root=str(world.root / "artifacts"))
    shown = chat_dataset.metadata_of(store.current("chat_dataset", "text"), load("text"))
    assert "look like conversations" in shown["notes"].value


def test_judged_answers_without_kto_are_one_message(world, recipe):
    world.write_recipe("sft", recipe | {"dataset": dataset_of(world, "sft", [judged(number) for number in range(9)])})
    run = world.materialize_warm("sft", select="raw_dataset")
    assert run.returncode == 1
    assert "says in 'label' which answers are good" in run.stdout and "Write training.method: kto" in run.stdout
