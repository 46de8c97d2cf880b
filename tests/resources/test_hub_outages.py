"""A publication while the hub fails: at every request, in every way, before and after it did what it was asked.

Faults that are waited for (`silence`, `slow`) are tried at every other request; HUB_OUTAGES=all tries them at each.
"""

import hashlib
import itertools
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from huggingface_hub.utils.sha import git_hash

from resources.hub_client.connection import HubConnection
from tests.resources.publisher import files
from tests.resources.serving import Publisher, Server, publisher, serving
from tests.waiting import until

TAG, LATER = "a" * 16, "b" * 16
TITLE = f"Publish it ({TAG})"
KINDS: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "503": {"status": 503},
    "429": {"status": 429, "headers": {"Retry-After": "0"}},
    "reset": {"kind": "reset"},
    "silence": {"kind": "silence"},
    "slow": {"kind": "slow", "pause": 60},
}
WAITED_FOR = {"silence", "slow"}
EACH = os.environ.get("HUB_OUTAGES") == "all"
SEEDS = itertools.count(1)


@dataclass(frozen=True)
class Line:
    """A hub, and a publisher to it that sends large files over Xet or not."""

    hub: Server
    publisher: Publisher
    requests: list[list[str]]  # of an undisturbed publication

    def case(self) -> tuple[str, int]:
        """A repo of its own, and a seed for files that the hub has never seen."""
        seed = next(SEEDS)
        return f"alice/case-{seed}", seed

    def disturbed(self, kind: str, acted: bool) -> list[tuple[int, list[str]]]:
        """The requests at which this fault is tried, with their numbers."""
        step = 2 if kind in WAITED_FOR and not EACH else 1
        return list(enumerate(self.requests))[int(acted) % step :: step]

    def published(self, repo_id: str, seed: int) -> str:
        """The commit of a repo that was published as it should be: once, whole, and tagged."""
        repo = self.hub.repo(repo_id)
        assert repo, "there is no repo"
        head = repo["refs"]["refs/heads/main"]
        assert [commit["title"] for commit in repo["commits"].values()] == ["initial commit", TITLE]
        assert repo["refs"] == {"refs/heads/main": head, f"refs/tags/{TAG}": head}
        there = {path: file["lfs"] or file["oid"] for path, file in repo["commits"][head]["tree"].items()}
        del there[".gitattributes"]
        sent = {name: path.read_bytes() for name, path in files(self.publisher.folder, seed).items()}
        assert there == {
            name: hashlib.sha256(content).hexdigest() if name == "model.safetensors" else git_hash(content)
            for name, content in sent.items()
        }
        return head

    def publish(self, repo_id: str, seed: int, tag: str = TAG, **waits: float) -> dict[str, Any]:
        return self.publisher.publish(repo_id, seed=seed, tag=tag, **waits)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hub") / "state", "--port", "0", "--faults") as server:
        yield server


