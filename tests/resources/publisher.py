"""Publishes what its input asks for, and says what came of it: one JSON object a line, for each.

{"repo_id": "alice/it", "seed": 7, "tag": "000000000000000a", "folder": "/tmp/it", "timeout": 0.3, "deadline": 5}
{"commit": "4c2a…", "created": true, "mistake": null, "seconds": 0.1, "log": []}
"""

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from finetuning.errors import FinetuningError
from resources.hub_client.connection import HubConnection


def files(folder: Path, seed: int) -> dict[str, Path]:
    """Card, config and weights, all drawn with the seed."""
    content = {
        "README.md": f"---\nlicense: mit\n---\n# Seed {seed}\n".encode(),
        "config.json": json.dumps({"seed": seed}).encode(),
        "model.safetensors": random.Random(seed).randbytes(2000),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content_of_it in content.items():
        (folder / name).write_bytes(content_of_it)
    return {name: folder / name for name in content}


def publish(asked: dict[str, Any]) -> dict[str, Any]:
    log: list[str] = []
    api = HfApi(endpoint=os.environ["HF_ENDPOINT"], token=os.environ["HF_TOKEN"])
    waits = {key: asked[key] for key in ("timeout", "deadline", "pause")}
    connection = HubConnection("test", api.endpoint, api, **waits, log=log.append)
    answer: dict[str, Any] = {"commit": None, "created": None, "mistake": None, "log": log}
    start = time.monotonic()
    try:
        sent = files(Path(asked["folder"]), asked["seed"])
        repo_id = connection.repo_id(asked["repo_id"])
        made = connection.publish(repo_id, sent, tag=asked["tag"], title="Publish it", private=True)
        answer |= {"commit": made.commit, "created": made.created}
    except FinetuningError as mistake:
        answer["mistake"] = str(mistake)
    return {**answer, "seconds": time.monotonic() - start}


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(publish(json.loads(line))), flush=True)
