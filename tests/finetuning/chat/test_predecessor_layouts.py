"""The published layouts of the data sets that the shipped recipes name, pushed to a hub and read back from it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from finetuning.dataset.formats import NotChosen, to_messages
from finetuning.recipe.dataset import sources
from finetuning.recipe.loading import load
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.source import SourceSpec
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[3]
OWNERS = "Menouar,openai,openbmb,HuggingFaceH4,Vezora"
RECIPES = ("falcon-7b", "falcon-7b-saqr", "gemma-2b", "mistral-7b-fennec", "phi-2", "zephyr-7b-beta")
ROWS = 6  # of each split

PUSH = f"""
from datasets import Dataset, Features, Value, List
from huggingface_hub import HfApi
text, texts, rows = Value("string"), List(Value("string")), range({ROWS})

def push(repo, columns, features=None, config="default", split="train", private=False):
    made = Dataset.from_list([columns(n) for n in rows], features=Features(features) if features else None)
    made.push_to_hub(repo, config, split=split, private=private)

push("Menouar/LinearEquations", lambda n: {{"Problem": f"Solve for y: {{n}} = y .", "Solution": f"#### {{n}}"}})
for config in ("main", "socratic"):
    for split in ("train", "test"):
        def sum_of(n, name=f"{{config}} {{split}}"):
            return {{"question": f"{{name}} {{n}} + 1?", "answer": f"<<{{n}}+1={{n + 1}}>>\\n#### {{n + 1}}"}}
        push("openai/gsm8k", sum_of, config=config, split=split)

rated = {{"Rating": text, "Rationale": text}}
typed = {{**rated, "Rationale For Rating": text, "Type": texts}}
completion = {{
    "annotations": {{"helpfulness": typed, "honesty": rated, "instruction_following": rated, "truthfulness": typed}},
    "critique": text, "custom_system_prompt": text, "fine-grained_score": Value("float64"), "model": text,
    "overall_score": Value("float64"), "principle": text, "response": text,
}}
def answer(n, model):
    rating = {{"Rating": "5", "Rationale": "It is right."}}
    return {{
        "annotations": {{
            "helpfulness": {{**rating, "Rationale For Rating": "It helps.", "Type": ["1"]}}, "honesty": rating,
            "instruction_following": rating, "truthfulness": {{**rating, "Rationale For Rating": "", "Type": ["None"]}},
        }},
        "critique": "Good.", "custom_system_prompt": f"Be helpful, {{model}}.", "fine-grained_score": 4.75,
        "model": model, "overall_score": 8.5, "principle": "helpfulness", "response": f"{{model}} says {{n}}.",
    }}
def feedback(n):
    models = ["falcon-40b-instruct", "gpt-4" if n % 2 else "bard", "starchat", "wizardlm-7b"]
    return {{
        "source": "sharegpt", "instruction": f"What is {{n}}?", "models": models,
        "completions": [answer(n, model) for model in models],
        "correct_answers": ["None"], "incorrect_answers": ["None"],
    }}
push("openbmb/UltraFeedback", feedback, {{
    "source": text, "instruction": text, "models": texts, "completions": [completion], "correct_answers": texts,
    "incorrect_answers": texts,
}}, private=True)

def chat(n):
    turns = [("user", f"Hello {{n}}"), ("assistant", "Hi."), ("user", f"{{n}} + 1?"), ("assistant", f"{{n + 1}}")]
    messages = [{{"content": content, "role": role}} for role, content in turns]
    return {{"prompt": f"Hello {{n}}", "prompt_id": f"{{n:064x}}", "messages": messages}}
for split in ("train_sft", "test_sft", "train_gen", "test_gen"):
    push("HuggingFaceH4/ultrachat_200k", chat, split=split)
HfApi().update_repo_settings("HuggingFaceH4/ultrachat_200k", repo_type="dataset", gated="manual")
push("Vezora/Tested-143k-Python-Alpaca", lambda n: {{
    "instruction": f"Write a program that prints {{n}}.", "input": "In Python." if n % 2 else "",
    "output": f"print({{n}})",
}})
"""

# Reads the sources of the recipes and of what they would be without a format, and says what happened.
READ = f"""
import json, os, sys
from pathlib import Path
from huggingface_hub import HfApi
from finetuning.errors import FinetuningError
from finetuning.dataset.format_recognition import recognise_all
from finetuning.recipe.dataset import DatasetSpec
from finetuning.recipe.loading import load
from finetuning.dataset.revisions import resolve_all
from finetuning.dataset.raw_dataset import write_raw

api = HfApi(endpoint=os.environ["HF_ENDPOINT"], token=os.environ.get("HF_TOKEN") or False)
folder, said = Path(sys.argv[1]), {{}}

def tried(name, dataset):
    try:
        write_raw(dataset, resolve_all(dataset, api=api, where=name), folder / name, api=api, file=name)
        said[name] = recognise_all(folder / name, dataset, name)
    except FinetuningError as error:
        said[name] = str(error)

def changed(dataset, **keys):
    def change(source):
        return source.model_copy(update={{"rows": source.rows and 4, **keys}})
    held_out = dataset.eval.sources and tuple(map(change, dataset.eval.sources))
    evaluation = dataset.eval.model_copy(update={{"sources": held_out}})
    return dataset.model_copy(update={{"sources": tuple(map(change, dataset.sources)), "eval": evaluation}})

for name in {RECIPES}:
    tried(f"{{name}}-named", changed(load(name).dataset))
    tried(f"{{name}}-unnamed", changed(load(name).dataset, format=None))
