"""The job of training an adapter of a tiny model on three rows."""

from datasets import Dataset
from transformers import AutoTokenizer

from finetuning.training.job import TrainingJob

ROWS = [
    {"input_ids": list(range(5, 25)), "labels": [-100] * 12 + list(range(17, 25))},
    {"input_ids": list(range(40, 52)), "labels": [-100] * 9 + list(range(49, 52))},
    {"input_ids": list(range(60, 90)), "labels": [-100] * 4 + list(range(64, 70)) + [-100] * 10 + list(range(80, 90))},
]


def job_of(tmp_path, tiny, lora=None, training=None, **changes):
    settings = {
        "where": "tiny.yaml",
        "lora": lora or {},
        "training": {"max_steps": 2, "activation_checkpointing": False, **(training or {})},
        "max_length": 64,
        "chat_dataset": tmp_path,
        "base_model": tiny,
        "model_kwargs": {"dtype": "float32", "device_map": {"": "cpu"}, "trust_remote_code": False},
        "output": tmp_path / "adapter",
        **changes,
    }
    return TrainingJob.model_validate(settings)


def data(tmp_path, tiny, rows=ROWS):
    for split in ("train", "eval"):
        Dataset.from_list(rows).to_parquet(str(tmp_path / f"{split}.parquet"))
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "tokenizer")
