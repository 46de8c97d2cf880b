"""One request while it is answered: as one object once all is said, or as events while it comes."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from finetuning.assistant.assistant import Assistant, UnknownModel
from finetuning.assistant.batches import Busy, Row
from finetuning.assistant.conversations import BadRequest, Prompt
from finetuning.assistant.replies import Delta, Said
from finetuning.errors import FinetuningError
from finetuning.feedback.entries import FeedbackFull, FeedbackRefused
from resources.assistant.requests import ChatRequest

POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
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
        """Yield the answer as server-sent events while it comes."""
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


class Streamed(StreamingResponse):
    """The answer while it comes; it ends when its client goes, even one that goes before its first event."""

    def __init__(self, answering: Answering) -> None:
        super().__init__(answering.events(), media_type="text/event-stream", headers=POLICY)
        self._row = answering.row

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._row.left.set()


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
