"""A training that stops on the way and goes on another time: from where it was, to the very same weights."""

import pytest

from finetuning.progress import Progress
from finetuning.training.callback import Diverged, last_step
from finetuning.training.checkpoints import adopt, complete, keep, step_of
from finetuning.training.lora_adapter import train
from tests.finetuning.training.adapter_jobs import data, job_of
from tests.tiny_models import save_tiny_model

SETTINGS = {"max_steps": 6, "learning_rate": 1e-2, "per_device_train_batch_size": 1, "lr_scheduler_type": "cosine"}
ADAPTER = "adapter_model.safetensors"


def run(folder, tiny, training=None, **changes):
    job = job_of(folder, tiny, {"r": 4, "lora_dropout": 0.1}, SETTINGS | (training or {}), **changes)
    return train(job, Progress(lambda line: None, ""))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    data(folder, save_tiny_model("smollm2-135m", folder / "tiny"))
    return folder


@pytest.fixture(scope="module")
def whole(folder):
    return run(folder, folder / "tiny", output=folder / "whole")


def test_a_share_of_the_steps_is_a_whole_step_and_one_at_least():
    assert [last_step(share, 6) for share in (0.01, 0.25, 0.5, 0.99)] == [1, 2, 3, 6]


def test_what_stopped_twice_ends_as_what_never_stopped(folder, whole, tmp_path):
    for number, share in enumerate((0.25, 0.5)):
        stopped = run(folder, folder / "tiny", output=tmp_path / f"{number}", until=share)
        assert (stopped["step"], stopped["steps"]) == (last_step(share, 6), 6) and stopped["loss"] > 0
        assert not (tmp_path / f"{number}").exists(), "no adapter before the end"
        # Elsewhere, as an artifact.
        keep(tmp_path / f"{number}.checkpoints", tmp_path / f"state-{number}")
        assert [step_of(path) for path in complete(tmp_path / f"state-{number}")] == [last_step(share, 6)]
        adopt(tmp_path / f"state-{number}", tmp_path / f"{number + 1}.checkpoints")
    ended = run(folder, folder / "tiny", output=tmp_path / "2")
    assert (tmp_path / "2" / ADAPTER).read_bytes() == (folder / "whole" / ADAPTER).read_bytes()
    assert [ended[key] for key in ("curve", "eval_loss", "tokens")] == [
        whole[key] for key in ("curve", "eval_loss", "tokens")
    ]


def test_a_stop_that_was_reached_before_makes_no_further_step(folder, tmp_path):
    first = run(folder, folder / "tiny", output=tmp_path / "a", until=0.5)
    again = run(folder, folder / "tiny", output=tmp_path / "a", until=0.5)
    assert (again["step"], again["loss"]) == (first["step"], first["loss"])


def test_a_training_that_ended_early_makes_no_further_step_either(folder, tmp_path):
    early = {"eval_steps": 1, "early_stopping_patience": 1, "learning_rate": 0.9, "max_steps": 9, "save_steps": 1}
    ended = run(folder, folder / "tiny", training=early, output=tmp_path / "a")
    assert ended["steps"] < 9
    again = run(folder, folder / "tiny", training=early, output=tmp_path / "a")
    assert (again["steps"], again["eval_loss"]) == (ended["steps"], ended["eval_loss"])


def test_a_variant_that_diverged_has_no_loss(folder, tmp_path):
    job = job_of(
        folder,
        folder / "tiny",
        {"r": 4, "lora_alpha": 10**30},
        SETTINGS | {"logging_steps": 1, "max_grad_norm": 0.0},
        output=tmp_path / "a",
    )
    with pytest.raises(Diverged, match="training diverged: the loss at step"):
        train(job, Progress(lambda line: None, ""))
    found = train(job.model_copy(update={"until": 0.9}), Progress(lambda line: None, ""))
    assert found["loss"] is None and found["step"] < 6


def test_the_dev_rows_are_watched_where_there_are_some_and_the_exams_loss_is_measured_beside(folder, whole, tmp_path):
    tiny = save_tiny_model("smollm2-135m", tmp_path / "tiny")
    data(tmp_path, tiny)
    assert "exam_loss" not in whole
    from datasets import Dataset

    rows = [{"input_ids": list(range(30, 60)), "labels": [-100] * 5 + list(range(35, 60))}]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "dev.parquet"))
    found = run(tmp_path, tiny)
    assert found["exam_loss"] == pytest.approx(whole["eval_loss"], abs=1e-6)
    assert abs(found["eval_loss"] - found["exam_loss"]) > 0.01
    assert found["eval_curve"] == [{"step": 6, "loss": found["eval_loss"]}]
