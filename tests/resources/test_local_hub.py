"""One server for all processes that use a state folder, for as long as one of them does."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from finetuning.errors import FinetuningError
from resources.hub_server.local import LocalHub, local_hub
from resources.hub_server.serving import Lease
from resources.hub_server.state_folder import announce, is_held, running_server

ROOT = Path(__file__).parents[2]
GRACE = 0.5  # seconds

USER = f"""
import sys
from pathlib import Path
from resources.hub_server.local import local_hub
with local_hub(Path(sys.argv[1]), grace={GRACE}) as hub:
    print(hub.endpoint, hub.pid, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def user(state: Path) -> Iterator[subprocess.Popen]:
    """Another process that uses the hub until a line is written to it."""
    command = [sys.executable, "-c", USER, str(state)]
    with subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def told(hub: LocalHub) -> str:
    return f"{hub.endpoint} {hub.pid}"


def servers_of(state: Path) -> list[str]:
    """The command lines of the servers that run, or wait to run, for a folder."""
    listed = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if f"resources.hub_server --state {state}" in line]


def has_ended(state: Path, seconds: float = 5) -> bool:
    """Whether the server ends within that time."""
    end = time.monotonic() + seconds
    while is_held(state / "server.lock"):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_a_client_publishes_privately_with_the_token_that_it_is_given(tmp_path: Path):
    with local_hub(tmp_path, GRACE) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        assert api.create_repo("tuned", private=True).repo_id == f"{hub.user}/tuned"
        assert hub.user == "local"


def test_two_processes_share_one_server(tmp_path: Path):
    with user(tmp_path) as first, user(tmp_path) as second:
        assert said(first) == said(second) != ""
        assert len(servers_of(tmp_path)) == 1


def test_the_server_stays_as_long_as_one_process_uses_it_and_then_ends(tmp_path: Path):
    with user(tmp_path) as other:
        with local_hub(tmp_path, GRACE) as hub:
            assert said(other) == told(hub)
        assert not has_ended(tmp_path, 3 * GRACE)
        other.communicate("done\n")
        assert has_ended(tmp_path)
    assert not (tmp_path / "server.json").exists() and not (tmp_path / "tmp").exists()


def test_the_server_ends_when_its_only_user_is_killed(tmp_path: Path):
    with user(tmp_path) as other:
        assert said(other)
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert has_ended(tmp_path)


def test_an_interrupt_of_the_process_that_started_the_server_does_not_reach_it(tmp_path: Path):
    with local_hub(tmp_path, GRACE) as hub:
        assert os.getsid(hub.pid) == hub.pid != os.getsid(0)


def test_a_user_who_comes_while_the_server_ends_gets_the_next_one_at_the_same_address(tmp_path: Path):
    with local_hub(tmp_path, grace=0) as hub:
        first = hub
    for _ in range(3):
        with local_hub(tmp_path, grace=0) as hub:
            assert HfApi(endpoint=hub.endpoint, token=hub.token).whoami()["name"] == "local"
            assert (hub.endpoint, hub.token) == (first.endpoint, first.token)


def test_a_lease_that_ran_out_keeps_newcomers_waiting(tmp_path: Path):
    lease = Lease(tmp_path / "lease", seconds=0)
    assert not is_held(tmp_path / "lease")
    assert lease.has_run_out() and is_held(tmp_path / "lease")


