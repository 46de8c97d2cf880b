"""Who may do what on the hub: every address by everybody, paths that lead out of it, a race of commits."""

import hashlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from resources.hub_server.accounts import Account
from resources.hub_server.app import _routes, create_app
from tests.resources.serving import serving

ALICE = {"Authorization": "Bearer hf_alice"}
ACCOUNTS = {
    "hf_alice": Account("alice"),
    "hf_reader": Account("alice", "read"),
    "hf_bob": Account("bob"),
    "hf_member": Account("carol", "write", ("lab",)),
}
# Everybody whom a private repo of Alice's does not concern.
STRANGERS = {
    "nobody": {},
    "a token that nobody has": {"Authorization": "Bearer hf_unknown"},
    "no token at all": {"Authorization": "Bearer "},
    "another way to say who": {"Authorization": "Basic aGZfYWxpY2U6"},
    "somebody else": {"Authorization": "Bearer hf_bob"},
    "a member of an organization": {"Authorization": "Bearer hf_member"},
}
SECRET = "what Alice keeps to herself"
LARGE = hashlib.sha256(SECRET.encode()).hexdigest()
FILLED_IN = {"ns": "alice", "name": "secret", "revision": "main", "rev": "main", "path": "secret.txt", "key": LARGE}
FILLED_IN |= {"oid": LARGE, "instance": "0" * 32, "prefix": "default", "hash": LARGE, "tag": "v1", "branch": "side"}
FILLED_IN |= {"verdict": "grant", "base": "main", "head": "main", "compare": "main..main"}
BODIES = ({}, {"tag": "v2"}, {"name": "secret", "organization": "alice"}, {"private": False}, {"user": "bob"})


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return tmp_path_factory.mktemp("outside") / "state"


@pytest.fixture(scope="module")
def hub(state):
    app = create_app(state, ACCOUNTS, cdn_origin="http://127.0.0.1")
    client = TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)
    for repo, private in (("secret", True), ("open", False)):
        body = {"name": repo, "private": private}
        assert client.post("/api/repos/create", json=body, headers=ALICE).status_code == 200
    change = {"key": "file", "value": {"path": "secret.txt", "content": SECRET}}
    assert commit(client, "alice/secret", change).status_code == 200
    assert client.post("/api/models/alice/secret/tag/main", json={"tag": "v1"}, headers=ALICE).status_code == 200
    return client


def commit(hub, repo, change, who=ALICE):
    lines = "\n".join(map(json.dumps, [{"key": "header", "value": {"summary": "it"}}, change]))
    return hub.post(f"/api/models/{repo}/commit/main", content=lines, headers=who)


def addresses():
    """Every address of the server, with the private repo of Alice's wherever an address names one."""
    for route in _routes():
        path = route.path
        for name in route.param_convertors:
            for kind in ("", ":path"):
                path = path.replace(f"{{{name}{kind}}}", FILLED_IN.get(name, "main"))
        for method in sorted((route.methods or set()) - {"HEAD"}):
            yield method, path


def held(state):
    """Every file of the server, with its content."""
    return {path: path.read_bytes() for path in sorted(state.rglob("*")) if path.is_file() and path.name != "lease"}


@pytest.mark.parametrize("who", STRANGERS)
def test_a_stranger_learns_nothing_of_a_private_repo_and_changes_nothing(hub, state, who):
    before, asked = held(state), 0
    for (method, path), body in itertools.product(addresses(), BODIES):
        if method == "GET" and body:
            continue
        answer = hub.request(method, path, json=body or None, headers=STRANGERS[who])
        asked += 1
        assert answer.status_code < 500, (method, path, answer.text)
        assert SECRET not in answer.text and "secret.txt" not in answer.text, (method, path, answer.text)
        if "/alice/secret" in path:
            assert answer.status_code >= 400, (method, path, answer.text)
    assert asked > 60
    after = held(state)
    assert {path: after.get(path) for path in before} == before
    assert not [path for path in after if path not in before and "alice" in path.parts]


