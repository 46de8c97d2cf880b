"""Names, paths and hashes that lead out of the hub's folders are refused, and cards that the Hub would not take."""

import json

import pytest
import yaml
from huggingface_hub.errors import BadRequestError

from tests.resources.committing import add
from tests.resources.serving import Server


def test_a_readme_with_broken_metadata_is_refused(hub: Server):
    repo = hub.api().create_repo("alice/card").repo_id
    with pytest.raises((ValueError, BadRequestError), match="YAML"):
        hub.api().create_commit(repo, [add("README.md", "---\na: [\n---\n")], commit_message="Card")


RESULT = {
    "task": {"type": "text-generation"},
    "dataset": {"type": "openai/gsm8k", "name": "GSM8K"},
    "metrics": [{"type": "exact_match", "value": 0.5}],
}
CARD = {
    "license": "mit",
    "base_model": "microsoft/phi-2",
    "base_model_relation": "adapter",
    "datasets": ["openai/gsm8k", "imdb"],
    "tags": ["lora"],
    "model-index": [{"name": "phi-2-basic-maths", "results": [RESULT]}],
}
REFUSED = {
    "a licence that it does not know": (
        {"license": "agpl-3.0-or-later"},
        r'"license" must be one of \[apache-2\.0, mit',
    ),
    "one of several licences": ({"license": ["mit", "MIT"]}, '"license" must be one of'),
    "a base model that is no id": (
        {"base_model": "/models/Phi 2"},
        '"base_model" with value "/models/Phi 2" is not valid. Use a model id',
    ),
    "no data set": ({"datasets": [None]}, '"datasets" with value "None" is not valid. Use a dataset id'),
    "another relation": ({"base_model_relation": "lora"}, '"base_model_relation" must be one of'),
    "tags of numbers": ({"tags": [1]}, '"tags" must be an array of strings'),
    "two tasks": ({"pipeline_tag": ["a", "b"]}, '"pipeline_tag" must be a string'),
    "results without a name": (
        {"model-index": [{"results": [RESULT]}]},
        r'"model-index\[0\]\.name" is required',
    ),
    "a result of no data set": (
        {"model-index": [{"name": "a", "results": [{**RESULT, "dataset": {"name": "GSM8K"}}]}]},
        r'"model-index\[0\]\.results\[0\]\.dataset\.type" is required',
    ),
    "a metric without a value": (
        {"model-index": [{"name": "a", "results": [{**RESULT, "metrics": [{"type": "accuracy"}]}]}]},
        r'"model-index\[0\]\.results\[0\]\.metrics\[0\]\.value" is required',
    ),
}


def readme(card: dict) -> str:
    return f"---\n{yaml.safe_dump(card)}---\n# Hello\n"


def test_a_card_as_the_hub_wants_it_is_accepted(hub: Server):
    repo = hub.api().create_repo("alice/right-card").repo_id
    hub.api().create_commit(repo, [add("README.md", readme(CARD))], commit_message="Card")
    assert hub.api().model_info(repo).card_data.base_model == "microsoft/phi-2"


@pytest.mark.parametrize("case", REFUSED)
def test_a_card_is_refused_by_name_for_what_the_hub_does_not_take(hub: Server, case: str):
    changed, message = REFUSED[case]
    repo = hub.api().create_repo(f"alice/{case.replace(' ', '-')}").repo_id
    with pytest.raises(ValueError, match=message):
        hub.api().create_commit(repo, [add("README.md", readme(CARD | changed))], commit_message="Card")


@pytest.mark.parametrize(
    "body",
    [
        {"name": ".."},
        {"name": "../../escaped"},
        {"name": "x", "organization": "../../alice"},
        {"name": "x", "type": "../../alice"},
        {"name": "a\0b"},
        {"name": None},
    ],
)
def test_a_repo_name_that_leaves_its_folder_is_refused(hub: Server, body: dict):
    before = sorted(hub.state.parent.rglob("*"))
    status, answer = hub.ask("POST", "/api/repos/create", json.dumps(body).encode(), Authorization="Bearer hf_alice")
    assert status in (400, 403) and b"error" in answer
    assert sorted(hub.state.parent.rglob("*")) == before


@pytest.mark.parametrize("oid", ["../token", "/etc/hostname", "../blobs/x", ".", ""])
def test_a_large_file_whose_hash_is_a_path_is_refused(hub: Server, oid: str):
    repo = hub.api().create_repo("alice/oids", exist_ok=True).repo_id
    lines = [
        {"key": "header", "value": {"summary": "steal"}},
        {"key": "lfsFile", "value": {"path": "stolen", "algo": "sha256", "oid": oid, "size": 1}},
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    status, _ = hub.ask("POST", f"/api/models/{repo}/commit/main", body, Authorization="Bearer hf_alice")
    assert status == 400
    assert hub.ask("POST", "/_lfs-verify", json.dumps({"oid": oid, "size": 1}).encode())[0] == 400


@pytest.mark.parametrize("path", ["../up", "/root", "a//b", ".git/config", "a/.", "ü\nü/..", "README.md/below", "a/"])
def test_a_path_that_names_no_file_of_a_repo_is_refused(hub: Server, path: str):
    repo = hub.api().create_repo("alice/paths", exist_ok=True).repo_id
    lines = [
        {"key": "header", "value": {"summary": "odd"}},
        {"key": "file", "value": {"path": "README.md", "content": "x"}},
        {"key": "file", "value": {"path": path, "content": "x"}},
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    status, answer = hub.ask("POST", f"/api/models/{repo}/commit/main", body, Authorization="Bearer hf_alice")
    assert status == 400 and json.loads(answer)["error"].startswith("Invalid path")