def test_a_server_that_ended_leaves_nothing_in_the_process_table(tmp_path: Path):
    with local_hub(tmp_path, grace=0) as hub:
        os.kill(hub.pid, 0)
    assert has_ended(tmp_path)
    time.sleep(0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(hub.pid, 0)


def test_a_server_that_was_killed_is_replaced(tmp_path: Path):
    with local_hub(tmp_path, GRACE) as first:
        os.kill(first.pid, signal.SIGKILL)
        assert has_ended(tmp_path) and (tmp_path / "server.json").exists()
        with local_hub(tmp_path, GRACE) as second:
            assert second.pid != first.pid and second.endpoint == first.endpoint


def test_another_program_at_the_address_is_not_taken_for_the_server(tmp_path: Path):
    with local_hub(tmp_path, GRACE) as first:
        os.kill(first.pid, signal.SIGKILL)
        assert has_ended(tmp_path)
        port = int(first.endpoint.rsplit(":")[-1])
        with socket.create_server(("127.0.0.1", port)), local_hub(tmp_path, GRACE) as second:
            assert second.endpoint != first.endpoint


def test_the_server_of_another_folder_is_not_taken_for_this_ones(tmp_path: Path):
    with local_hub(tmp_path / "one", GRACE) as one:
        HfApi(endpoint=one.endpoint, token=one.token).create_repo("only-in-one")
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        HfApi(endpoint=one.endpoint, token=one.token).create_repo("later-in-one")
        with local_hub(tmp_path / "two", GRACE) as two:
            assert two.endpoint != one.endpoint
            models = [model.id for model in HfApi(endpoint=two.endpoint, token=two.token).list_models()]
            assert models == ["local/only-in-one"]


def test_only_the_server_of_the_folder_itself_is_believed(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    with local_hub(one, GRACE), local_hub(two, GRACE) as hub:
        mine, other = running_server(two), running_server(one)
        assert mine and other and mine.pid == hub.pid
        for wrong in (other, replace(mine, instance="x"), replace(mine, port=other.port)):
            (two / "server.json").write_text(json.dumps(asdict(wrong)))
            assert running_server(two) is None
        announce(mine)
        assert running_server(two) == mine


@pytest.mark.parametrize("content", ["", "not JSON", "[]", '{"port": 1}', json.dumps(dict.fromkeys("abcd"))])
def test_a_broken_announcement_is_no_server(tmp_path: Path, content: str):
    (tmp_path / "server.json").write_text(content)
    assert running_server(tmp_path) is None


def test_a_server_that_a_person_started_is_used_and_left_running(tmp_path: Path):
    command = [sys.executable, "-m", "resources.hub_server", "--state", str(tmp_path), "--show-private"]
    with subprocess.Popen(command, cwd=ROOT, stdout=-1, text=True) as person:
        try:
            line = said(person)
            with local_hub(tmp_path, GRACE) as hub:
                assert hub.pid == person.pid
                assert hub.endpoint in line and "user local" in line and str(tmp_path) in line and hub.token not in line
            assert not has_ended(tmp_path, 3 * GRACE)
        finally:
            person.terminate()


def test_the_token_is_for_the_owners_eyes_alone(tmp_path: Path):
    state = tmp_path / "hub"
    with local_hub(state, GRACE) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("quiet", private=True)
        (command,) = servers_of(state)
        assert "--while-leased" in command and hub.token not in command
        assert hub.token not in repr(hub)
        assert stat.S_IMODE((state / "token").stat().st_mode) == 0o600
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert has_ended(state)
    holders = [path for path in state.rglob("*") if path.is_file() and hub.token.encode() in path.read_bytes()]
    assert holders == [state / "token"]


def test_it_works_from_any_working_directory_and_with_a_relative_folder(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with local_hub(Path("hub"), GRACE) as hub:
        assert Path(f"/proc/{hub.pid}").exists() and (tmp_path / "hub" / "server.json").exists()


def test_a_server_that_can_not_start_is_explained_with_its_log(tmp_path: Path):
    (tmp_path / "lfs").touch()
    with pytest.raises(FinetuningError) as error, local_hub(tmp_path, GRACE):
        pass
    assert str(tmp_path / "server.log") in str(error.value) and "File exists" in str(error.value)


def test_a_state_folder_that_is_a_file_is_explained(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(FinetuningError, match=r"file cannot be the state folder"), local_hub(tmp_path / "file", GRACE):
        pass


def test_a_token_that_was_deleted_under_a_running_server_is_explained(tmp_path: Path):
    with local_hub(tmp_path, GRACE) as hub:
        (tmp_path / "token").unlink()
        with pytest.raises(FinetuningError, match=str(hub.pid)), local_hub(tmp_path, GRACE):
            pass