@pytest.fixture(scope="module", params=["0", "1"], ids=["xet", "lfs"])
def line(request: pytest.FixtureRequest, hub: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("publisher") / "files"
    with publisher(hub, folder, HF_HUB_DISABLE_XET=request.param) as process:
        hub.faults()
        seed, before = next(SEEDS), len(hub.log())
        assert process.publish(f"case-{seed}", seed=seed, tag=TAG, timeout=10)["created"]
        requests = hub.log()[before:]
        assert any("/_cas/" in path for _, path in requests) is (request.param == "0")
        yield Line(hub, process, requests)


@pytest.mark.long("a publication for each request and each fault")
@pytest.mark.parametrize("acted", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_fault_at_any_request_ends_in_one_whole_publication(line: Line, kind: str, acted: bool):
    for number, request in line.disturbed(kind, acted):
        repo_id, seed = line.case()
        line.hub.faults({**KINDS[kind], "number": number, "acted": acted, "times": 1})
        made = line.publish(repo_id.removeprefix("alice/"), seed)
        line.hub.faults()
        assert made["mistake"] is None, (number, request, made)
        commit = line.published(repo_id, seed)
        assert (made["commit"], made["created"]) == (commit, True), (number, request)
        again = line.publish(repo_id, seed)
        assert (again["commit"], again["created"], again["log"]) == (commit, False, []), (number, request)
        assert line.published(repo_id, seed) == commit


def test_these_are_more_than_two_hundred_faults(line: Line):
    faults = [number for kind in KINDS for acted in (False, True) for number in line.disturbed(kind, acted)]
    assert len(faults) > 100  # over Xet, and as many without


def pattern(path: str, repo_id: str) -> str:
    """An expression for the same request about another repo, at another try."""
    about = re.sub(r"alice/case-\d+", repo_id, path)
    return re.sub(r"/_lfs/.*", "/_lfs/.+", re.sub(r"[0-9a-f]{32,}", "[0-9a-f]+", about)) + "$"


@pytest.mark.parametrize(("kind", "acted"), [("503", False), ("reset", True)], ids=["503-before", "reset-after"])
def test_a_hub_that_stays_out_is_a_clear_error_in_time_and_the_next_run_mends_it(line: Line, kind: str, acted: bool):
    for method, path in line.requests[int(acted) :: 2 - EACH]:
        repo_id, seed = line.case()
        fault = {**KINDS[kind], "method": method, "path": pattern(path, repo_id), "acted": acted, "times": 1000}
        line.hub.faults(fault)
        failed = line.publish(repo_id.removeprefix("alice/"), seed, deadline=0.2)
        assert failed["seconds"] < 0.2 + 2.0, (path, failed)
        if failed["commit"]:  # the next look showed that no more than the answer was missing, or it can be done without
            assert acted or re.search("/chunks/|/_lfs-verify", path), (path, failed)
            line.published(repo_id, seed)
        else:
            assert re.search(r"answered 503|cannot be reached", failed["mistake"]), (path, failed)
            assert "the deadline is 0.2 s (FINETUNING_HUB_DEADLINE)" in failed["mistake"]
            assert all(re.search(r"; trying again in \d+\.\d s", said) for said in failed["log"])
            assert "hf_alice" not in failed["mistake"] + "".join(failed["log"])
        commits = (line.hub.repo(repo_id) or {"commits": {}})["commits"].values()
        assert [commit["title"] for commit in commits] == ["initial commit", TITLE][: len(commits)]
        line.hub.faults()
        assert line.publish(repo_id, seed)["mistake"] is None, path
        line.published(repo_id, seed)


@pytest.fixture(scope="module")
def twin(hub: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    with publisher(hub, tmp_path_factory.mktemp("twin") / "files", HF_HUB_DISABLE_XET="1") as process:
        yield process


def titles(hub: Server, repo_id: str) -> list[str]:
    """Those of a repo's commits, newest first."""
    return [commit.title for commit in hub.api().list_repo_commits(repo_id)]


def begin(line: Line, repo_id: str, seed: int, fault: dict[str, Any]) -> None:
    """Return once the line's publisher has come as far as to the fault."""
    before = len(line.hub.log())
    line.hub.faults(fault)
    line.publisher.ask(repo_id, seed=seed, tag=TAG, timeout=1.5)
    until(lambda: any(fault["path"] in path for _, path in line.hub.log()[before:]), pause=0.01)


# What is there is told before the other one's commit, and arrives after it.
LATE = {"method": "POST", "path": "/preupload/", "kind": "slow", "pause": 0.003, "acted": True, "times": 1}


def test_two_that_publish_the_same_at_once_make_one_commit(line: Line, twin: Publisher):
    for lost in (LATE, {"method": "POST", "path": "/commit/", "kind": "silence", "acted": True, "times": 1}):
        repo_id, seed = line.case()
        begin(line, repo_id, seed, lost)
        second = twin.publish(repo_id, seed=seed, tag=TAG)
        first = line.publisher.answer()
        assert first["commit"] == second["commit"] == line.published(repo_id, seed)


def test_of_two_that_publish_different_things_at_once_one_says_that_the_other_was_there(line: Line, twin: Publisher):
    silent = {"method": "POST", "path": "/commit/", "kind": "silence", "times": 1}
    for lost, kept in ((LATE, 1), (silent, 1), ({**silent, "acted": True}, 2)):
        repo_id, seed = line.case()
        begin(line, repo_id, seed, lost)
        second = twin.publish(repo_id, seed=-seed, tag=LATER)
        first = line.publisher.answer()
        assert "has changed meanwhile" in first["mistake"], first
        assert lost is LATE or "is its newest commit" in first["mistake"]  # and nothing was sent in vain
        repo = line.hub.repo(repo_id)
        assert repo and repo["refs"] == {"refs/heads/main": second["commit"], f"refs/tags/{LATER}": second["commit"]}
        assert titles(line.hub, repo_id) == [*[f"Publish it ({LATER})", TITLE][:kept], "initial commit"]


def test_publications_that_race_lose_no_commit(line: Line, twin: Publisher):
    repo_id, _ = line.case()
    tags = [f"{number:016x}" for number in range(1, 11)]
    made = []
    for one, other in zip(tags[::2], tags[1::2], strict=True):
        line.publisher.ask(repo_id, seed=int(one, 16), tag=one, timeout=3)
        twin.ask(repo_id, seed=int(other, 16), tag=other, timeout=3)
        for process, tag in ((line.publisher, one), (twin, other)):
            answer = process.answer()
            assert answer["commit"] or "has changed meanwhile" in answer["mistake"], answer
            made += [(tag, answer["commit"])] * bool(answer["commit"])
    repo = line.hub.repo(repo_id)
    assert repo and {(f"refs/tags/{tag}", commit) for tag, commit in made} <= set(repo["refs"].items())
    assert len(made) >= len(tags) / 2
    assert sorted(titles(line.hub, repo_id)) == sorted(["initial commit", *(f"Publish it ({tag})" for tag, _ in made)])


def test_an_answer_that_comes_byte_by_byte_is_not_waited_for(line: Line):
    repo_id, seed = line.case()
    line.hub.faults({"method": "GET", "path": "/refs", "kind": "slow", "pause": 0.1, "acted": True, "times": 1})
    made = line.publish(repo_id, seed)
    assert made["created"] and "/refs: ReadTimeout; trying again" in made["log"][0]


@pytest.mark.parametrize("form", ["seconds", "date", "rate limit"])
def test_as_long_as_the_hub_asks_for_is_waited(line: Line, form: str):
    repo_id, seed = line.case()
    later = datetime.now(UTC) + timedelta(seconds=2)  # a date has whole seconds, so one to two of them
    asked = {"seconds": "1", "date": format_datetime(later, usegmt=True)}
    headers = {"Retry-After": asked[form]} if form in asked else {"RateLimit": '"api";r=0;t=1'}
    line.hub.faults({"method": "POST", "path": "/commit/", "status": 429, "headers": headers, "times": 1})
    made = line.publish(repo_id, seed)
    (said,) = made["log"]
    assert "commit/main: 429 Too Many Requests; trying again in" in said
    assert 0.8 <= float(re.findall(r"again in ([\d.]+) s", said)[0]) <= 2 and made["seconds"] >= 0.8
    line.published(repo_id, seed)


def test_a_wait_beyond_the_deadline_is_not_begun(line: Line):
    repo_id, seed = line.case()
    line.hub.faults({"path": "/refs", "status": 503, "headers": {"Retry-After": "3600"}, "times": 1})
    failed = line.publish(repo_id, seed, deadline=5)
    assert failed["seconds"] < 4 and not failed["log"]
    assert "the next try would come in 3600 s, and the deadline is 5.0 s" in failed["mistake"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
def test_what_does_not_pass_is_not_tried_again(line: Line, status: int):
    for path in ("/api/repos/create", "/refs", "/preupload/", "/commit/", "/tag/", "xet-write-token", "info/lfs"):
        repo_id, seed = line.case()
        if (path, status) == ("/api/repos/create", 409) or not any(path in asked for _, asked in line.requests):
            continue
        line.hub.faults({"path": path, "status": status, "times": 1})
        failed = line.publish(repo_id, seed)
        assert failed["mistake"] and failed["log"] == [], (path, failed)
        assert failed["seconds"] < 3


def test_a_head_of_the_right_title_with_other_files_is_not_taken_for_the_publication(line: Line):
    repo_id, seed = line.case()
    assert line.publish(repo_id, -seed)["created"]
    made = line.publish(repo_id, seed)
    repo = line.hub.repo(repo_id)
    assert repo and made["created"] and repo["refs"][f"refs/tags/{TAG}"] == made["commit"]
    assert titles(line.hub, repo_id) == [TITLE, TITLE, "initial commit"]
    assert line.publish(repo_id, seed)["created"] is False


def test_what_the_hub_has_is_asked_again_too(hub: Server):
    said: list[str] = []
    connection = HubConnection("test", hub.endpoint, hub.api(), timeout=0.3, pause=0.02, log=said.append)
    hub.api().create_repo("alice/asked")
    questions = {
        "whoami": (connection.owner, "alice"),
        "/refs": (lambda: connection.has({"repo_id": "alice/asked", "commit": "c" * 40, "tag": TAG}), False),
        "/alice/asked": (lambda: connection.is_public("alice/asked"), True),
    }
    for (path, (ask, answer)), kind in itertools.product(questions.items(), KINDS):
        hub.faults({**KINDS[kind], "path": path, "times": 1})
        said.clear()
        assert (ask(), len(said)) == (answer, 1), (path, kind)
    hub.faults()


@pytest.mark.long("a process for each moment at which one is killed")
@pytest.mark.parametrize("acted", [False, True], ids=["before", "after"])
def test_a_publisher_that_is_killed_at_any_request_leaves_what_the_next_one_completes(
    line: Line, acted: bool, tmp_path, request
):
    xet_off = str(int(request.node.callspec.params["line"] == "1"))
    kills = 0
    for number, asked in enumerate(line.requests):
        repo_id, seed = line.case()
        with publisher(line.hub, tmp_path / f"killed-{number}", HF_HUB_DISABLE_XET=xet_off) as killed:
            line.hub.faults({"kind": "silence", "number": number, "acted": acted, "times": 1})
            before = len(line.hub.log())
            killed.ask(repo_id.removeprefix("alice/"), seed=seed, tag=TAG, timeout=60)
            until(lambda: len(line.hub.log()) > before + number, lambda: str((number, asked)), pause=0.02)  # noqa: B023
            if acted:
                time.sleep(0.1)  # in which the hub does what it was asked
            killed.process.kill()
            killed.process.wait()
            kills += 1
        line.hub.faults()
        commits = (line.hub.repo(repo_id) or {"commits": {}})["commits"].values()
        assert [commit["title"] for commit in commits] == ["initial commit", TITLE][: len(commits)], (number, asked)
        made = line.publish(repo_id, seed)
        assert made["mistake"] is None, (number, asked, made)
        assert line.published(repo_id, seed) == made["commit"], (number, asked)
    assert kills >= 8
