"""The unmodified client of the Hub against the server on loopback, each in a process of its own."""

import json
import threading
from http.client import HTTPConnection
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError, RevisionNotFoundError

from tests.resources.committing import add, status_of
from tests.resources.serving import Server, serving


def test_what_is_committed_is_listed_and_read_back(hub: Server, tmp_path: Path):
    api = hub.api()
    repo = api.create_repo("alice/read-back").repo_id
    readme = "---\nlicense: mit\ntags: [maths]\n---\n# Hello"
    commit = api.create_commit(
        repo, [add("README.md", readme), add("a/b/x/deep ü.txt", "tief"), add("a/c.json", "{}")], commit_message="All"
    )
    assert set(api.list_repo_files(repo)) == {".gitattributes", "README.md", "a/b/x/deep ü.txt", "a/c.json"}
    assert [entry.path for entry in api.list_repo_tree(repo, "a")] == ["a/b", "a/c.json"]
    assert [entry.path for entry in api.get_paths_info(repo, ["a", "a/c.json", "none"])] == ["a", "a/c.json"]
    path = api.hf_hub_download(repo, "a/b/x/deep ü.txt", cache_dir=tmp_path)
    assert Path(path).read_text() == "tief"
    info = api.model_info(repo)
    assert (info.sha, info.tags) == (commit.oid, ["maths"])
    assert info.card_data is not None and info.card_data["license"] == "mit"
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download(repo, "nothing.txt", cache_dir=tmp_path)


def test_a_folder_of_more_files_than_one_reply_holds_is_listed_whole(hub: Server):
    repo = hub.api().create_repo("alice/many").repo_id
    hub.api().create_commit(repo, [add(f"{number}.txt", str(number)) for number in range(1005)], commit_message="Many")
    assert len(list(hub.api().list_repo_tree(repo))) == 1005 + 1


UPLOAD = """
import random
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
api = HfApi()
repo = api.create_repo("alice/{name}", exist_ok=True).repo_id
large, small = "{name}\\n".encode() * 2_000_000, random.Random("{name}").randbytes(100_000)
files = [CommitOperationAdd("large.txt", large), CommitOperationAdd("small.safetensors", small)]
api.create_commit(repo, files, commit_message="Weights")
infos = {{info.path: info for info in api.get_paths_info(repo, ["large.txt", "small.safetensors"])}}
assert infos["large.txt"].lfs.size == len(large) and infos["small.safetensors"].lfs.size == len(small)
assert open(hf_hub_download(repo, "large.txt"), "rb").read() == large
assert open(hf_hub_download(repo, "small.safetensors"), "rb").read() == small
"""


@pytest.mark.parametrize(("setting", "address", "other"), [("0", "/_cas/", "/_lfs/"), ("1", "/_lfs/", "/_cas/")])
def test_large_files_arrive_whole_with_xet_and_without(
    hub: Server, tmp_path: Path, setting: str, address: str, other: str
):
    before = len(hub.log())
    hub.client(tmp_path, UPLOAD.format(name=f"large-{setting}"), HF_HUB_DISABLE_XET=setting)
    asked = " ".join(path for _, path in hub.log()[before:])
    assert address in asked and other not in asked


@pytest.mark.parametrize("next_folder", ["same", "other"])
def test_a_client_that_remembers_its_uploads_can_publish_to_the_next_server(tmp_path: Path, next_folder: str):
    with serving(tmp_path / "same", "--port", "0") as server:
        server.client(tmp_path / "home", UPLOAD.format(name="again"), HF_HUB_DISABLE_XET="0")
        server.api().delete_repo("alice/again")
        port = server.endpoint.rsplit(":")[-1]
    with serving(tmp_path / next_folder, "--port", port) as server:
        server.client(tmp_path / "home", UPLOAD.format(name="again"), HF_HUB_DISABLE_XET="0")


def test_large_files_come_from_another_host_to_which_no_token_goes(tmp_path: Path):
    with serving(tmp_path / "state", "--port", "0", "--cdn", "--faults") as server:
        server.client(tmp_path / "home", UPLOAD.format(name="redirected"), HF_HUB_DISABLE_XET="1")
        assert any(path.startswith("/_cdn/") for _, path in server.log())


def test_the_same_content_again_makes_no_commit(hub: Server):
    repo = hub.api().create_repo("alice/same").repo_id
    first = hub.api().create_commit(repo, [add("a.txt", "a")], commit_message="One")
    again = hub.api().create_commit(repo, [add("a.txt", "a")], commit_message="Two")
    assert again.oid == first.oid and len(hub.api().list_repo_commits(repo)) == 2


