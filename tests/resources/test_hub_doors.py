"""What strangers send to the hub: bodies that are no bodies, names that differ in case, and hashes of others' files."""

import base64
import hashlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from resources.hub_server.accounts import Account
from resources.hub_server.app import create_app
from tests.finetuning.test_bounded_yaml import UNREAD

ALICE, BOB = {"Authorization": "Bearer hf_alice"}, {"Authorization": "Bearer hf_bob"}
ACCOUNTS = {"hf_alice": Account("alice"), "hf_bob": Account("bob")}
REPO = "/api/models/alice/repo"

# Every address that takes a body, and one that is right.
SUMMARY = {"key": "header", "value": {"summary": "it"}}
FILE = {"key": "file", "value": {"path": "a.txt", "content": "x"}}
DOORS = {
    "/api/repos/create": {"name": "new", "private": True},
    f"{REPO}/paths-info/main": {"paths": ["README.md"]},
    f"{REPO}/preupload/main": {"files": [{"path": "a.txt", "size": 3, "sample": "YWJj"}]},
    f"{REPO}/tag/main": {"tag": "v1"},
    f"{REPO}/branch/side": {"startingPoint": "main"},
    f"{REPO}/user-access-request/grant": {"user": "bob"},
    "/alice/repo.git/info/lfs/objects/batch": {"objects": [{"oid": "0" * 64, "size": 3}]},
    "/_lfs-verify": {"oid": "0" * 64, "size": 3},
    "/api/validate-yaml": {"content": "---\nlicense: mit\n---\n", "repoType": "model"},
}

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)
WORDS = (
    "key",
    "value",
    "path",
    "content",
    "encoding",
    "base64",
    "oid",
    "size",
    "files",
    "objects",
    "tag",
    "name",
    "type",
)
WORDS += ("header", "summary", "file", "lfsFile", "deletedFile", "deletedFolder", "organization", "sample", "license")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A client that raises whatever the server did not foresee."""
    app = create_app(tmp_path_factory.mktemp("hub"), ACCOUNTS, cdn_origin="http://127.0.0.1")
    client = TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)
    assert client.post("/api/repos/create", json={"name": "repo"}, headers=ALICE).status_code == 200
    return client


def mutated(data, value):
    """The JSON value with one or another part of it in the place of something else."""
    if isinstance(value, dict) and data.draw(st.booleans()):
        key = data.draw(st.sampled_from([*value, *WORDS]))
        return {**value, key: mutated(data, value[key]) if key in value else data.draw(JSON)}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        return [mutated(data, value[0]), *value[1:]]
    return data.draw(JSON)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_body_ends_in_an_error_of_the_server(hub, data):
    door = data.draw(st.sampled_from(sorted(DOORS)))
    body = data.draw(st.binary(max_size=40)) if data.draw(st.booleans()) else text_of(mutated(data, DOORS[door]))
    answered = hub.post(door, content=body, headers={**ALICE, "Content-Type": "application/json"})
    assert answered.status_code < 500
    assert hub.get(REPO).status_code == hub.get(f"{REPO}/commits/main").status_code == 200


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_commit_ends_in_an_error_of_the_server_or_leaves_a_repo_that_cannot_be_shown(hub, data):
    lines = [text_of(mutated(data, line)) for line in (SUMMARY, FILE)]
    assert hub.post(f"{REPO}/commit/main", content=b"\n".join(lines), headers=ALICE).status_code < 500
    for shown in (REPO, f"{REPO}/commits/main", f"{REPO}/tree/main?recursive=true", "/alice/repo", "/api/models"):
        assert hub.get(shown).status_code == 200


@pytest.mark.parametrize("door", [*DOORS, f"{REPO}/commit/main"])
def test_a_body_that_is_endlessly_deep_is_refused(hub, door):
    for body in (b"[" * 100_000, b'{"a":' * 100_000, b'{"key": "header", "value": ' + b"[" * 100_000):
        assert hub.post(door, content=body, headers={**ALICE, "Content-Type": "application/json"}).status_code == 400


def text_of(value: object) -> bytes:
    """JSON as Python writes it, with NaN and halves of characters."""
    return json.dumps(value).encode()


CARDS = [
    "{? {a: 1} : 2}", "2020-01-01: x", "x: .nan", "x: .inf", 'x: "\\ud800"', "? [a, b]\n: c", "license: {a: 1}",
    "license: [[]]", "tags: [1]", "base_model: {a: b}", "model-index: [{results: 5}]", "true: 1", "a: !!binary YQ==",
    "a: !!set {b, c}", "a: !!timestamp 2001-99-99", "- 1", "&a [*a]", "a: " + "[" * 2000, "<<: 1", *UNREAD.values(),
]  # fmt: skip


@pytest.mark.parametrize("card", CARDS)
def test_whatever_a_card_says_its_repo_is_shown(hub, card):
    readme = base64.b64encode(f"---\n{card}\n---\n".encode()).decode()
    change = {"key": "file", "value": {"path": "README.md", "content": readme, "encoding": "base64"}}
    answered = hub.post(f"{REPO}/commit/main", content=lines_of(SUMMARY, change), headers=ALICE)
    assert answered.status_code == 200
    assert hub.get(REPO).status_code == 200
    checked = hub.post("/api/validate-yaml", json={"content": f"---\n{card}\n---\n"}, headers=ALICE)
    assert checked.status_code in (200, 400)


def lines_of(*lines: object) -> bytes:
    return "\n".join(map(json.dumps, lines)).encode()


@pytest.fixture(scope="module")
def private(hub):
    """The SHA-256 and the content of a large file in a private repo of Alice's."""
    content = b"Alice's weights"
    sha256 = hashlib.sha256(content).hexdigest()
    assert hub.post("/api/repos/create", json={"name": "mine", "private": True}, headers=ALICE).status_code == 200
    upload(hub, "alice/mine", sha256, content, ALICE)
    assert link(hub, "alice/mine", sha256, ALICE).status_code == 200
    assert hub.post("/api/repos/create", json={"name": "his"}, headers=BOB).status_code == 200
    return sha256, content


