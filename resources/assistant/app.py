"""The assistant over HTTP: OpenAI's chat completions, and one page to talk to both sides.

It is for this machine alone: requests that a foreign web page sends, or that reach it under another host's name, are
refused.
"""

import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from finetuning.assistant.assistant import Assistant, UnknownModel
from finetuning.assistant.batches import Busy, Row
from finetuning.assistant.conversations import BadRequest, Prompt
from finetuning.assistant.replies import Delta, Said
from finetuning.errors import FinetuningError
from finetuning.feedback.entries import FeedbackFull, FeedbackRefused
from resources.assistant import feedback
from resources.assistant.requests import ChatRequest, request_of
from resources.markdown import as_html

PAGE = Path(__file__).parent / "page"
MOST_BYTES = 2**20  # of a request
POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)
STATUS = {
    UnknownModel: (404, "model_not_found"),
    Busy: (429, "busy"),
    BadRequest: (400, "invalid_request_error"),
    FeedbackRefused: (400, "feedback_refused"),
    FeedbackFull: (507, "feedback_full"),
}


@dataclass
class Waiting:
    """A client that waits for an answer, on the event loop; what is told comes from the thread that answers."""

    loop: asyncio.AbstractEventLoop
    told: asyncio.Queue[Delta | tuple[Said, str | Exception]] = field(default_factory=asyncio.Queue)

    def news(self, delta: Delta) -> None:
        self._tell(delta)

    def end(self, said: Said, reason: str | Exception) -> None:
        self._tell((said, reason))

    def _tell(self, what: Delta | tuple[Said, str | Exception]) -> None:
        with suppress(RuntimeError):  # where the server has ended, and with it whoever waited
            self.loop.call_soon_threadsafe(self.told.put_nowait, what)


