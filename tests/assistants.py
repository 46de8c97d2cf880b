"""A tiny assistant: a random model that has much to say, and an adapter that was trained on it for a few steps."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
import yaml

from finetuning.assistant.assistant import Assistant
from finetuning.assistant.source import Source
from finetuning.base_model.quantized_base_model import quantize
from finetuning.progress import Progress
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.recipe.loading import load_file
from finetuning.training.lora_adapter import train
from resources.assistant.app import create_app
from tests.finetuning.training.adapter_jobs import data, job_of
from tests.tiny_models import ZEPHYR, save_tiny_model, talkative

KWARGS = {"dtype": "float32", "device_map": {"": "cpu"}, "use_safetensors": True, "trust_remote_code": False}
RECIPE = {
    "summary": "A tiny model",
    "base_model": {"repo": "tiny", "dtype": "float32"},
    "dataset": {
        "sources": [{"generator": "linear-equations", "format": "question-answer", "rows": 40, "system": "Solve it."}],
        "eval": {"fraction": 0.2},
    },
    "training": {"bf16": False},
    "evaluation": {"metrics": ["exact-match"], "max_new_tokens": 24},
    "hub": {"repo": "tiny", "license": "apache-2.0"},
}


def tiny_source(folder: Path, chat_template=ZEPHYR, architecture: str = "smollm2-135m", **settings) -> Source:
    """Return such a model with its adapter, which lie in `folder`; `settings` go to the model's configuration."""
    made = talkative(save_tiny_model(architecture, folder / "made", chat_template, **settings))
    quantize(BaseModelSpec(repo=str(made)), made, folder / "base", KWARGS, "tiny")
    data(folder, made)
    steps = {"max_steps": 3, "learning_rate": 3e-2, "per_device_train_batch_size": 3}
    job = job_of(folder, folder / "base", {"lora_dropout": 0.0}, steps, model_kwargs=KWARGS)
    train(job, Progress(lambda line: None, ""))
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(RECIPE))
    return Source(
        name="tiny",
        recipe=load_file(file),
        base_model=folder / "base",
        adapter=job.output,
        tokenizer=job.output,
        source="lora_adapter/tiny/0123456789abcdef",
        verdict="passed: it is a test",
        examples=("Solve for x: 2x = 8.",),
    )


@dataclass(frozen=True)
class Served:
    """An assistant, and the address at which it is served."""

    url: str
    assistant: Assistant


@contextmanager
def served(source: Source) -> Iterator[Served]:
    """Serve an assistant on loopback within the block."""
    assistant = Assistant(source, KWARGS)
    bound = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(assistant), log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Served(f"http://127.0.0.1:{bound.getsockname()[1]}", assistant)
    finally:
        server.should_exit = True
        thread.join(20)
