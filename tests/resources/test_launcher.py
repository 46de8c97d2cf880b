"""The launcher: a child's progress and its mistakes reach the step that started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from finetuning.errors import CrashError, FinetuningError, InfrastructureError
from finetuning.training import process as training_process
from finetuning.training.job import ALLOCATOR, FAILURE, FAILURE_KIND, HANG, INTERRUPTED, SMALLER
from resources import launcher
from resources.launcher import Launcher, child_environment, reason_of_death
from tests.waiting import until


def launch(monkeypatch, tmp_path, source: str, instance=None, processes="1", job=None):
    """The result of an asset that launches a module with that source."""
    (tmp_path / "entry.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    @dg.asset
    def launched(context: dg.AssetExecutionContext, launcher: Launcher) -> dg.MaterializeResult:
        launcher.run(context, "entry", job or {"answer": 42})
        return dg.MaterializeResult()

    return dg.materialize([launched], resources={"launcher": Launcher(num_workers=processes)}, instance=instance)


def test_the_child_gets_its_job_and_its_lines_reach_the_event_log(monkeypatch, tmp_path):
    source = """
import json, sys
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.log.info("the answer is %d" % json.load(open(sys.argv[1]))["answer"])
"""
    with dg.instance_for_test() as instance:
        result = launch(monkeypatch, tmp_path, source, instance)
        lines = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert result.success
    assert "the answer is 42" in lines


@pytest.mark.parametrize("kind", [FinetuningError, InfrastructureError])
def test_what_the_child_explains_is_the_error_and_of_the_kind_that_it_was(monkeypatch, tmp_path, kind):
    source = f"""
import sys
from pathlib import Path
Path(sys.argv[1]).with_name({FAILURE!r}).write_text("training diverged: lower the learning rate")
Path(sys.argv[1]).with_name({FAILURE_KIND!r}).write_text({kind.kind!r})
sys.exit(3)
"""
    with pytest.raises(FinetuningError, match=r"^training diverged: lower the learning rate$") as error:
        launch(monkeypatch, tmp_path, source)
    assert type(error.value) is kind


def test_of_a_child_that_was_killed_is_said_what_would_have_fitted(tmp_path):
    said = str(reason_of_death(tmp_path, "exit code -9", "700 MiB would do with chat.max_length: 32."))
    assert said.endswith("memory ran out. 700 MiB would do with chat.max_length: 32.")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_child_that_was_killed_is_said_to_have_been_killed(monkeypatch, tmp_path, processes):
    # Of several, the first; the other one would have gone on.
    source = f"""
import os, time
if os.environ.get("RANK", "0") == "0":
    os.kill(os.getpid(), {int(signal.SIGKILL)})
time.sleep(60)
"""
    with pytest.raises(
        InfrastructureError, match=r"killed by the system \(signal 9\), most often because memory ran out"
    ):
        launch(monkeypatch, tmp_path, source, processes=processes)


def test_a_death_without_words_points_to_the_logs(tmp_path):
    error = reason_of_death(tmp_path, "External execution process failed with code 1")
    assert type(error) is CrashError and "compute logs" in str(error)


@pytest.mark.parametrize("code", [INTERRUPTED, -int(signal.SIGTERM)])
def test_a_child_that_was_asked_to_end_did_not_crash(tmp_path, code):
    error = reason_of_death(tmp_path, f"External execution process failed with code {code}")
    assert type(error) is InfrastructureError and str(error).startswith("Training was asked to end")


def test_both_ends_have_the_same_names_for_what_lies_beside_a_job():
    names = ("FAILURE", "FAILURE_KIND", "HANG", "SMALLER", "INTERRUPTED")
    assert [getattr(launcher, name) for name in names] == [getattr(training_process, name) for name in names]


def test_a_child_that_ran_out_of_memory_is_started_again_with_the_passes_that_it_names(monkeypatch, tmp_path):
    source = f"""
