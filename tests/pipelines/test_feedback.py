"""What people say of answers: kept by the server, seen by the sensor, learned by the next run, never examined with."""

import json
import re
import urllib.error
import urllib.request

import pandas as pd
import pytest

from tests.pipelines.command import World
from tests.pipelines.main_line import PASSES
from tests.pipelines.ticks import Daemon
from tests.tiny_models import ZEPHYR, save_tiny_model, talkative
from tests.waiting import until

pytestmark = pytest.mark.long("two runs of a recipe, and a server between them")


def recipe(base_model):
    rows = {
        "generator": "linear-equations",
        "format": "question-answer",
        "columns": {"question": "Problem", "answer": "Solution"},
        "rows": 40,
    }
    return {
        "summary": "A tiny model that is told",
        "base_model": {"repo": str(base_model), "dtype": "float32"},
        "dataset": {"sources": [rows, {"feedback": "tiny", "every": 2}], "eval": {"fraction": 0.25}},
        "lora": {"r": 4},
        "training": {"max_steps": 2, "bf16": False, "per_device_train_batch_size": 4},
        "evaluation": {
            "metrics": ["exact-match"],
            "rows": 6,
            "max_new_tokens": 4,
            "gate": PASSES,
        },
        "hub": {"repo": "tiny-adapter", "license": "apache-2.0"},
        "feedback": {},
        "schedule": True,
    }


def split_of(world, name):
    return pd.read_parquet(world.folder("chat_dataset", "tiny") / f"{name}.parquet")


def post(address, data):
    request = urllib.request.Request(address, json.dumps(data).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def said_of(question, correction):
    return {
        "messages": [{"role": "user", "content": question}],
        "answers": [{"model": "tiny", "content": "wrong"}, {"model": "tiny/base", "content": "wrong too"}],
        "of": "tiny",
        "correction": correction,
    }


def test_feedback_is_learned_once_there_is_enough_of_it_and_never_examined_with(tmp_path):
    world = World(tmp_path, {"FINETUNING_FEEDBACK": str(tmp_path / "feedback")})
    world.write_recipe("tiny", recipe(talkative(save_tiny_model("smollm2-135m", tmp_path / "tiny-llama", ZEPHYR))))
    done = world.materialize_warm("tiny")
    assert done.returncode == 0, done.stdout[-3000:]
    before, first = split_of(world, "eval"), world.artifacts("tiny")
    examined = before.iloc[0]["messages"][0]["content"]
    with (
        Daemon(world) as daemon,
        world.running("-m", "resources.assistant", "serve", "tiny", "--port", "0") as log,
    ):
        cursor = daemon.tick("local_files_changed")["cursor"]
        address = until(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()), log.read_text)[0]
        about = json.loads(until(lambda: urllib.request.urlopen(f"{address}/assistant").read(), log.read_text))
        assert about["feedback"]["name"] == "tiny" and str(tmp_path / "feedback") in about["feedback"]["notice"]
        post(f"{address}/feedback", said_of("What is 2 + 3?", "It is 5."))
        tick = daemon.tick("local_files_changed", cursor)
        assert tick["runs"] == {}, "one entry is not enough"
        post(f"{address}/feedback", said_of(examined, "A question of the exam."))
        for _ in range(2):  # once it is at rest
            tick = daemon.tick("local_files_changed", tick["cursor"])
        assert set(tick["runs"]) == {"tiny"} and "tiny: 2 entries" in tick["seen"].get("tiny", str(tick))
        with pytest.raises(urllib.error.HTTPError) as error:
            post(f"{address}/feedback", said_of("What is my key?", "AKIA" + "Z7QK3M5N8P2R4T6V"))
        assert error.value.code == 400 and b"AWS Access Key" in error.value.read()
    done = world.materialize_warm("tiny")
    assert done.returncode == 0, done.stdout[-3000:]
    after, second = split_of(world, "eval"), world.artifacts("tiny")
    assert after["messages"].map(str).tolist() == before["messages"].map(str).tolist()
    learned = split_of(world, "train")["messages"].map(str)
    assert learned.str.contains("It is 5.").sum() == 1
    assert not learned.str.contains("A question of the exam.").any()
    for asset in ("raw_dataset", "lora_adapter", "published_repo"):
        assert first[asset]["fingerprint"] != second[asset]["fingerprint"]
    told = world.python("-m", "resources.assistant", "feedback", "tiny").stdout
    ids = re.findall(r'"id":"(\w+)"', told)
    assert len(ids) == 2 and "AKIA" not in told
    assert "1 deleted" in world.python("-m", "resources.assistant", "feedback", "tiny", "--delete", ids[0]).stdout
    assert len(world.python("-m", "resources.assistant", "feedback", "tiny").stdout.splitlines()) == 1
