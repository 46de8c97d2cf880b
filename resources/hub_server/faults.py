"""What a test may ask of the server: which requests came, and faults in place of answers.

A fault is `{"method": "POST", "path": "/commit/", "status": 503, "times": 2, "headers": {"Retry-After": "0"}}`: the
next two POST requests whose path matches the expression get that status. Everything but `times` may be left out:

    number   this request alone, counted from 0 since the faults were set
    acted    the server does what it was asked, and only the answer is lost
    kind     what comes in place of the answer: `status`; `reset`, the connection breaks; `silence`, nothing for as long
             as the client waits; or `slow`, the head at once and then a byte every `pause` seconds
"""

import asyncio
import re
import socket
import struct
from dataclasses import dataclass, field
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass
class Fault:
    """What comes in place of the answer to some requests, as the head of this module tells it."""

    times: int
    """How often, from now on."""
    method: str | None = None
    path: str = ""
    number: int | None = None
    acted: bool = False
    kind: Literal["status", "reset", "silence", "slow"] = "status"
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
    """Seconds."""


class Faults:
    """Middleware that keeps a log of the requests and answers some of them with a fault."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.log: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.first = 0  # of the log, since the faults were set

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/_test/log":
            await JSONResponse(self.log)(scope, receive, send)
        elif scope["path"] == "/_test/faults":
            self.faults = [Fault(**fault) for fault in await Request(scope, receive).json()]
            self.first = len(self.log)
            await JSONResponse({})(scope, receive, send)
        else:
            self.log.append((scope["method"], scope["path"]))
            fault = self._fault(scope["method"], scope["path"])
            if fault is None:
                await self.app(scope, receive, send)
            else:
                answer = await self._answer(scope, receive) if fault.acted else await _unread(scope, receive)
                await _disturbed(answer, fault, receive, send)

    def _fault(self, method: str, path: str) -> Fault | None:
        number = len(self.log) - 1 - self.first
        for fault in self.faults:
            meant = fault.number in (None, number) and fault.method in (None, method)
            if meant and fault.times > 0 and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    async def _answer(self, scope: Scope, receive: Receive) -> list[Message]:
        """What the application answers, which it does not get to send."""
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self.app(scope, receive, keep)
        return answer


async def _unread(scope: Scope, receive: Receive) -> list[Message]:
    """Read a request that the application never sees; return an answer that is never sent."""
    await Request(scope, receive).body()
    start = {"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"2")]}
    return [start, {"type": "http.response.body", "body": b"{}"}]


async def _disturbed(answer: list[Message], fault: Fault, receive: Receive, send: Send) -> None:
    match fault.kind:
        case "reset":
            _reset(receive)
            await _gone(receive)
        case "silence":
            await _gone(receive)
        case "slow":
            await _trickle(answer, fault.pause, receive, send)
        case _:
            refusal = JSONResponse({"error": "injected"}, fault.status, headers=fault.headers)
            await refusal({"type": "http"}, receive, send)


async def _trickle(answer: list[Message], pause: float, receive: Receive, send: Send) -> None:
    start, *parts = answer
    await send(start)
    for byte in b"".join(part.get("body", b"") for part in parts):
        await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
        if await _gone(receive, pause):
            return
    await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive, seconds: float | None = None) -> bool:
    """Return whether the client has left, within that time."""
    try:
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return False
    return True


def _reset(receive: Receive) -> None:
    # There is no word for this in ASGI: the connection is the one that uvicorn's own `receive` belongs to. Closed
    # without lingering, it ends with a reset instead of a farewell.
    transport = receive.__self__.transport  # pyright: ignore[reportFunctionMemberAccess]
    linger = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
