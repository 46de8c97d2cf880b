"""Rows of data sets on a hub, read by a process of its own: the client reads the hub's address when it is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PUSH = """
import json
from datasets import Dataset
from huggingface_hub import HfApi
rows = [{"question": f"{n} + 1?", "answer": f"#### {n + 1}"} for n in range(3000)]
Dataset.from_list(rows).push_to_hub("owner/sums", num_shards=3)
Dataset.from_list(rows[:5]).push_to_hub("owner/quiet", private=True)
HfApi().create_repo("owner/mixed", repo_type="dataset")
mixed = [{"question": "a", "answer": {"b": [1, "x"]}}, {"question": "b", "answer": "c"}]
HfApi().upload_file(
    path_or_fileobj="".join(json.dumps(row) + "\\n" for row in mixed).encode(),
    path_in_repo="rows.jsonl", repo_id="owner/mixed", repo_type="dataset",
)
"""

READ = """
import json, os, sys
from huggingface_hub import HfApi
from finetuning.errors import FinetuningError
from finetuning.recipe.dataset import SourceSpec
from finetuning.dataset.revisions import resolve
from finetuning.dataset.raw_dataset import read

api = HfApi(endpoint=os.environ["HF_ENDPOINT"], token=os.environ.get("HF_TOKEN") or False)
for asked in json.loads(sys.argv[1]):
    seed = asked.pop("seed", 1)
    source = SourceSpec(**{"hub": "owner/sums", "format": "question-answer", **asked})
    try:
        revision = resolve(source, api=api, where="x.yaml: dataset.sources[0]")
        items = read(source, revision=revision, seed=seed, api=api, where="x.yaml: dataset.sources[0]")
        said = [[f"{item.file}:{item.line}", json.loads(item.text)] for item in items]
    except FinetuningError as error:
        said = str(error)
    print(json.dumps(said))
"""


def child(endpoint: str, home: Path, code: str, *arguments: str, token: str = "hf_owner") -> list:
    """What each line that the code prints says, in a process that has the server for its hub and caches in `home`."""
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    env = {**os.environ, **quiet, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_TOKEN": token}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The address of a hub that has the data sets."""
    state = tmp_path_factory.mktemp("hub")
    command = [sys.executable, "-m", "resources.hub_server", "--state", str(state), "--port", "0"]
    command += ["--token", "hf_owner=owner"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            endpoint = process.stdout.readline().split()[2].rstrip(",")
            child(endpoint, state / "push", PUSH)
            yield endpoint
        finally:
            process.terminate()


def test_all_rows_of_a_data_set_come_in_their_order_with_their_numbers(hub, tmp_path):
    (rows,) = child(hub, tmp_path, READ, "[{}]")
    assert len(rows) == 3000
    assert rows[0] == ["owner/sums train:1", {"question": "0 + 1?", "answer": "#### 1"}]
    assert [place for place, _ in rows] == [f"owner/sums train:{n}" for n in range(1, 3001)]


def test_some_rows_are_drawn_by_the_seed_and_keep_their_numbers(hub, tmp_path):
    asked = [{"rows": 50}, {"rows": 50}, {"rows": 50, "seed": 2}]
    first, again, other = child(hub, tmp_path, READ, json.dumps(asked))
    assert first == again != other and len(first) == len({place for place, _ in first}) == 50
    for place, row in first:
        assert row["question"] == f"{int(place.rpartition(':')[2]) - 1} + 1?"


def test_streamed_rows_are_drawn_by_the_seed_alone_and_not_only_from_the_beginning(hub, tmp_path):
    streamed = {"rows": 50, "streaming": True}
    first, other = child(hub, tmp_path / "a", READ, json.dumps([streamed, {**streamed, "seed": 2}]))
    (again,) = child(hub, tmp_path / "b", READ, json.dumps([streamed]))
    assert first == again != other
    questions = [row["question"] for _, row in first]
    assert len(set(questions)) == 50 and len({int(question.split()[0]) // 1000 for question in questions}) == 3
    assert [place for place, _ in first] == [f"owner/sums train:{n}" for n in range(1, 51)]


def test_rows_that_differ_in_shape_come_back_as_they_were(hub, tmp_path):
    mixed = {"hub": "owner/mixed"}
    stored, streamed = child(hub, tmp_path, READ, json.dumps([mixed, {**mixed, "rows": 2, "streaming": True}]))
    assert [row for _, row in stored] == [
        {"question": "a", "answer": {"b": [1, "x"]}},
        {"question": "b", "answer": "c"},
    ]
    assert sorted(row["question"] for _, row in streamed) == ["a", "b"]


def test_more_rows_than_there_are_is_an_error_streamed_or_not_unless_they_are_the_most(hub, tmp_path):
    asked = [{"rows": 3001}, {"rows": 3001, "streaming": True}]
    asked += [{**keys, "at_most": True} for keys in asked]
    stored, streamed, *all_there = child(hub, tmp_path, READ, json.dumps(asked))
    assert [len(rows) for rows in all_there] == [3000, 3000]
    assert stored == streamed and stored.startswith(
        "x.yaml: dataset.sources[0].rows: 3001 rows are asked for, and owner/sums (train) has 3000. Ask for at most"
    )


@pytest.mark.parametrize("streaming", [{}, {"streaming": True, "rows": 5}], ids=["stored", "streamed"])
def test_what_the_hub_does_not_have_is_an_error_with_its_place(hub, tmp_path, streaming):
    asked = [{"split": "tset"}, {"config": "mian"}, {"revision": "v9"}, {"hub": "owner/smus"}]
    said = child(hub, tmp_path, READ, json.dumps([{**keys, **streaming} for keys in asked]))
    assert said[0].startswith("x.yaml: dataset.sources[0].split: owner/sums at ") and "tset" in said[0]
    assert said[1].startswith("x.yaml: dataset.sources[0].config: owner/sums at ") and "default" in said[1]
    assert "has no revision 'v9'" in said[2] and "has no dataset owner/smus" in said[3]


def test_a_private_data_set_is_read_with_the_token_and_not_without(hub, tmp_path):
    asked = json.dumps([{"hub": "owner/quiet"}, {"hub": "owner/quiet", "rows": 5, "streaming": True}])
    assert [len(rows) for rows in child(hub, tmp_path / "a", READ, asked)] == [5, 5]
    for said in child(hub, tmp_path / "b", READ, asked, token=""):
        assert "has no dataset owner/quiet, or this account may not see it" in said and "no token was given" in said
