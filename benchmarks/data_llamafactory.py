"""Prepares rows as LLaMA-Factory does before it trains: its own `get_dataset`, in an environment of its own."""

import json
import time
from importlib.metadata import version
from pathlib import Path

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer  # pyright: ignore[reportMissingImports]
from llamafactory.hparams import get_train_args  # pyright: ignore[reportMissingImports]
from llamafactory.model import load_tokenizer  # pyright: ignore[reportMissingImports]

from benchmarks.data_side import Job, job, report

DESCRIPTION = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}


def main(job: Job) -> None:
    """The rows are prepared, and what that took is on record."""
    model_args, data_args, training_args, *_ = get_train_args(settings(job))
    tokenizer = load_tokenizer(model_args)["tokenizer"]
    template = get_template_and_fix_tokenizer(tokenizer, data_args)
    started = time.perf_counter()
    found = get_dataset(template, model_args, data_args, training_args, stage="sft", tokenizer=tokenizer)
    seconds = time.perf_counter() - started
    prepared = found["train_dataset"].with_format("arrow").iter(1_000)
    report(job, seconds, prepared, version=version("llamafactory"))


def settings(job: Job) -> dict:
    """LLaMA-Factory's settings for the job, which are its defaults but for what the job says."""
    work = Path(job.work)
    (work / "dataset_info.json").write_text(json.dumps({"rows": {**DESCRIPTION, "file_name": job.rows}}))
    return {
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "model_name_or_path": job.tokenizer,
        "template": "chatml",
        "dataset_dir": str(work),
        "dataset": "rows",
        "cutoff_len": job.max_length,
        "preprocessing_num_workers": job.workers,
        "overwrite_cache": True,
        "output_dir": str(work / "llamafactory"),
        "use_cpu": True,
        "report_to": "none",
    }


if __name__ == "__main__":
    main(job())
