"""Rows of data sets on a hub, read by a process of its own: the client reads the hub's address when it is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

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
Dataset.from_list(mixed, on_mixed_types="use_json").push_to_hub("owner/mixed-table")
null = "".join(json.dumps({"question": str(n), "answer": "x" * 4096, "hint": None}) + "\\n" for n in range(3000))
files = {
    "owner/late": {"a.jsonl": null, "b.jsonl": json.dumps({"question": "z", "answer": "y", "hint": "w", "level": 1})},
    "owner/faulty": {
        "rows.jsonl": '{"question": "a", "answer": "b"}\\n{"question": "a", "ans\\n{"question": "c", "answer": 1}'
    },
    "owner/words": {"rows.csv": "question,answer\\nNothing?,None\\nAvailable?,NA\\nWhich?,007\\n"},
    "owner/tabs": {"rows.tsv": "question\\tanswer\\na?\\tnull\\n"},
    "owner/semicolons": {
        "rows.csv": "Frage;Antwort\\n1,5?;2\\n",
        "README.md": "---\\nconfigs:\\n- config_name: default\\n  data_files: rows.csv\\n  sep: ';'\\n---\\n",
    },
}
for repo, contents in files.items():
    HfApi().create_repo(repo, repo_type="dataset")
    for name, content in contents.items():
        HfApi().upload_file(path_or_fileobj=content.encode(), path_in_repo=name, repo_id=repo, repo_type="dataset")
"""

BOMBS = """
import io
from huggingface_hub import HfApi
import pyarrow.parquet as pq
from tests.finetuning.dataset.test_bounded_memory import of_zeros, repeated
for name, bomb in {"zeros.parquet": of_zeros, "repeated.parquet": repeated}.items():
    repo = "owner/" + name.partition(".")[0]
    HfApi().create_repo(repo, repo_type="dataset")
    whole = io.BytesIO()
    pq.write_table(bomb(), whole, compression="zstd")
    assert whole.tell() < 20_000
    HfApi().upload_file(path_or_fileobj=whole.getvalue(), path_in_repo=name, repo_id=repo, repo_type="dataset")
HfApi().create_repo("owner/damaged", repo_type="dataset")
damaged = b"PAR1" + bytes(50) + b"PAR1"
HfApi().upload_file(path_or_fileobj=damaged, path_in_repo="a.parquet", repo_id="owner/damaged", repo_type="dataset")
"""

READ = """
import json, os, resource, sys
from huggingface_hub import HfApi
from finetuning.errors import FinetuningError
from finetuning.recipe.source import SourceSpec
from finetuning.dataset.revisions import resolve
from finetuning.dataset.raw_dataset import read
from finetuning.dataset.raw_rows import Unreadable

api = HfApi(endpoint=os.environ["HF_ENDPOINT"], token=os.environ.get("HF_TOKEN") or False)
def taken():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

for asked in json.loads(sys.argv[1]):
    before, counted = taken(), asked.pop("counted", False)
    seed = asked.pop("seed", 1)
    source = SourceSpec(**{"hub": "owner/sums", "format": "question-answer", **asked})
    try:
        revision = resolve(source, api=api, where="x.yaml: dataset.sources[0]")
        items = read(source, revision=revision, seed=seed, api=api, where="x.yaml: dataset.sources[0]")
        rows = (
            [f"{item.file}:{item.line}", item.reason if isinstance(item, Unreadable) else json.loads(item.text)]
            for item in items
        )
        said = sum(1 for _ in rows) if counted else list(rows)
    except FinetuningError as error:
        said = str(error)
    print(json.dumps([said, taken() - before] if counted else said))
"""


