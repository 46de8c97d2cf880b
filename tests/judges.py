"""A judge behind a real HTTP server on loopback, which speaks OpenAI's API and decides, or fails, as a test says."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from finetuning.evaluation.report import JudgeReport
from finetuning.judge.judge import Judge, judge_endpoint
from finetuning.progress import Progress
from finetuning.recipe.judge import JudgeSpec


class Asked(NamedTuple):
    """What stands between the marks of a question."""

    conversation: str
    a: str
    b: str


@dataclass
class Said:
    """What comes back: a reply, or anything else."""

    reply: str | None = "TIE"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    seconds: float = 0.0
    drop: bool = False
    """Whether the connection ends without an answer."""


Decide = Callable[[Asked], "str | Said"]


def asked_in(messages: list[dict[str, str]]) -> Asked:
    """The conversation and both answers, as who reads the marks alone has them."""
    mark = re.search(r"with the code (\w+)\.", messages[0]["content"])[1]
    text = messages[1]["content"]
    return Asked(
        *(
            re.search(rf"<<< {name} {mark}\n(.*?)\n>>> end of {name} {mark}", text, re.DOTALL)[1]
            for name in ("conversation", "answer A", "answer B")
        )
    )


def prefers(good: Callable[[str], float]) -> Decide:
    """A judge that chooses the answer of which `good` is more, whatever the order."""

    def decide(asked: Asked) -> str:
        a, b = good(asked.a), good(asked.b)
        return "TIE" if a == b else "A" if a > b else "B"

    return decide


class JudgeServer:
    """The server: who decides, and all that it was sent."""

    def __init__(self, decide: Decide) -> None:
        self.decide, self.bodies, self.headers, self.busy, self.most_busy = decide, list[Any](), list[Any](), 0, 0
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *of: object) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    server.bodies.append(body | {"path": self.path})
                    server.headers.append(dict(self.headers))
                    server.busy += 1
                    server.most_busy = max(server.most_busy, server.busy)
                said = server.decide(asked_in(body["messages"]))
                said = Said(said) if isinstance(said, str) else said
                time.sleep(said.seconds)
                with server.lock:
                    server.busy -= 1
                if said.drop:
                    self.close_connection = True
                    return
                usage = {"prompt_tokens": 100, "completion_tokens": 1}
                answer = {"choices": [{"message": {"role": "assistant", "content": said.reply}}], "usage": usage}
                content = json.dumps(answer).encode() if said.body is None else said.body
                self.send_response(said.status)
                for name, value in {"Content-Length": str(len(content)), **said.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def requests(self) -> int:
        return len(self.bodies)

    def spec(self, **more: Any) -> JudgeSpec:
        return JudgeSpec(endpoint=self.url, name="fake", **more)

    def start(self) -> None:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def judge_by(spec: JudgeSpec, folder: Path, progress: Progress, first_wait: float = 0.01) -> Judge:
    """The judge behind that endpoint, with the key of the environment."""
    return Judge(spec, judge_endpoint(spec, progress.log, first_wait), folder, progress)


@contextmanager
def judging(decide: Decide) -> Iterator[JudgeServer]:
    """Serve a judge within the block."""
    server = JudgeServer(decide)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def judge_report(agreement: float = 0.9, carries: bool = True) -> JudgeReport:
    """What a report says of a judge that agrees so often with people."""
    return JudgeReport(
        name="fake",
        asked_agreement=0.6,
        choices=40,
        agreement=agreement,
        agreement_interval=(round(agreement - 0.1, 6), round(agreement + 0.05, 6)),
        carries_verdict=carries,
        pairs=40,
        won=20,
        lost=10,
        same=0,
        unclear=0,
        orders_agree=0.9,
        winner_length=90.0,
        loser_length=60.0,
        longer_won=0.6,
        questions=160,
        tokens=(16000, 160),
    )
