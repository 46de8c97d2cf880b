"""Preferences through the public command: from rows as they are published to a published adapter that learned them."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
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
    pq.write_table(pa.Table.from_pylist([row(number) for number in range(40)]), world.root / "prefs.parquet")
    return {
        "summary": "Prefers numbers to excuses",
        "base_model": {"repo": str(base_model)},
        "dataset": {"sources": [{"files": [str(world.root / "prefs.parquet")]}], "eval": {"fraction": 0.2}},
        "lora": {"r": 4},
        "training": {
            "method": "dpo",
            "max_steps": 12,
            "per_device_train_batch_size": 4,
            "learning_rate": 1.0e-2,
            "activation_checkpointing": False,
        },
        "evaluation": {
            "metrics": ["exact-match"],
            "rows": 6,
            "max_new_tokens": 4,
            "gate": PASSES,
        },
        "hub": {"repo": "tiny-preferences", "license": "mit"},
    }


def row(number: int) -> dict:
    """A row with the columns of ultrafeedback_binarized."""
    prompt = f"What is {number} and {number * 7 % 31} and {number * number % 37}?"
    sides = {
        side: [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        for side, answer in (("chosen", f"#### {number}"), ("rejected", "Who would know that?"))
    }
    scores = {"score_chosen": 9.0, "score_rejected": 3.0}
    return {"prompt": prompt, "prompt_id": str(number), **sides, "messages": sides["chosen"], **scores}


def test_one_command_takes_preferences_from_rows_to_a_published_adapter(world, recipe):
    world.write_recipe("prefer", recipe)
    run = world.materialize_warm("prefer")
    assert run.returncode == 0, run.stdout[-4000:]
    found = world.artifacts("prefer")
    assert found["chat_dataset"]["summary"]["train_rows"] == 32 and len(found) == 6
    adapter = found["lora_adapter"]["summary"]
    assert adapter["reward_accuracy"] == 1 and adapter["reward_margin"] > 0.1
    assert adapter["eval_loss"] < math.log(2) - 0.05
    card = (world.folder("published_repo", "prefer") / "README.md").read_text()
    assert "direct preference optimization of chosen over rejected answers (DPO, beta 0.1, sigmoid loss)" in card


def test_what_is_shown_has_both_answers_and_the_rewards(world, recipe, monkeypatch):
    monkeypatch.setenv("FINETUNING_RECIPES", str(world.root / "recipes"))
    store = Artifacts(root=str(world.root / "artifacts"))
    shown = lora_adapter.metadata_of(store.current("lora_adapter", "prefer"))
    assert shown["reward_accuracy"] == 1 and shown["reward_margin"] > 0.1
    preview = chat_dataset.metadata_of(store.current("chat_dataset", "prefer"), load("prefer"))["preview"].value
    assert preview.count("Chosen:") == preview.count("Rejected:") == 3
    assert preview.index("Chosen:") < preview.index("Rejected:")


def test_data_without_preferences_is_one_message(world, recipe):
    (world.root / "rows.jsonl").write_text(json.dumps({"question": "2 + 3?", "answer": "5"}) + "\n")
    world.write_recipe("none", recipe | {"dataset": {"sources": [{"files": [str(world.root / "rows.jsonl")]}]}})
    run = world.materialize_warm("none", select="raw_dataset")
    assert run.returncode == 1
    assert "dpo learns from preference" in run.stdout and "has the columns question, answer" in run.stdout
    assert "preference lacks prompt, chosen, rejected" in run.stdout
