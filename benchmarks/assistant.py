"""How many tokens a second the assistant writes for one, 8 and 32 clients, beside `transformers serve`.

`python -m benchmarks.assistant smollm2-135m` asks both servers the questions of the recipe's exam, in turn, round by
round. An adapter's folder is no model for `transformers serve`: it gets the adapter merged into the weights that it was
trained on, in the same number format, so that it has less to compute. It needs `pip install fastapi`.

The last line of the output is one JSON object.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError

import torch
from transformers import AutoTokenizer

from benchmarks.sides import ROOT, WORK
from finetuning.assistant.source import Source
from finetuning.merge.merged_model import merged_model
from resources.artifacts import Artifacts
from resources.assistant.sources import of_recipe
from resources.gpu import Gpu
from resources.hub import Hub
from resources.loopback import listening

CLIENTS = (1, 8, 32)
QUESTIONS_EACH = 2  # of a client, one after the other
MOST_TOKENS = 96
PATIENCE = 300.0  # seconds until a server has to answer


def main(arguments: list[str] | None = None) -> None:
    """Print the table and the JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.assistant", description=__doc__)
    parser.add_argument("recipe", help="its adapter on this machine is asked")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured (3)")
    options = parser.parse_args(arguments)
    artifacts = Artifacts.of_environment()
    source = of_recipe(options.recipe, artifacts, Hub.of_environment())
    questions = questions_of(artifacts.current("evaluation_report", options.recipe).path)
    WORK.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="assistant-", dir=WORK) as folder:
        system = write_merged(source, folder)
        ports = {side: free_port() for side in ("this project", "transformers serve")}
        commands = {
            "this project": ["-m", "resources.assistant", "serve", options.recipe, "--port"],
            "transformers serve": ["-m", "transformers.cli.transformers", "serve", folder, "--port"],
        }
        models = {"this project": source.name, "transformers serve": folder}
        speeds: dict[str, dict[int, list[float]]] = {side: {number: [] for number in CLIENTS} for side in ports}
        with (
            serving(commands["this project"], ports["this project"], folder),
            serving(commands["transformers serve"], ports["transformers serve"], folder),
        ):
            for side, port in ports.items():
                tokens_per_second(port, models[side], system, questions, 1)  # loads, and computes once
            for _ in range(options.rounds):
                for number in CLIENTS:
                    for side, port in ports.items():
                        speed = tokens_per_second(port, models[side], system, questions, number)
                        speeds[side][number].append(speed)
                        print(f"{side}, {number} clients: {speed:.1f} tokens/s", flush=True)
    print(json.dumps({side: {n: round(median(found), 1) for n, found in by.items()} for side, by in speeds.items()}))


def write_merged(source: Source, folder: str) -> str:
    """Write the adapter, merged into its base, with the tokenizer; return what the recipe says to the model first."""
    assert source.adapter, "an adapter on this machine is beside its base"
    kwargs = Gpu(locks=None).model_kwargs(source.recipe.base_model)
    trust = source.recipe.base_model.trust_remote_code
    tokenizer = AutoTokenizer.from_pretrained(source.tokenizer, trust_remote_code=trust)
    dtype = getattr(torch, kwargs["dtype"])
    merged_model(source.base_model, source.adapter, tokenizer, dtype, kwargs).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return source.recipe.dataset.sources[0].system or ""


def questions_of(report: Path) -> list[str]:
    """Return the questions of the exam."""
    import pandas as pd

    return pd.read_parquet(report / "samples.parquet")["question"].tolist()


def tokens_per_second(port: int, model: str, system: str, questions: list[str], clients: int) -> float:
    """Return how many tokens of answers so many clients were given a second, all together."""

    def asked(client: int) -> int:
        tokens = 0
        for number in range(QUESTIONS_EACH):
            question = questions[(client * QUESTIONS_EACH + number) % len(questions)]
            messages = [{"role": "system", "content": system}] if system else []
            messages.append({"role": "user", "content": question})
            answer = post(port, {"model": model, "messages": messages, "max_tokens": MOST_TOKENS, "temperature": 0.0})
            tokens += answer["usage"]["completion_tokens"]
        return tokens

    started = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        tokens = sum(pool.map(asked, range(clients)))
    return tokens / (time.monotonic() - started)


def post(port: int, data: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a request for a completion."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(data).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


@contextmanager
def serving(command: list[str], port: int, folder: str) -> Iterator[None]:
    """Serve within the block."""
    name, offline = re.sub(r"\W", "", command[1]), os.environ | {"HF_HUB_OFFLINE": "1"}
    with Path(folder, f"{name}.log").open("w") as log:
        server = subprocess.Popen([sys.executable, *command, str(port)], cwd=ROOT, env=offline, stdout=log, stderr=log)
        try:
            end = time.monotonic() + PATIENCE
            while not is_up(port):
                if server.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"{command[1]} did not start:\n{Path(log.name).read_text()[-3000:]}")
                time.sleep(0.2)
            yield
        finally:
            server.terminate()
            server.wait(30)


def is_up(port: int) -> bool:
    """Whether a server answers there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=PATIENCE):
            return True
    except HTTPError:  # `transformers serve`, which lists what lies in a cache and has none
        return True
    except OSError:
        return False


def free_port() -> int:
    """Return a port that nobody listens at."""
    found = listening(0)
    assert found
    with found:
        return found.getsockname()[1]


if __name__ == "__main__":
    main()
