"""Faults of the data through the public command: shown with place and remedy, and never trained on."""

import json

import pytest

from tests.pipelines.command import World
from tests.tiny_models import ZEPHYR, save_tiny_model

DATA = "raw_dataset,chat_dataset"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    base_model = save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("base") / "tiny-llama", ZEPHYR)
    return {
        "summary": "Adds numbers",
        "base_model": {"repo": str(base_model)},
        "lora": {"r": 4},
        "training": {"max_steps": 1, "per_device_train_batch_size": 2},
        "hub": {"repo": "sums", "license": "mit"},
    }


def rows(*questions: str) -> list[dict]:
    return [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": f"#### {number}"}]}
        for number, question in enumerate(questions)
    ]


def data(world: World, name: str, lines: list[dict | str]) -> str:
    path = world.root / f"{name}.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


def many() -> list[dict]:
    return rows(*(f"What is {number} and {number * 7 % 31} together?" for number in range(20)))


def dataset(*files: str, **keys) -> dict:
    return {"sources": [{"files": list(files)}], "eval": {"fraction": 0.2}, **keys}


def test_a_bad_row_ends_the_run_before_anything_is_trained_however_that_is_selected(world, recipe):
    bad = {"messages": [{"role": "user", "content": "2 + 3?"}, {"role": "robot", "content": "5"}]}
    file = data(world, "bad", [*many(), bad])
    world.write_recipe("bad", recipe | {"dataset": dataset(file)})
    run = world.materialize_warm("bad", select="*")
    assert run.returncode == 1
    assert "checks.bad_rows: 1 of 21 rows hold no conversation (4.76%; 0.00% may be): " in run.stdout
    assert f"{file}:21:messages[1]" in run.stdout
    assert "unknown role 'robot'" in run.stdout and "`checks: {bad_rows: {limit: 0.0477}}`" in run.stdout
    assert {"raw_dataset", "chat_dataset"} <= set(world.artifacts("bad"))
    assert "lora_adapter" not in world.artifacts("bad")
    told = world.results("bad", "--after", "1")
    assert told.returncode == 4 and "bad failed by its recipe or data:\nbad_rows: " in told.stdout
    assert world.materialize_warm("bad", select="quantized_base_model").returncode == 0
    alone = world.materialize_warm("bad", select="lora_adapter")
    assert alone.returncode == 1 and "checks.bad_rows: 1 of 21 rows" in alone.stdout
    assert "lora_adapter" not in world.artifacts("bad")
    world.write_recipe("bad", recipe | {"dataset": dataset(file), "checks": {"bad_rows": {"limit": 0.0477}}})
    allowed = world.materialize_warm("bad", select=DATA)
    assert allowed.returncode == 0 and allowed.stdout.count(": reused,") == 2
    summary = world.artifacts("bad")["chat_dataset"]["summary"]
    assert summary["train_rows"] + summary["eval_rows"] == 20
    assert [(record["reason"], record["rows"]) for record in summary["dropped"]] == [("unknown role 'robot'", 1)]


def test_a_line_that_is_no_row_ends_the_run(world, recipe):
    file = data(world, "broken", [*many(), '{"messages": [{"role": '])
    world.write_recipe("broken", recipe | {"dataset": dataset(file)})
    run = world.materialize_warm("broken", select=DATA)
    assert run.returncode == 1
    assert "checks.unreadable_rows: no row can be read from 1 of 21 lines" in run.stdout and f"{file}:21" in run.stdout
    alone = world.materialize_warm("broken", select="chat_dataset")
    assert alone.returncode == 1 and "checks.unreadable_rows" in alone.stdout


def test_a_question_in_train_and_eval_ends_the_run_and_is_left_out_of_train(world, recipe):
    exam = data(world, "exam", many()[:3])
    spec = {"sources": [{"files": [data(world, "train", many())]}], "eval": {"sources": [{"files": [exam]}]}}
    world.write_recipe("leak", recipe | {"dataset": spec})
    run = world.materialize_warm("leak", select=DATA)
    assert run.returncode == 1
    assert "checks.overlap: the questions of 3 of 20 train rows are in eval as well" in run.stdout
    assert world.artifacts("leak")["chat_dataset"]["summary"]["train_rows"] == 17


def test_a_question_of_eval_that_a_longer_conversation_answers_on_its_way_is_left_out_of_train(world, recipe):
    longer = [{"role": "user", "content": "And now?"}, {"role": "assistant", "content": "#### 1"}]
    train = [*many(), {"messages": many()[4]["messages"] + longer}]
    files = {name: data(world, name, lines) for name, lines in (("long", train[5:]), ("short", many()[4:5]))}
    spec = {"sources": [{"files": [files["long"]]}], "eval": {"sources": [{"files": [files["short"]]}]}}
    world.write_recipe("way", recipe | {"dataset": spec})
    run = world.materialize_warm("way", select=DATA)
    assert run.returncode == 1
    assert "checks.overlap: the questions of 1 of 16 train rows are in eval as well" in run.stdout
    assert f"{files['long']}:16" in run.stdout


def test_a_warning_is_in_the_log_and_ends_nothing(world, recipe):
    world.write_recipe("twice", recipe | {"dataset": dataset(data(world, "twice", many() + many()[:1]))})
    run = world.materialize_warm("twice", select=DATA)
    assert run.returncode == 0
    assert "checks.duplicates: 1 of 21 rows repeat another one word for word" in run.stdout
    assert "Write `dataset.dedup: exact`" in run.stdout


def test_files_that_nothing_can_be_read_from_are_one_message(world, recipe):
    for name, content in (("empty", ""), ("prose", "Dear reader,\nthis is no data.\n")):
        (world.root / f"{name}.jsonl").write_text(content)
        world.write_recipe(name, recipe | {"dataset": dataset(str(world.root / f"{name}.jsonl"))})
        run = world.materialize_warm(name, select=DATA)
        assert run.returncode == 1
        assert f"{name}.yaml: dataset.sources[0].files: " in run.stdout, run.stdout[-3000:]
        assert "Traceback" not in run.stdout
