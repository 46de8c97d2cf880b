"""Faults that a test asks of the hub meet the requests that they are for, and nobody else may ask for them."""

import contextlib
import json
import socket
import time
from pathlib import Path

import pytest
from huggingface_hub.errors import HfHubHTTPError

from tests.resources.committing import add, status_of
from tests.resources.serving import Server, serving


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


def test_what_only_tests_may_ask_is_not_there_otherwise(tmp_path: Path):
    with serving(tmp_path, "--port", "0") as server:
        assert server.ask("GET", "/_test/log")[0] == 404
        assert server.ask("POST", "/_test/faults", b"[]")[0] in (404, 405)
