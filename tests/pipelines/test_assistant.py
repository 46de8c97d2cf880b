"""What was trained and published is talked to by one command: from its artifacts, from its repo, and merged."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from huggingface_hub import HfApi

from resources.hub_server.local import local_hub
from tests.pipelines.command import ROOT, World
from tests.pipelines.main_line import PASSES
from tests.tiny_models import ZEPHYR, save_tiny_model, talkative
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.long("a recipe that is published, and a process for each way to talk to it")

QUESTION = "Solve for x: 2x = 8."


def recipe(base_model):
    return {
        "summary": "A tiny model",
        "base_model": {"repo": str(base_model), "dtype": "float32"},
        "dataset": {
            "sources": [
                {
                    "generator": "linear-equations",
                    "format": "question-answer",
                    "columns": {"question": "Problem", "answer": "Solution"},
                    "rows": 40,
                    "system": "Solve it.",
                }
            ],
            "eval": {"fraction": 0.25},
        },
        "lora": {"r": 4},
        "training": {"max_steps": 3, "learning_rate": 3.0e-2, "bf16": False, "per_device_train_batch_size": 4},
        "evaluation": {
            "metrics": ["exact-match"],
            "rows": 6,
            "max_new_tokens": 8,
            "gate": PASSES,
        },
        "merge": {"dtype": "float32", "min_agreement": 0.0, "max_kl": 10.0},
        "hub": {"repo": "tiny-adapter", "license": "apache-2.0"},
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A recipe whose adapter and merged model are published."""
    world = World(tmp_path_factory.mktemp("talk"))
    base = talkative(save_tiny_model("smollm2-135m", world.root / "tiny-llama", ZEPHYR))
    world.write_recipe("tiny", recipe(base))
    done = world.materialize_warm("tiny")
    assert done.returncode == 0, done.stdout[-3000:]
    return world


def talk(world, *source, typed=QUESTION):
    """What the command printed to whom types `typed`, and its exit code."""
    done = world.python("-m", "resources.assistant", "chat", *source, stdin=f"{typed}\n")
    return done.returncode, done.stdout


def samples(world):
    """Question, and what each side answered in the exam."""
    import pandas as pd

    return pd.read_parquet(world.folder("evaluation_report", "tiny") / "samples.parquet").to_dict("records")


def merged_repo(world):
    return world.artifacts("tiny")["published_merged_repo"]["summary"]["repo_id"]


def test_each_source_answers_as_in_the_exam(world):
    sample = samples(world)[0]
    # Texts of a random model are no text for a terminal; what of them is one has to be the same.
    expected = re.sub(r"[^\w]", "", sample["tuned"])
    for source in (["tiny"], ["tiny", "--published"], ["local/tiny-adapter"]):
        code, said = talk(world, *source, typed=sample["question"])
        assert code == 0 and expected in re.sub(r"[^\w]", "", said), (source, said)
        assert "passed:" in said.replace("\n", " ")
    code, said = talk(world, "tiny", "--side", "base", typed=sample["question"])
    assert code == 0 and re.sub(r"[^\w]", "", sample["base"]) in re.sub(r"[^\w]", "", said)


def test_a_merged_model_answers_by_itself(world):
    code, said = talk(world, merged_repo(world))
    assert code == 0 and "tiny-adapter-merged at" in said.replace("\n", " ")
    code, said = talk(world, merged_repo(world), "--side", "base")
    assert code == 1 and "has no base beside it" in said and "Traceback" not in said


def test_what_is_not_there_is_told_in_a_sentence(world):
    asked = {
        ("nobody",): "nobody: no such recipe",
        ("local/nix",): "has no model local/nix",
        ("local/tiny-adapter", "--revision", "nix"): "local/tiny-adapter",
        ("tiny", "--revision", "main"): "--revision goes with OWNER/REPO",
    }
    for source, why in asked.items():
        code, said = talk(world, *source)
        assert code == 1 and why in said and "Traceback" not in said, (source, said)


def test_weights_that_nobody_examined_are_said_to_be_none(world):
    report = world.folder("evaluation_report", "tiny") / "report.json"
    before = report.read_text()
    try:
        report.write_text(json.dumps(json.loads(before) | {"files": {"adapter_model.safetensors": "0" * 64}}))
        assert "not examined" in talk(world, "tiny")[1]
    finally:
        report.write_text(before)


def test_an_adapter_that_was_changed_is_not_talked_to(world):
    weights = world.folder("lora_adapter", "tiny") / "adapter_model.safetensors"
    before = weights.read_bytes()
    try:
        weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        code, said = talk(world, "tiny")
        assert code == 1 and "adapter_model.safetensors" in said and "Traceback" not in said
    finally:
        weights.write_bytes(before)


def test_published_weights_that_the_report_is_not_about_are_not_talked_to(world):
    with local_hub(world.root / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        head = api.model_info("local/tiny-adapter").sha
        weights = world.folder("lora_adapter", "tiny") / "adapter_model.safetensors"
        changed = weights.read_bytes()
        api.create_branch("local/tiny-adapter", branch="changed", revision=head)
        api.upload_file(
            path_or_fileobj=changed[:-1] + bytes([changed[-1] ^ 1]),
            path_in_repo=weights.name,
            repo_id="local/tiny-adapter",
            revision="changed",
        )
    code, said = talk(world, "local/tiny-adapter", "--revision", "changed")
    assert code == 1 and "its report is about weights with the sha256" in said


def test_the_server_says_where_it_is_and_ends_when_it_is_told_to(world):
    with world.running("-m", "resources.assistant", "serve", "tiny", "--port", "0") as log:
        said = until(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()), log.read_text)
        body = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}]}
        request = urllib.request.Request(
            f"{said[0]}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        answer = json.loads(until(lambda: urllib.request.urlopen(request).read(), log.read_text))
        assert answer["model"] == "tiny" and answer["usage"]["completion_tokens"] > 0
        port = said[0].rpartition(":")[2]
        taken = world.python("-m", "resources.assistant", "serve", "tiny", "--port", port)
        assert taken.returncode == 1 and f"Port {port} is taken" in taken.stdout


def test_ctrl_c_ends_the_server_without_a_traceback(world):
    command = [sys.executable, "-m", "resources.assistant", "serve", "tiny", "--port", "0"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=world.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # What a shell put into the background ignores Ctrl-C, and so do its children, until the server asks for it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout
        said = ""
        while "and http://" not in said:
            said += process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        rest = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode in (0, 130) and "Traceback" not in rest
