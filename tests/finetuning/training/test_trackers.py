"""What trackers are told: one training is one run, from the first step to the evaluation after the last."""

import subprocess
import sys

import pytest
from transformers import TrainerCallback

from finetuning.progress import Progress
from finetuning.training import lora_adapter
from finetuning.training.lora_adapter import train
from tests.finetuning.training.adapter_jobs import data, job_of
from tests.mlflow_server import mlflow_server
from tests.tiny_models import save_tiny_model


class Told(TrainerCallback):
    """What a tracker is told, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_train_begin(self, *args, **kwargs):
        self.events.append("begin")

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.events += [name for name in ("loss", "eval_loss") if name in (logs or {})]

    def on_train_end(self, *args, **kwargs):
        self.events.append("end")


@pytest.mark.parametrize("until", [None, 0.5])
def test_the_evaluation_after_the_last_step_comes_before_the_end(tmp_path, monkeypatch, until):
    tiny, told = save_tiny_model("smollm2-135m", tmp_path / "tiny"), Told()
    data(tmp_path, tiny)
    made = lora_adapter.row_trainer

    def with_tracker(job, size, callbacks, **settings):
        return made(job, size, callbacks=[told, *callbacks], **settings)

    monkeypatch.setattr(lora_adapter, "row_trainer", with_tracker)
    train(job_of(tmp_path, tiny, training={"logging_steps": 1}, until=until), Progress(lambda line: None, ""))
    steps = 2 if until is None else 1
    assert told.events == ["begin", *["loss"] * steps, "eval_loss", "end"]


@pytest.mark.long("an environment with MLflow's server is installed")
def test_an_mlflow_server_has_one_run_with_every_point_of_both_curves(tmp_path, monkeypatch):
    tiny = save_tiny_model("smollm2-135m", tmp_path / "tiny")
    data(tmp_path, tiny)
    job = job_of(
        tmp_path, tiny, training={"max_steps": 4, "logging_steps": 1, "eval_steps": 2, "report_to": ["mlflow"]}
    )
    job.output.mkdir()
    (tmp_path / "job.json").write_text(job.model_dump_json())
    (tmp_path / "mlflow").mkdir()
    with mlflow_server(tmp_path / "mlflow") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tunings")
        command = [sys.executable, "-m", "finetuning.training.process", str(tmp_path / "job.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        (run,) = server.runs("tunings")
        assert (run["info"]["run_name"], run["info"]["status"]) == ("tiny", "FINISHED")
        assert sorted(server.history(run["info"]["run_id"], "loss")) == [1, 2, 3, 4]
        assert sorted(server.history(run["info"]["run_id"], "eval_loss")) == [2, 4]
        assert {"learning_rate", "max_steps", "seed"} <= {entry["key"] for entry in run["data"]["params"]}