@dataclass
class Answering:
    """One request while it is answered."""

    assistant: Assistant
    request: ChatRequest
    waiting: Waiting
    row: Row
    prompt: Prompt
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self) -> dict[str, Any]:
        """Return the answer once it has ended.

        Raises:
            Exception: what ended it, where that was an error.
        """
        while isinstance(told := await self.waiting.told.get(), Delta):
            pass
        said, reason = told
        if isinstance(reason, Exception):
            raise reason
        message: dict[str, Any] = {"role": "assistant", "content": said.content}
        if said.reasoning:
            message["reasoning_content"] = said.reasoning
        if said.calls:
            message |= {"content": said.content or None, "tool_calls": self._calls(said)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(said, reason)}
        return self._head("chat.completion") | {"choices": [choice], "usage": self._usage(said)} | self._more()

    async def events(self) -> AsyncIterator[str]:
        """Yield the answer as server-sent events while it comes; a client that goes ends it."""
        try:
            yield self._chunk({"role": "assistant", "content": ""}, **self._more())
            while isinstance(told := await self.waiting.told.get(), Delta):
                given = {"content": told.content, "reasoning_content": told.reasoning}
                yield self._chunk({key: text for key, text in given.items() if text})
            said, reason = told
            if isinstance(reason, Exception):
                yield event(problem(reason)[1])
            else:
                if said.calls:
                    calls = [{"index": i, **call} for i, call in enumerate(self._calls(said))]
                    yield self._chunk({"tool_calls": calls})
                yield self._chunk({}, finish_reason(said, reason))
                options = self.request.stream_options
                if options and options.include_usage:
                    yield event(self._head("chat.completion.chunk") | {"choices": [], "usage": self._usage(said)})
            yield "data: [DONE]\n\n"
        finally:
            self.row.left.set()

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.request.model}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event(self._head("chat.completion.chunk") | {"choices": [choice]} | more)

    def _more(self) -> dict[str, Any]:
        """What OpenAI's answers do not have: turns that did not fit, and what the question was asked with."""
        passages = [
            {"number": number, "document": one.document, "heading": one.heading, "text": one.text, "offset": one.offset}
            for number, one in enumerate(self.prompt.passages, 1)
        ]
        left_out = self.prompt.left_out_turns
        return ({"left_out_turns": left_out} if left_out else {}) | ({"passages": passages} if passages else {})

    def _usage(self, said: Said) -> dict[str, int]:
        asked, told = len(self.prompt.ids), said.tokens
        return {"prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told}

    def _calls(self, said: Said) -> list[dict[str, Any]]:
        return [
            {"id": f"call_{self.id[-8:]}{i}", "type": "function", "function": call._asdict()}
            for i, call in enumerate(said.calls)
        ]


def create_app(assistant: Assistant) -> Starlette:
    """Return the application that serves an assistant."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(assistant.close)

    async def models(request: Request) -> Response:
        listed = [
            {"id": name, "object": "model", "created": 0, "owned_by": assistant.source.source}
            for name in assistant.names
        ]
        return JSONResponse({"object": "list", "data": listed})

    async def model(request: Request) -> Response:
        assistant.require_side(request.path_params["name"])
        return JSONResponse(
            {
                "id": request.path_params["name"],
                "object": "model",
                "created": 0,
                "owned_by": assistant.source.source,
            }
        )

    async def chat(request: Request) -> Response:
        asked = request_of(await body_of(request))
        assistant.require_side(asked.model)
        waiting = Waiting(asyncio.get_running_loop())
        given = (asked.model, asked.conversation, asked.how, waiting)
        # To look something up takes longer than others should wait for.
        row, prompt = await asyncio.to_thread(assistant.ask, *given) if assistant.library else assistant.ask(*given)
        answering = Answering(assistant, asked, waiting, row, prompt)
        if asked.stream:
            return StreamingResponse(answering.events(), media_type="text/event-stream", headers=POLICY)
        try:
            return JSONResponse(await unless_left(request, answering), headers=POLICY)
        except ClientDisconnect:
            return Response(status_code=499)  # that nobody reads

    async def about(request: Request) -> Response:
        source = assistant.source
        return JSONResponse(
            {
                "title": source.name,
                "summary": source.recipe.summary,
                "tuned": assistant.tuned,
                "base": assistant.base,
                "source": source.source,
                "verdict": source.verdict,
                "system": assistant.system,
                "max_tokens": assistant.max_tokens,
                "most_tokens": assistant.context_tokens // 2,
                "context_tokens": assistant.context_tokens,
                "examples": source.examples,
                "tools": assistant.renderer.abilities.tools,
                "documents": assistant.library is not None,
                "feedback": feedback.about(source),
            },
            headers=POLICY,
        )

    async def markdown(request: Request) -> Response:
        try:
            text = json.loads(await body_of(request))["text"]
        except (ValueError, TypeError, KeyError, RecursionError):
            text = None
        if not isinstance(text, str):
            raise BadRequest("the body has to be an object with a text")
        return JSONResponse({"html": await asyncio.to_thread(as_html, text)}, headers=POLICY)

    async def say(request: Request) -> Response:
        return await feedback.add(request, assistant.source, await body_of(request))

    async def take_back(request: Request) -> Response:
        return await feedback.take_back(request, assistant.source)

    async def page(request: Request) -> Response:
        return FileResponse(PAGE / "index.html", headers=POLICY)

    async def part(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in {path.name for path in PAGE.iterdir()}:
            return JSONResponse(error_of(f"there is no {name} here", "not_found"), 404)
        return FileResponse(PAGE / name, headers=POLICY)

    routes = [
        Route("/", page),
        Route("/page/{name}", part),
        Route("/assistant", about),
        Route("/markdown", markdown, methods=["POST"]),
        Route("/feedback", say, methods=["POST"]),
        Route("/feedback/{id}", take_back, methods=["DELETE"]),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/v1/chat/completions", chat, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {FinetuningError: told, 404: not_here, 405: not_here, Exception: told}
    return Starlette(
        routes=routes, middleware=[Middleware(ThisMachineAlone)], exception_handlers=handlers, lifespan=lifespan
    )


async def unless_left(request: Request, answering: Answering) -> dict[str, Any]:
    """Return the answer, unless its client goes before: that frees its place.

    Raises:
        ClientDisconnect: it has gone.
    """
    answer = asyncio.ensure_future(answering.whole())
    gone = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answering.row.left.set()
        for task in (answer, gone):
            task.cancel()


async def disconnected(request: Request) -> None:
    """Return when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def body_of(request: Request) -> bytes:
    """Return what was sent.

    Raises:
        BadRequest: it is too much.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise BadRequest(f"the request has more than {MOST_BYTES:,} bytes")
    return body


def finish_reason(said: Said, reason: str) -> str:
    """Return why an answer ended, in OpenAI's words."""
    return "tool_calls" if said.calls else "length" if reason == "length" else "stop"


def event(data: dict[str, Any]) -> str:
    """Return a server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def error_of(message: str, kind: str) -> dict[str, Any]:
    """Return an error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": kind}}


def problem(error: Exception) -> tuple[int, dict[str, Any]]:
    """Return status and body that tell a client of an error."""
    status, kind = next((found for cls, found in STATUS.items() if isinstance(error, cls)), (500, "server_error"))
    known = isinstance(error, FinetuningError)
    return status, error_of(str(error) if known else f"{type(error).__name__}: the answer failed", kind)


async def told(request: Request, error: Exception) -> Response:
    """Answer with an error."""
    status, body = problem(error)
    return JSONResponse(body, status, headers={"Retry-After": "1"} if status == 429 else None)


async def not_here(request: Request, error: Exception) -> Response:
    """Answer that there is no such page, or none for this method."""
    status = getattr(error, "status_code", 404)
    what = "is not asked in this way" if status == 405 else "is not here"
    return JSONResponse(error_of(f"{request.method} {request.url.path} {what}", "not_found"), status)


class ThisMachineAlone:
    """Refuses requests for another host, and those that a page of another origin sends."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (why := foreign(Request(scope))):
            await JSONResponse(error_of(why, "forbidden"), 403)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def foreign(request: Request) -> str | None:
    """Return why a request is not from this machine's own pages and programs; None if it is."""
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if not LOOPBACK.fullmatch(host):
        return f"the host {host[:100]!r} is not this machine"
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        return f"pages of {origin[:100]!r} may not ask here"
    return None