def test_files_and_folders_can_be_deleted(hub: Server):
    api, repo = hub.api(), hub.api().create_repo("alice/deleting").repo_id
    api.create_commit(repo, [add(path, path) for path in ("a.txt", "b/c.txt", "b/d.txt", "e.txt")], commit_message="+")
    gone = [CommitOperationDelete("a.txt"), CommitOperationDelete("b/")]
    api.create_commit(repo, gone, commit_message="-")
    assert set(api.list_repo_files(repo)) == {".gitattributes", "e.txt"}
    with pytest.raises(RemoteEntryNotFoundError):
        api.create_commit(repo, [CommitOperationDelete("a.txt")], commit_message="-")


def test_a_tag_keeps_what_it_names_and_can_be_made_once(hub: Server, tmp_path: Path):
    api, repo = hub.api(), hub.api().create_repo("alice/tags").repo_id
    first = api.create_commit(repo, [add("a.txt", "first")], commit_message="One").oid
    api.create_tag(repo, tag="v/1", revision=first)
    api.create_branch(repo, branch="side")
    api.create_commit(repo, [add("a.txt", "second")], commit_message="Two")
    refs = api.list_repo_refs(repo)
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v/1", first)]
    assert {branch.name for branch in refs.branches} == {"main", "side"}
    assert Path(api.hf_hub_download(repo, "a.txt", revision="v/1", cache_dir=tmp_path)).read_text() == "first"
    assert Path(api.hf_hub_download(repo, "a.txt", cache_dir=tmp_path)).read_text() == "second"
    with pytest.raises(HfHubHTTPError) as error:
        api.create_tag(repo, tag="v/1")
    assert status_of(error) == 409
    api.delete_tag(repo, tag="v/1")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="v/1")


def test_a_commit_to_a_tag_is_refused(hub: Server):
    api, repo = hub.api(), hub.api().create_repo("alice/tag-moves").repo_id
    api.create_tag(repo, tag="v1")
    with pytest.raises(RevisionNotFoundError):
        api.create_commit(repo, [add("a.txt", "a")], commit_message="No", revision="refs/tags/v1")


@pytest.mark.parametrize("name", ["two words", "a..b", "-x", "x/", "", "a\nb"])
def test_a_tag_that_git_could_not_hold_is_refused(hub: Server, name: str):
    repo = hub.api().create_repo("alice/tag-names", exist_ok=True).repo_id
    body = json.dumps({"tag": name}).encode()
    assert hub.ask("POST", f"/api/models/{repo}/tag/main", body, Authorization="Bearer hf_alice")[0] == 400


def test_a_commit_on_a_parent_that_is_no_longer_the_head_is_refused(hub: Server):
    api, repo = hub.api(), hub.api().create_repo("alice/stale").repo_id
    parent = api.model_info(repo).sha
    api.create_commit(repo, [add("a.txt", "mine")], commit_message="Mine", parent_commit=parent)
    with pytest.raises(HfHubHTTPError) as error:
        api.create_commit(repo, [add("a.txt", "theirs")], commit_message="Theirs", parent_commit=parent)
    assert status_of(error) == 412


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "tag/main", {"tag": "slow"}),
        ("POST", "branch/slow", {}),
        ("PUT", "settings", {"gated": "auto"}),
        ("POST", "user-access-request/grant", {"user": "bob"}),
    ],
)
def test_a_commit_made_while_another_change_is_still_being_sent_is_kept(
    hub: Server, method: str, path: str, body: dict
):
    api, repo = hub.api(), hub.api().create_repo(f"alice/slow-{path.split('/')[0]}").repo_id
    content = json.dumps(body).encode()
    slow = HTTPConnection(hub.endpoint.removeprefix("http://"))
    slow.putrequest(method, f"/api/models/{repo}/{path}")
    slow.putheader("Authorization", "Bearer hf_alice")
    slow.putheader("Content-Length", str(len(content)))
    slow.endheaders()
    commit = api.create_commit(repo, [add("a.txt", "a")], commit_message="Between")
    slow.send(content)
    assert slow.getresponse().status == 200
    assert api.list_repo_commits(repo)[0].commit_id == commit.oid


def test_commits_at_the_same_time_are_all_kept(hub: Server):
    repo = hub.api().create_repo("alice/together").repo_id

    def commit(number: int) -> None:
        hub.api().create_commit(repo, [add(f"{number}.txt", str(number))], commit_message=str(number))

    threads = [threading.Thread(target=commit, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hub.api().list_repo_files(repo)) == 8 + 1 and len(hub.api().list_repo_commits(repo)) == 8 + 1


def test_a_dataset_repo_is_read_by_load_dataset(hub: Server, tmp_path: Path):
    api = hub.api()
    repo = api.create_repo("alice/rows", repo_type="dataset", private=True).repo_id
    rows = "".join(json.dumps({"question": str(number), "answer": str(-number)}) + "\n" for number in range(20))
    api.create_commit(repo, [add("train.jsonl", rows)], commit_message="Rows", repo_type="dataset")
    code = (
        "from datasets import load_dataset; rows = load_dataset('alice/rows', split='train'); print(len(rows), rows[7])"
    )
    assert hub.client(tmp_path, code).strip() == "20 {'question': '7', 'answer': '-7'}"
