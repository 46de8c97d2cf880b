"""The assistant over HTTP: OpenAI's chat completions, and one page to talk to both sides.

It is for this machine alone: requests that a foreign web page sends, or that reach it under another host's name, are
refused.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from finetuning.assistant.assistant import Assistant
from finetuning.assistant.conversations import BadRequest
from finetuning.errors import FinetuningError
from resources.assistant import feedback
from resources.assistant.answers import POLICY, Answering, Streamed, Waiting, error_of, problem, unless_left
from resources.assistant.requests import request_of
from resources.markdown import as_html

PAGE = Path(__file__).parent / "page"
MOST_BYTES = 2**20  # of a request
LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)


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
        # To read a long conversation, or to look something up, takes longer than others should wait for.
        row, prompt = await asyncio.to_thread(assistant.ask, *given)
        answering = Answering(assistant, asked, waiting, row, prompt)
        if asked.stream:
            return Streamed(answering)
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
        return JSONResponse({"html": await asyncio.to_thread(as_html, text, by_line=True)}, headers=POLICY)

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