def test_a_token_to_read_reads_and_changes_nothing(hub, state):
    reader = {"Authorization": "Bearer hf_reader"}
    assert hub.get("/alice/secret/resolve/main/secret.txt", headers=reader).text == SECRET
    before = held(state / "repos")
    for (method, path), body in itertools.product(addresses(), BODIES):
        if method != "GET" and "/alice/secret" in path:
            hub.request(method, path, json=body or None, headers=reader)
    change = {"key": "file", "value": {"path": "a.txt", "content": "x"}}
    assert commit(hub, "alice/secret", change, who=reader).status_code == 403
    assert held(state / "repos") == before


def test_of_48_commits_on_one_parent_one_is_taken(tmp_path):
    with serving(tmp_path, "--port", "0") as server:
        parent = server.api().model_info(server.api().create_repo("alice/race").repo_id).sha
        header = {"key": "header", "value": {"summary": "it", "parentCommit": parent}}

        def race(number):
            change = {"key": "file", "value": {"path": f"{number}.txt", "content": str(number)}}
            body = "\n".join(map(json.dumps, [header, change])).encode()
            return server.ask("POST", "/api/models/alice/race/commit/main", body, **ALICE)[0]

        with ThreadPoolExecutor(48) as runners:
            answered = sorted(runners.map(race, range(48)))
        assert answered == [200, *[412] * 47]
        assert len(server.api().list_repo_files("alice/race")) == 2
        assert len(server.api().list_repo_commits("alice/race")) == 2


UPWARDS = [
    "..", "../up", "../../up", "a/../../up", "/etc/passwd", "//etc/passwd", "./a", "a/./b", "a//b", "a/", "/", ".",
    "..\\up", "a\\..\\..\\up", "C:/up", "a\0b", "a\nb", "a\r\nb", ".git/config", ".git", "a/.git/b", "~/../up",
    "\u2025/up", "．．/up", "..／up", "a/..", "a/../b", "../secret.json", "../../repos/models/alice/secret.json",
    "x" * 5000, "/".join(["a"] * 3000), "",
]  # fmt: skip
LEGAL = {"C:/up", "\u2025/up", "．．/up", "..／up"}  # names like any other: these characters lead nowhere


@pytest.mark.parametrize("path", UPWARDS, ids=lambda path: repr(path)[:30])
def test_a_file_leads_out_of_no_repo(hub, state, path):
    before = held(state.parent)
    answered = commit(hub, "alice/open", {"key": "file", "value": {"path": path, "content": "x"}})
    assert answered.status_code == 400 or (path in LEGAL and answered.status_code == 200), answered.text
    if answered.status_code == 400:
        assert held(state.parent) == before
    for written in (path, quote(path, safe=""), quote(quote(path, safe=""), safe="")):
        found = hub.get(f"/alice/open/resolve/main/{quote(written, safe='%/')}", headers=ALICE)
        # The client itself makes the plain forms shorter, which may lead to another page of the repo.
        assert found.status_code in (307, 400, 404) or (path in LEGAL and found.text == "x"), found.text
    assert not [new for new in state.parent.iterdir() if new != state]


NAMES = [
    "..", ".", "../x", "a/b/c", "/x", "a\\b", "a\0b", "a\nb", "", " ", ".hidden/..", "%2e%2e", "%2e%2e%2fx", "x.git",
    "x" * 300, "-x", "x--y", "x..y", "．．", "Ａ", "x\u202ey", None, 5, [], {},
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:30])
def test_a_repo_has_no_name_that_is_a_way_or_that_the_hub_would_not_have(hub, state, name):
    before = held(state.parent)
    assert hub.post("/api/repos/create", json={"name": name}, headers=ALICE).status_code in (400, 403)
    assert held(state.parent) == before


TAGS = ["..", "../v1", "a..b", "/a", "a/", "a//b", ".a", "a/.b", "a.lock", "a b", "a~1", "a^", "a:b", "a?", "a*", "a["]
TAGS += ["a\\b", "@{", "@", "", "a\0", "\x7f", "refs/../x", "-a"]


@pytest.mark.parametrize("tag", TAGS, ids=repr)
def test_a_tag_is_no_way(hub, state, tag):
    before = held(state.parent)
    answered = hub.post("/api/models/alice/open/tag/main", json={"tag": tag}, headers=ALICE)
    assert answered.status_code == 400, answered.text
    assert held(state.parent) == before