gated = changed(load("falcon-7b-saqr").dataset).sources[1]
tried("gated", DatasetSpec(sources=(gated,)))
(folder / "said.json").write_text(json.dumps(said))
"""


def child(endpoint: str, folder: Path, code: str, token: str) -> None:
    """The code ran in a process that has the server for its hub, and caches of its own."""
    folder.mkdir()
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    env = {**os.environ, **quiet, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "cache"), "HF_TOKEN": token}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The address of a hub that has the data sets, one of them private and one gated."""
    state = tmp_path_factory.mktemp("hub")
    accounts = ["--token", f"hf_owner=owner,{OWNERS}", "--token", "hf_stranger=stranger"]
    command = [sys.executable, "-m", "resources.hub_server", "--state", str(state), "--port", "0", *accounts]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            endpoint = process.stdout.readline().split()[2].rstrip(",")
            child(endpoint, state / "push", PUSH, "hf_owner")
            yield endpoint
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def owners(hub, tmp_path_factory) -> Path:
    """What the owner reads: a folder of raw rows for each recipe, and `said.json`."""
    folder = tmp_path_factory.mktemp("read") / "owner"
    child(hub, folder, READ, "hf_owner")
    return folder


def said_to(hub: str, folder: Path, token: str) -> dict[str, str]:
    child(hub, folder, READ, token)
    return json.loads((folder / "said.json").read_text())


def conversations(folder: Path, recipe: Recipe, stem: str) -> tuple[list[str], list[list[dict]]]:
    """The places of the rows of one source, and the messages of those that the recipe wants."""
    source: SourceSpec = sources(recipe.dataset)[stem][0]
    rows = pq.read_table(folder / f"{stem}.parquet").to_pylist()
    found = []
    for row in rows:
        try:
            found.append(to_messages(json.loads(row["row"]), source))
        except NotChosen:
            continue
    return [f"{row['file']}:{row['line']}" for row in rows], found


def test_every_recipe_reads_its_sources_with_and_without_a_named_format(owners):
    said = json.loads((owners / "said.json").read_text())
    for name in RECIPES:
        formats = {stem: source.format for stem, (source, _) in sources(load(name).dataset).items()}
        assert said[f"{name}-named"] == formats
        for stem in formats:
            named, unnamed = (owners / f"{name}-{kind}" / f"{stem}.parquet" for kind in ("named", "unnamed"))
            assert pq.read_table(named).equals(pq.read_table(unnamed))
        assert said[f"{name}-unnamed"] == formats


def test_linear_equations(owners):
    places, found = conversations(owners / "falcon-7b-named", load("falcon-7b"), "train-00")
    assert len(places) == 4 and all(place.startswith("Menouar/LinearEquations train:") for place in places)
    number = int(places[0].rpartition(":")[2]) - 1
    assert found[0] == [
        {"role": "user", "content": f"Solve for y: {number} = y ."},
        {"role": "assistant", "content": f"#### {number}"},
    ]


def test_gsm8k(owners):
    for stem, split in (("train-00", "train"), ("eval-00", "test")):
        places, found = conversations(owners / "phi-2-named", load("phi-2"), stem)
        assert places == [f"openai/gsm8k main {split}:{n}" for n in range(1, ROWS + 1)]
        assert [turn["role"] for turn in found[0]] == ["system", "user", "assistant"]
        assert found[2][1]["content"] == f"main {split} 2 + 1?" and found[2][2]["content"] == "<<2+1=3>>\n#### 3"


def test_ultrafeedback(owners):
    places, found = conversations(owners / "falcon-7b-saqr-named", load("falcon-7b-saqr"), "train-00")
    assert len(places) == ROWS and len(found) == ROWS // 2
    assert found[0] == [
        {"role": "system", "content": "Be helpful, gpt-4."},
        {"role": "user", "content": "What is 1?"},
        {"role": "assistant", "content": "gpt-4 says 1."},
    ]
    row = json.loads(pq.read_table(owners / "falcon-7b-saqr-named/train-00.parquet")["row"][1].as_py())
    assert list(row) == ["source", "instruction", "models", "completions", "correct_answers", "incorrect_answers"]
    assert row["completions"][1]["annotations"]["helpfulness"]["Type"] == ["1"]
    assert row["completions"][1]["fine-grained_score"] == 4.75


def test_ultrachat(owners):
    places, found = conversations(owners / "mistral-7b-fennec-named", load("mistral-7b-fennec"), "train-01")
    assert len(places) == len(found) == 4 and all("ultrachat_200k train_sft:" in place for place in places)
    number = int(places[0].rpartition(":")[2]) - 1
    assert [turn["content"] for turn in found[0]] == [f"Hello {number}", "Hi.", f"{number} + 1?", f"{number + 1}"]


def test_python_alpaca(owners):
    places, found = conversations(owners / "gemma-2b-named", load("gemma-2b"), "train-00")
    assert places[0] == "Vezora/Tested-143k-Python-Alpaca train:1" and len(found) == ROWS
    assert found[0][0]["content"] == "Write a program that prints 0."
    assert found[1] == [
        {"role": "user", "content": "Write a program that prints 1.\n\nIn Python."},
        {"role": "assistant", "content": "print(1)"},
    ]


@pytest.mark.parametrize("token", ["", "hf_stranger"])
def test_private_and_gated_data_sets_are_for_those_who_may_read_them(hub, tmp_path, token):
    said = said_to(hub, tmp_path / "reader", token)
    private = said["falcon-7b-saqr-named"]
    assert (
        private.startswith("falcon-7b-saqr-named: dataset.sources[0]: ")
        and "has no dataset openbmb/UltraFeedback" in private
    )
    assert ("a token was given" if token else "no token was given") in private
    assert said["gated"].startswith("gated: dataset.sources[0]: HuggingFaceH4/ultrachat_200k on ")
    assert "is gated: its owner decides who may read it" in said["gated"]
    assert said["phi-2-named"] == {"train-00": "question-answer", "eval-00": "question-answer"}
