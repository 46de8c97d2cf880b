"""The unmodified client of the Hub against the server on loopback, each in a process of its own."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from resources.hub_server.accounts import Account, parse_account
from tests.resources.serving import ROOT, Server, serving
from tests.waiting import PATIENCE


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hub"), "--port", "0", "--faults") as server:
        yield server


def add(path: str, content: str) -> CommitOperationAdd:
    return CommitOperationAdd(path, content.encode())


def status_of(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_an_account_is_written_as_token_user_role_and_organizations():
    assert parse_account("hf_x=bob") == ("hf_x", Account("bob", "write", ()))
    assert parse_account("hf_x=bob:read,lab,club") == ("hf_x", Account("bob", "read", ("lab", "club")))


@pytest.mark.parametrize("text", ["hf_secret", "=bob", "hf_secret=", "hf_secret=bob:admin", "hf_secret=../up"])
def test_an_account_in_another_form_is_refused_without_repeating_its_token(text: str):
    with pytest.raises(ValueError) as error:
        parse_account(text)
    assert "secret" not in str(error.value)


def test_a_token_names_its_user_and_an_unknown_one_is_refused(hub: Server):
    me = hub.api().whoami()
    assert (me["name"], [org["name"] for org in me["orgs"]]) == ("alice", ["lab"])
    assert hub.api("hf_reader").whoami()["auth"]["accessToken"]["role"] == "read"
    repo = hub.api().create_repo("alice/open").repo_id
    assert hub.api(False).model_info(repo).id == repo
    for ask in (HfApi.whoami, lambda api: api.model_info(repo)):
        with pytest.raises(HfHubHTTPError) as error:
            ask(hub.api("hf_unknown"))
        assert status_of(error) == 401


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


def test_a_private_repo_is_there_for_its_owner_alone(hub: Server):
    repo = hub.api().create_repo("alice/secret", private=True).repo_id
    for token in (False, "hf_unknown", "hf_bob"):
        with pytest.raises((RepositoryNotFoundError, HfHubHTTPError)) as error:
            hub.api(token).model_info(repo)
        assert status_of(error) == (404 if token == "hf_bob" else 401)
        if token != "hf_unknown":
            assert repo not in [model.id for model in hub.api(token).list_models()]
    assert hub.api("hf_reader").model_info(repo).private
    assert repo in [model.id for model in hub.api("hf_reader").list_models(author="alice")]


def test_a_read_token_and_a_stranger_change_nothing(hub: Server):
    repo = hub.api().create_repo("alice/mine").repo_id
    for token in ("hf_reader", "hf_bob"):
        for change in (
            lambda api: api.create_commit(repo, [add("a.txt", "a")], commit_message="No"),
            lambda api: api.create_tag(repo, tag="no"),
            lambda api: api.delete_repo(repo),
            lambda api: api.create_repo("alice/new"),
        ):
            with pytest.raises(HfHubHTTPError) as error:
                change(hub.api(token))
            assert status_of(error) == 403
    assert len(hub.api().list_repo_commits(repo)) == 1


def test_a_member_of_an_organization_publishes_there(hub: Server):
    assert hub.api().create_repo("lab/shared").repo_id == "lab/shared"
    with pytest.raises(HfHubHTTPError) as error:
        hub.api("hf_bob").create_repo("lab/other")
    assert status_of(error) == 403


def test_the_files_of_a_gated_repo_are_for_those_who_were_let_in(hub: Server, tmp_path: Path):
    api, repo = hub.api(), hub.api().create_repo("alice/gated").repo_id
    api.create_commit(repo, [add("a.txt", "a")], commit_message="One")
    api.update_repo_settings(repo, gated="manual")
    assert hub.api("hf_bob").model_info(repo).gated == "manual"
    for token in (False, "hf_bob"):
        with pytest.raises(GatedRepoError):
            hub.api(token).hf_hub_download(repo, "a.txt", cache_dir=tmp_path)
    assert hub.ask("GET", f"/{repo}/blob/main/a.txt")[0] == 404
    api.grant_access(repo, "bob")
    hub.api("hf_bob").auth_check(repo)
    assert Path(hub.api("hf_bob").hf_hub_download(repo, "a.txt", cache_dir=tmp_path)).read_text() == "a"


def test_a_dataset_repo_is_read_by_load_dataset(hub: Server, tmp_path: Path):
    api = hub.api()
    repo = api.create_repo("alice/rows", repo_type="dataset", private=True).repo_id
    rows = "".join(json.dumps({"question": str(number), "answer": str(-number)}) + "\n" for number in range(20))
    api.create_commit(repo, [add("train.jsonl", rows)], commit_message="Rows", repo_type="dataset")
    code = (
        "from datasets import load_dataset; rows = load_dataset('alice/rows', split='train'); print(len(rows), rows[7])"
    )
    assert hub.client(tmp_path, code).strip() == "20 {'question': '7', 'answer': '-7'}"


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


def test_everything_is_there_after_a_restart_at_the_same_address(tmp_path: Path):
    with serving(tmp_path / "state", "--port", "0") as server:
        endpoint, repo = server.endpoint, server.api().create_repo("alice/kept", private=True).repo_id
        commit = server.api().create_commit(repo, [add("a.txt", "kept")], commit_message="One").oid
        server.api().create_tag(repo, tag="v1")
        server.process.kill()
    with serving(tmp_path / "state") as server:
        assert server.endpoint == endpoint
        assert server.api().model_info(repo, revision="v1").sha == commit
        assert Path(server.api().hf_hub_download(repo, "a.txt", cache_dir=tmp_path)).read_text() == "kept"


def test_a_second_server_of_a_folder_waits_until_the_first_has_ended(tmp_path: Path):
    with serving(tmp_path, "--port", "0") as first:
        command = [sys.executable, "-m", "resources.hub_server", "--state", str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=-1, stderr=-1, text=True) as second:
            assert second.stderr and second.stdout
            said = second.stderr.readline()
            assert "Waiting" in said and first.endpoint in said and str(first.process.pid) in said
            first.process.send_signal(signal.SIGINT)
            assert first.process.wait(10) == 0
            assert first.endpoint in second.stdout.readline()
            second.terminate()


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(hub: Server, tmp_path: Path):
    port = hub.endpoint.rsplit(":")[-1]
    command = [sys.executable, "-m", "resources.hub_server", "--state", str(tmp_path), "--port", port]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and f"Port {port} is taken" in done.stderr and "Traceback" not in done.stderr


def test_an_injected_fault_is_answered_as_often_as_asked(hub: Server):
    repo = hub.api().create_repo("alice/faults").repo_id
    faults = [{"method": "POST", "path": f"{repo}/commit/", "status": 503, "times": 1}]
    hub.faults(*faults)
    with pytest.raises(HfHubHTTPError) as error:
        hub.api().create_commit(repo, [add("a.txt", "a")], commit_message="One")
    assert status_of(error) == 503
    assert hub.api().list_repo_files(repo) == [".gitattributes"]
    hub.api().create_commit(repo, [add("a.txt", "a")], commit_message="One")
    assert hub.log().count(["POST", f"/api/models/{repo}/commit/main"]) == 2


def test_a_fault_of_a_number_meets_that_request_alone(hub: Server):
    hub.faults({"number": 1, "status": 418, "times": 9})
    assert [hub.ask("GET", "/_server")[0] for _ in range(3)] == [200, 418, 200]
    hub.faults()


def test_an_answer_that_is_lost_belongs_to_a_request_that_was_carried_out(hub: Server):
    for name, acted, code in (("kept", True, 409), ("lost", False, 200)):
        hub.faults({"path": "create", "status": 500, "acted": acted, "times": 1})
        body = json.dumps({"name": name}).encode()
        answers = [hub.ask("POST", "/api/repos/create", body, Authorization="Bearer hf_alice")[0] for _ in range(2)]
        assert answers == [500, code]


def raw(hub: Server, seconds: float) -> bytes:
    """What comes within that time over a bare connection that asks for the server's name."""
    port = int(hub.endpoint.rsplit(":")[-1])
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(b"GET /_server HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            while part := connection.recv(1000):
                received += part
    return received


def test_a_connection_breaks_is_silent_or_gives_its_answer_byte_by_byte(hub: Server):
    for acted in (False, True):
        hub.faults({"kind": "reset", "acted": acted, "times": 1})
        with pytest.raises(ConnectionResetError):
            raw(hub, 5)
        hub.faults({"kind": "silence", "acted": acted, "times": 1})
        assert raw(hub, 0.1) == b""
    hub.faults({"kind": "slow", "pause": 0.01, "acted": True, "times": 1})
    start = time.monotonic()
    assert len(json.loads(raw(hub, 1).partition(b"\r\n\r\n")[2])["instance"]) == 32
    assert time.monotonic() - start > 32 * 0.01
    hub.faults({"kind": "slow", "pause": 60, "acted": True, "times": 1})
    assert raw(hub, 0.1).endswith(b"\r\n\r\n{")


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


def test_the_pages_show_public_repos_with_files_tags_and_commits(hub: Server):
    api, repo = hub.api(), hub.api().create_repo("alice/page").repo_id
    api.create_repo("alice/hidden-page", private=True)
    readme = "---\nlicense: mit\n---\n<script>x</script>"
    commit = api.create_commit(repo, [add("README.md", readme)], commit_message="A <b>title</b>").oid
    api.create_tag(repo, tag="v1")
    listed, page = hub.ask("GET", "/")[1].decode(), hub.ask("GET", f"/{repo}")[1].decode()
    assert repo in listed and "hidden-page" not in listed
    assert "&lt;script&gt;" in page and "A &lt;b&gt;title" in page and "<script>" not in page and "<b>title" not in page
    assert f"/{repo}/tree/v1" in page and f"/{repo}/commit/{commit}" in page
    assert hub.ask("GET", f"/{repo}/blob/v1/README.md") == (200, readme.encode())
    for missing in ("/alice/hidden-page", "/alice/hidden-page/blob/main/.gitattributes", "/alice/none", "/alice/.."):
        assert hub.ask("GET", missing)[0] == 404


def test_the_pages_show_private_repos_where_the_owner_asked_for_it(tmp_path: Path):
    with serving(tmp_path, "--port", "0", "--show-private") as server:
        repo = server.api().create_repo("alice/rows", private=True, repo_type="dataset").repo_id
        assert f"/datasets/{repo}" in server.ask("GET", "/")[1].decode()
        assert server.ask("GET", f"/datasets/{repo}/blob/main/.gitattributes")[0] == 200
        assert server.ask("GET", f"/api/datasets/{repo}")[0] == 401


def test_a_request_that_came_under_another_host_name_is_refused(hub: Server):
    assert hub.ask("GET", "/", Host="rebound.example")[0] == 400


def test_what_only_tests_may_ask_is_not_there_otherwise(tmp_path: Path):
    with serving(tmp_path, "--port", "0") as server:
        assert server.ask("GET", "/_test/log")[0] == 404
        assert server.ask("POST", "/_test/faults", b"[]")[0] in (404, 405)


def test_the_server_starts_without_any_heavy_library():
    heavy = ("pyarrow", "numpy", "torch", "datasets", "huggingface_hub", "dagster")
    code = f"import sys, resources.hub_server.__main__; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
