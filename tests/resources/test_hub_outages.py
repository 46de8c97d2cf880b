"""A publication while the hub fails: at every request, in every way, before and after it did what it was asked.

Faults that are waited for (`silence`, `slow`) are tried at every other request; HUB_OUTAGES=all tries them at each.
"""

import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from huggingface_hub.utils.sha import git_hash

from tests.resources.publisher import files
from tests.resources.serving import Publisher, Server, publisher, serving

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
