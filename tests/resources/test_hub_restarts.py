"""A hub keeps all that it held over a restart, waits for the one before, and starts without any heavy library."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.resources.committing import add
from tests.resources.serving import ROOT, Server, serving
from tests.waiting import PATIENCE


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


def test_the_server_starts_without_any_heavy_library():
    heavy = ("pyarrow", "numpy", "torch", "datasets", "huggingface_hub", "dagster")
    code = f"import sys, resources.hub_server.__main__; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