def child(endpoint: str, home: Path, code: str, *arguments: str, token: str = "hf_owner") -> list:
    """What each line that the code prints says, in a process that has the server for its hub and caches in `home`."""
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    env = {**os.environ, **quiet, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_TOKEN": token}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
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


@pytest.mark.long("thousands of rows, streamed")
def test_streamed_rows_are_drawn_by_the_seed_alone_and_not_only_from_the_beginning(hub, tmp_path):
    streamed = {"rows": 50, "streaming": True}
    first, other = child(hub, tmp_path / "a", READ, json.dumps([streamed, {**streamed, "seed": 2}]))
    (again,) = child(hub, tmp_path / "b", READ, json.dumps([streamed]))
    assert first == again != other
    questions = [row["question"] for _, row in first]
    assert len(set(questions)) == 50 and len({int(question.split()[0]) // 1000 for question in questions}) == 3
    assert [place for place, _ in first] == [f"owner/sums train:{n}" for n in range(1, 51)]


def test_rows_that_differ_in_shape_come_back_as_they_were(hub, tmp_path):
    ways = [{}, {"rows": 2, "streaming": True}]
    asked = [{"hub": hub, **way} for hub in ("owner/mixed", "owner/mixed-table") for way in ways]
    *lines, stored, streamed = child(hub, tmp_path, READ, json.dumps(asked))
    assert [row for _, row in lines[0]] == [row for _, row in stored]
    assert [row for _, row in stored] == [
        {"question": "a", "answer": {"b": [1, "x"]}},
        {"question": "b", "answer": "c"},
    ]
    assert sorted(row["question"] for _, row in streamed) == ["a", "b"]


def test_files_of_lines_are_read_as_they_are_written(hub, tmp_path):
    asked = [{"hub": f"owner/{name}"} for name in ("late", "words", "tabs", "semicolons")]
    late, words, tabs, semicolons = child(hub, tmp_path, READ, json.dumps([*asked[:3], asked[3] | {"format": None}]))
    # Of a column that is empty in the first 10 MiB, `datasets` would know no other kind.
    assert len(late) == 3001 and late[0][1]["hint"] is None
    assert late[-1] == ["owner/late train:3001", {"question": "z", "answer": "y", "hint": "w", "level": 1}]
    assert [row["answer"] for _, row in words] == ["None", "NA", "007"]
    assert [row for _, row in tabs] == [{"question": "a?", "answer": "null"}]
    assert [row for _, row in semicolons] == [{"Frage": "1,5?", "Antwort": 2}]


def test_a_line_that_is_no_row_is_one_unreadable_line_and_not_the_end(hub, tmp_path):
    whole, drawn = child(hub, tmp_path, READ, json.dumps([{"hub": "owner/faulty"}, {"hub": "owner/faulty", "rows": 1}]))
    lost = ["owner/faulty train:2", "no valid JSON: unexpected end of data"]
    assert whole == [
        ["owner/faulty train:1", {"question": "a", "answer": "b"}],
        lost,
        ["owner/faulty train:3", {"question": "c", "answer": 1}],
    ]
    assert lost in drawn and len(drawn) == 2


@pytest.mark.long("gigabytes of zeros")
def test_a_few_bytes_of_a_table_on_the_hub_never_take_gigabytes_of_memory_or_of_the_disk(hub, tmp_path):
    child(hub, tmp_path / "push", BOMBS)
    whole = [{"hub": f"owner/{name}", "counted": True} for name in ("zeros", "repeated", "damaged")]
    asked = [*whole, *({**keys, "rows": 2, "streaming": True} for keys in whole[1:])]
    zeros, repeated, damaged, drawn, broken = child(hub, tmp_path / "read", READ, json.dumps(asked))
    for name, (said, _) in {"zeros": zeros, "repeated": drawn}.items():
        assert f"x.yaml: dataset.sources[0].hub: owner/{name} at " in said and "more than 2 GiB of memory" in said
    assert repeated[0] == 1000
    for said, _ in (damaged, broken):
        assert said.startswith("x.yaml: dataset.sources[0].hub: owner/damaged at")
    assert max(taken for _, taken in (zeros, repeated, drawn, damaged)) < 2600
    assert sum(path.stat().st_size for path in (tmp_path / "read").rglob("*") if path.is_file()) < 10 << 20


@pytest.mark.long("thousands of rows, streamed")
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
