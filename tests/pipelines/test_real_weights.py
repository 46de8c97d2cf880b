"""The main line on the real weights: what was published loads through the unmodified client and answers the same."""

import json

import pandas as pd
import pytest
import yaml

from finetuning.recipe import find
from resources.hub_server.local import local_hub
from tests.pipelines.command import World

# Runs alone, as a stranger's program would: only the hub's address, a token and the repo id.
ANSWER = """
import json, sys
from bitsandbytes.nn import Linear4bit
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

repo_id, revision, conversations = sys.argv[1], sys.argv[2], json.load(sys.stdin)
tokenizer = AutoTokenizer.from_pretrained(repo_id, revision=revision)
model = AutoPeftModelForCausalLM.from_pretrained(repo_id, revision=revision)
for module in model.modules():
    if isinstance(module, Linear4bit):
        # Some CPUs have a kernel that rounds the weights' scales; trained and evaluated is what GPUs compute as well.
        module.support_avx512bf16_for_cpu = False
answers = []
for messages in conversations:
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    answers.append(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
config = model.peft_config["default"]
print("ANSWERS" + json.dumps([config.base_model_name_or_path, config.revision, answers]))
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A world in which SmolLM2 was trained for a few steps and published, and the manifests of that run."""
    world = World(tmp_path_factory.mktemp("real"))
    recipe = yaml.safe_load(find()["smollm2-135m"].read_text())
    recipe["dataset"]["sources"][0]["rows"] = 40
    recipe["dataset"]["eval"] = {"fraction": 0.1}
    recipe["training"]["max_steps"] = 3
    recipe["evaluation"] |= {
        "rows": 4,
        "max_new_tokens": 12,
        "batch_size": 1,
        "gate": {"final-answer": {"min_gain": -1.0}},
    }
    world.write_recipe("few-steps", recipe)
    run = world.materialize("few-steps")
    assert run.returncode == 0, run.stdout[-4000:]
    return world, world.artifacts("few-steps")


def test_the_published_model_answers_as_the_evaluated_one_did(published, tmp_path):
    world, manifests = published
    samples = pd.read_parquet(world.folder("evaluation_report", "few-steps") / "samples.parquet")
    summary = manifests["published_repo"]["summary"]
    system = manifests["chat_dataset"]["sections"]["dataset"]["sources"]["train-00"]["system"]
    conversations = [
        [{"role": "system", "content": system}, {"role": "user", "content": question}]
        for question in samples["question"]
    ]
    with local_hub(world.root / "hub", grace=1.0) as hub:
        environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path)}
        answered = world.python(
            "-c", ANSWER, summary["repo_id"], summary["tag"], stdin=json.dumps(conversations), **environment
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


def test_no_artifact_shows_the_token(published):
    world, _ = published
    token = (world.root / "hub" / "token").read_text().strip()
    for path in (world.root / "artifacts").rglob("*"):
        if path.is_file() and path.suffix in {".json", ".md"}:
            assert token not in path.read_text(errors="replace"), path