import json, sys
from pathlib import Path
job = json.load(open(sys.argv[1]))
Path({str(tmp_path)!r}, "jobs.txt").open("a").write(json.dumps(job.get("batch_size")) + chr(10))
rows = job.get("batch_size", {{"rows": 4}})["rows"]
if rows > 1:
    Path(sys.argv[1]).with_name({SMALLER!r}).write_text(json.dumps({{"rows": rows // 2}}))
    sys.exit({training_process.TOO_LARGE})
"""
    assert launch(monkeypatch, tmp_path, source).success
    assert (tmp_path / "jobs.txt").read_text().split("\n") == ["null", '{"rows": 2}', '{"rows": 1}', ""]


BITSANDBYTES = "Error out of memory at line 380 in file /src/csrc/ops.cu"


def test_a_child_that_bitsandbytes_ended_for_want_of_memory_is_said_to_lack_it(monkeypatch, tmp_path, capfd):
    source = f"import os\nos.write(2, b'loading\\n{BITSANDBYTES}\\n')\nos._exit(1)"
    with pytest.raises(InfrastructureError, match=r"^Training ran out of memory \(Error out .* line 380 .*Lower"):
        launch(monkeypatch, tmp_path, source)


def test_a_child_that_bitsandbytes_ended_goes_on_with_halves_where_the_recipe_allows_it(monkeypatch, tmp_path, capfd):
    source = f"""
import json, os, sys
from pathlib import Path
rows = json.load(open(sys.argv[1])).get("batch_size", {{"rows": 4}})["rows"]
Path({str(tmp_path)!r}, "rows.txt").open("a").write(f"{{rows}} ")
if rows > 1:
    os.write(2, b"{BITSANDBYTES}\\n")
    os._exit(1)
"""
    training = {"on_oom": "halve-batch", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    assert launch(monkeypatch, tmp_path, source, job={"training": training}).success
    assert (tmp_path / "rows.txt").read_text() == "4 2 1 "


def test_what_was_said_before_the_child_began_is_none_of_its_words(monkeypatch, tmp_path, capfd):
    os.write(2, f"{BITSANDBYTES}\n".encode())
    with pytest.raises(CrashError):
        launch(monkeypatch, tmp_path, "import sys; sys.exit(1)")


@pytest.mark.parametrize(
    ("visible", "processes", "seen"),
    [
        (None, 1, "0"),
        ("0,1", 1, "0"),
        ("3, 1", 1, "3"),
        (" 1,3", 1, "1"),
        ("GPU-5,GPU-6", 1, "GPU-5"),
        ("", 1, ""),
        ("0,1", 2, "0,1"),
    ],
)
def test_one_process_sees_one_gpu_and_several_see_theirs(monkeypatch, visible, processes, seen):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert child_environment(processes)["CUDA_VISIBLE_DEVICES"] == seen


@pytest.mark.parametrize("name", ALLOCATOR)
def test_a_gpu_gives_memory_out_in_segments_that_grow_unless_somebody_said_otherwise(monkeypatch, name):
    for other in ALLOCATOR:
        monkeypatch.delenv(other, raising=False)
    assert child_environment()["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    monkeypatch.setenv(name, "max_split_size_mb:128")
    child = child_environment()
    assert [child.get(other) for other in ALLOCATOR if other != name] == [None, None]
    assert child[name] == "max_split_size_mb:128"


def test_a_child_that_hung_is_said_to_have_hung_and_where(tmp_path):
    (tmp_path / HANG).write_text('File "trainer.py", line 7 in step')
    message = str(reason_of_death(tmp_path, "External execution process failed with code 1"))
    assert message.startswith("Training hung: nothing went on") and message.endswith("line 7 in step")


def test_several_processes_share_the_cores_and_start_together(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert child_environment(1000)["OMP_NUM_THREADS"] == "1"
    assert Launcher().start(2)[-2:] == ["finetuning.training.several_processes", "2"]
    assert Launcher().start(1) == [sys.executable, "-m"]


def test_the_recipe_says_how_many_processes_train_or_else_the_instance_does():
    assert [Launcher(num_workers="2").count(workers) for workers in (None, 3)] == [2, 3]


def test_an_unknown_launcher_is_said_and_so_is_one_that_is_not_installed(monkeypatch):
    with pytest.raises(InfrastructureError, match="FINETUNING_LAUNCHER: 'slurm' is neither local nor ray"):
        Launcher(kind="slurm").is_ray()
    monkeypatch.setitem(sys.modules, "ray.train", None)
    with pytest.raises(InfrastructureError, match=r"FINETUNING_LAUNCHER: ray needs packages .* -e '.\[cluster\]'"):
        Launcher(kind="ray").is_ray()


@pytest.mark.parametrize("wrong", ["two", "0", "-1", ""])
def test_a_wrong_number_of_processes_is_said(wrong):
    with pytest.raises(FinetuningError, match=f"FINETUNING_PROCESSES: '{wrong}' is not a number of processes"):
        Launcher(num_workers=wrong).count()


def test_children_use_as_many_threads_as_there_are_cores_unless_told(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert int(child_environment()["OMP_NUM_THREADS"]) >= 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert child_environment()["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "FINETUNING_SOURCE_TOKEN", "FINETUNING_JUDGE_KEY"]
)
def test_a_child_that_trains_has_no_token_of_a_hub(monkeypatch, tmp_path, name):
    from huggingface_hub import get_token

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv(name, "hf_secret")
    child = child_environment()
    assert "hf_secret" not in child.values()
    for key, value in child.items():
        monkeypatch.setenv(key, value)
    assert get_token() is None


def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    parent = """
import os, signal, subprocess, sys, time
child = "import sys, time, finetuning.training.process as p; p.end_with(int(sys.argv[1])); time.sleep(60)"
process = subprocess.Popen([sys.executable, "-c", child, str(os.getpid())], stdout=subprocess.DEVNULL)
print(process.pid, flush=True)
time.sleep(1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    started = subprocess.run([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, check=False)
    child = int(started.stdout)
    assert started.returncode == -signal.SIGKILL
    until(lambda: not Path(f"/proc/{child}").exists(), seconds=20)
