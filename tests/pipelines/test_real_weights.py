"""The main line on the real weights: what was published loads through the unmodified client and answers the same."""

import json
import re
import socket
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from huggingface_hub import HfApi

from finetuning.recipe.loading import find
from resources.hub_server.local import local_hub
from tests.pipelines.command import ROOT, World

pytestmark = pytest.mark.long("real weights, through the whole line")

# Runs alone, as a stranger's program would: no more than the code of the card, asked the questions of the exam.
ASK = """
import contextlib, io, json, sys
import torch
from bitsandbytes.nn import Linear4bit

from finetuning.base_model.loading import compute_in

code, dtype, conversations = json.load(sys.stdin)
setup, _, use = code.partition("messages = ")
loaded = {}
exec(setup, loaded)
for module in loaded["model"].modules():
    if isinstance(module, Linear4bit):
        # Some CPUs have a kernel that rounds the weights' scales; trained and evaluated is what GPUs compute as well.
        module.support_avx512bf16_for_cpu = False
compute_in(loaded["model"], getattr(torch, dtype))  # as the exam did on this machine
answers = []
for messages in conversations:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec("".join(use.partition("inputs = ")[1:]), loaded | {"messages": messages})
    answers.append(said.getvalue().removesuffix("\\n"))
config = loaded["model"].peft_config["default"]
print("ANSWERS" + json.dumps([config.base_model_name_or_path, config.revision, answers]))
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A world in which SmolLM2 was trained for a few steps and published, and the manifests of that run."""
    world = World(tmp_path_factory.mktemp("real"))
    recipe = yaml.safe_load(find()["smollm2-135m"].read_text())
    recipe["dataset"]["sources"][0]["rows"] = 40
    recipe["dataset"]["eval"] = {"fraction": 0.15}
    recipe["training"] |= {"max_steps": 3, "warmup_steps": 0}
    recipe["evaluation"] |= {
        "rows": 6,
        "max_new_tokens": 12,
        "batch_size": 1,
        "gate": {"final-answer": {"min_gain": -1.0}},
    }
    world.write_recipe("few-steps", recipe)
    run = world.materialize_warm("few-steps")
    assert run.returncode == 0, run.stdout[-4000:]
    return world, world.artifacts("few-steps")


def test_the_published_model_answers_as_the_evaluated_one_did_by_the_code_on_its_card(published, tmp_path):
    world, manifests = published
    samples = pd.read_parquet(world.folder("evaluation_report", "few-steps") / "samples.parquet")
    summary = manifests["published_repo"]["summary"]
    system = manifests["chat_dataset"]["sections"]["dataset"]["sources"]["train-00"]["system"]
    conversations = [
        [{"role": "system", "content": system}, {"role": "user", "content": question}]
        for question in samples["question"]
    ]
    with local_hub(world.root / "hub", grace=1.0) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        card = api.hf_hub_download(summary["repo_id"], "README.md", revision=summary["tag"], cache_dir=tmp_path)
        (code,) = re.findall(r"```python\n(.*?)```", Path(card).read_text(), re.DOTALL)
        environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path)}
        answered = world.python(
            "-c",
            ASK,
            stdin=json.dumps([code, manifests["lora_adapter"]["summary"]["dtype"], conversations]),
            **environment,
        )
    assert answered.returncode == 0, answered.stdout[-3000:]
    base, revision, answers = json.loads(answered.stdout.split("ANSWERS")[1])
    assert (base, revision) == (summary["base"]["repo_id"], summary["base"]["commit"])
    assert answers == list(samples["tuned"])
    assert list(samples["tuned"]) != list(samples["base"]), (
        "the adapter changes nothing, so equal answers prove nothing"
    )


def test_real_weights_lose_little_when_they_are_quantized(published):
    summary = published[1]["quantized_base_model"]["summary"]
    assert summary["parameters"] == 134_515_008
    assert summary["size_mb"] < 0.45 * summary["full_size_mb"]
    assert 0.05 < summary["quantization_error"] < 0.12
    assert len(summary["layers"]) == 30 * 7


def test_the_stop_token_is_supervised_in_every_row(published):
    world, manifests = published
    rows = pd.read_parquet(world.folder("chat_dataset", "few-steps") / "train.parquet")
    stop = 2  # <|im_end|>
    assert manifests["chat_dataset"]["summary"]["stop_token"] == "<|im_end|>"
    assert all([label for label in labels if label != -100][-1] == stop for labels in rows["labels"])


def test_nothing_that_was_published_names_this_machine(published, tmp_path):
    world, manifests = published
    summary = manifests["published_repo"]["summary"]
    with local_hub(world.root / "hub", grace=1.0) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        for repo_id in (summary["repo_id"], summary["base"]["repo_id"]):
            api.snapshot_download(repo_id, local_dir=tmp_path / repo_id, ignore_patterns="*.safetensors")
    files = [path for path in tmp_path.rglob("*") if path.is_file() and ".cache" not in path.parts]
    names = {path.name for path in files}
    assert {"README.md", "config.json", "tokenizer.json", "recipe.yaml", "report.md"} <= names
    for path in files:
        content = path.read_bytes()
        assert not [text for text in (world.root, ROOT, Path.home(), sys.prefix) if str(text).encode() in content], path
        assert f".{socket.gethostname()}." not in f"{path.name}."


def test_no_artifact_shows_the_token(published):
    world, _ = published
    token = (world.root / "hub" / "token").read_text().strip()
    for path in (world.root / "artifacts").rglob("*"):
        if path.is_file() and path.suffix in {".json", ".md"}:
            assert token not in path.read_text(errors="replace"), path
