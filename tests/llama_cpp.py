"""llama.cpp's own server over a GGUF file, in this process: what it makes of a conversation, and what it answers."""

import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import xllamacpp


class LlamaCpp:
    """llama.cpp with the model of one file, as `llama-server -m FILE --jinja` has it, with one thread."""

    def __init__(self, file: Path) -> None:
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel = str(file), 512, 1
        params.cpuparams.n_threads, params.n_gpu_layers, params.warmup = 1, 0, False
        params.use_jinja, params.port, params.verbosity = True, 0, 0
        self._server = xllamacpp.Server(params)

    def _asked(self, path: str, **body: Any) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        request = Request(self._server.listening_address + path, json.dumps(body).encode(), headers)
        with urlopen(request) as answer:
            return json.load(answer)

    def prompt(self, messages: list[dict[str, str]]) -> list[int]:
        """The tokens of the prompt that it makes of the messages by the file's own chat template."""
        return self.tokens(self._asked("/apply-template", messages=messages)["prompt"])

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text that it reads as a prompt."""
        return self._asked("/tokenize", content=text, add_special=True, parse_special=True)["tokens"]

    def answered(self, messages: list[dict[str, str]], most: int) -> tuple[list[int], str, int]:
        """The tokens of its greedy answer, why that ended, and how many tokens the prompt had."""
        found = self._asked(
            "/v1/chat/completions", messages=messages, temperature=0, max_tokens=most, verbose=True, return_tokens=True
        )
        said, reason = found["__verbose"], found["choices"][0]["finish_reason"]
        return said["tokens"], reason, said["tokens_evaluated"]