def batch(hub, repo, sha256, who):
    body = {"objects": [{"oid": sha256, "size": 15}]}
    return hub.post(f"/{repo}.git/info/lfs/objects/batch", json=body, headers=who).json()["objects"][0]


def upload(hub, repo, sha256, content, who):
    offered = batch(hub, repo, sha256, who)["actions"]["upload"]["href"]
    return hub.put(offered, content=content)


def link(hub, repo, sha256, who):
    change = {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": sha256, "size": 15}}
    return hub.post(f"/api/models/{repo}/commit/main", content=lines_of(SUMMARY, change), headers=who)


def test_who_knows_the_hash_of_a_private_file_cannot_read_it(hub, private):
    sha256, content = private
    assert link(hub, "bob/his", sha256, BOB).status_code == 400
    assert "actions" in batch(hub, "bob/his", sha256, BOB), "he is to send it, as if it were not there"
    assert upload(hub, "bob/his", sha256, b"I know its hash", BOB).status_code == 400
    assert link(hub, "bob/his", sha256, BOB).status_code == 400
    for address in (f"/_cdn/{sha256}", f"/_cdn/{sha256}?signature=", f"/_cdn/{sha256}?signature={sha256}"):
        assert hub.get(address).status_code == 403
    found = hub.get("/alice/mine/resolve/main/w.bin", headers=ALICE)
    assert found.status_code == 302 and hub.get(found.headers["Location"]).content == content
    assert hub.get("/alice/mine/resolve/main/w.bin", headers=BOB).status_code == 404


def test_who_has_a_file_publishes_it_wherever_it_lies_already(hub, private):
    sha256, content = private
    assert upload(hub, "bob/his", sha256, content, BOB).status_code == 200
    assert link(hub, "bob/his", sha256, BOB).status_code == 200
    assert "actions" not in batch(hub, "alice/repo", sha256, ALICE), "it lies in a repo of hers, and is not sent twice"


def test_names_that_differ_in_case_are_one_repo(hub):
    assert hub.post("/api/repos/create", json={"name": "Phi-2-Maths"}, headers=ALICE).status_code == 200
    assert hub.post("/api/repos/create", json={"name": "phi-2-maths"}, headers=ALICE).status_code == 409
    assert hub.get("/api/models/Alice/PHI-2-maths").json()["id"] == "alice/Phi-2-Maths"
    assert hub.post("/api/models/alice/phi-2-MATHS/commit/main", content=lines_of(SUMMARY, FILE), headers=ALICE)
    names = [repo["id"] for repo in hub.get("/api/models").json()]
    assert [name for name in names if name.lower() == "alice/phi-2-maths"] == ["alice/Phi-2-Maths"]
