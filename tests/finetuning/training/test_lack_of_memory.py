"""Without memory a step is cut in halves and keeps its rows, or the error says what there is and what to change."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from finetuning.errors import FinetuningError
from finetuning.progress import Progress
from finetuning.training.job import BatchSize, TooLarge
from finetuning.training.lora_adapter import train
from finetuning.training.trainer import AdapterTrainer
from tests.finetuning.training.adapter_jobs import ROWS, job_of


def test_a_step_keeps_its_rows_when_its_pieces_are_halved():
    sizes = [BatchSize(5, 2)]
    while sizes[-1].rows > 1:
        sizes.append(sizes[-1].halved())
    assert [(size.rows, size.accumulation) for size in sizes] == [(5, 2), (3, 4), (2, 8), (1, 16)]


def starved(tmp_path, tiny, monkeypatch, error=None, **training):
    """A job whose passes of more than one row run out of memory, by an allocation that no machine can make."""
    for split in ("train", "eval"):
        Dataset.from_list(ROWS).to_parquet(str(tmp_path / f"{split}.parquet"))
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "tokenizer")
    compute = AdapterTrainer.compute_loss

    def hungry(self, model, inputs, *args, **kwargs):
        if model.training and len(inputs["input_ids"]) > 1:
            if error:
                raise RuntimeError(error)
            torch.empty(2**50)
        return compute(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(AdapterTrainer, "compute_loss", hungry)
    return job_of(tmp_path, tiny, training={"per_device_train_batch_size": 3, **training})


def test_without_memory_the_error_says_how_much_there_is_and_what_to_change(tmp_path, tiny, monkeypatch):
    job = starved(tmp_path, tiny, monkeypatch)
    with pytest.raises(
        FinetuningError, match=r"ran out of memory with 3 rows a pass, in rows of up to 64 tokens: [\d,]+ MiB"
    ):
        train(job, Progress(lambda line: None, ""))


def test_without_memory_the_error_says_what_would_fit_where_that_was_predicted(tmp_path, tiny, monkeypatch):
    fit = "900 MiB were predicted, and 800 MiB were free before it. 700 MiB would do with chat.max_length: 32."
    job = starved(tmp_path, tiny, monkeypatch).model_copy(update={"fit": fit})
    with pytest.raises(FinetuningError) as error:
        train(job, Progress(lambda line: None, ""))
    assert str(error.value).endswith(f"). {fit}")


def test_without_memory_a_step_is_cut_in_halves_until_it_fits_and_that_is_recorded(tmp_path, tiny, monkeypatch):
    job = starved(tmp_path, tiny, monkeypatch, on_oom="halve-batch")
    for expected in (BatchSize(2, 2), BatchSize(1, 4)):
        with pytest.raises(TooLarge, match=f"out of memory: going on with {expected.rows} rows a pass") as error:
            train(job, Progress(lambda line: None, ""))
        assert error.value.size == expected
        job = job.model_copy(update={"batch_size": expected})
    summary = train(job, Progress(lambda line: None, ""))
    assert (summary["per_device_train_batch_size"], summary["gradient_accumulation_steps"]) == (1, 4)
    assert summary["steps"] == 2


def test_a_lack_of_memory_that_cublas_tells_of_is_one(tmp_path, tiny, monkeypatch):
    job = starved(tmp_path, tiny, monkeypatch, error="CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")
    with pytest.raises(FinetuningError, match=r"ran out of memory with 3 rows a pass.*CUBLAS_STATUS_ALLOC_FAILED"):
        train(job, Progress(lambda line: None, ""))
