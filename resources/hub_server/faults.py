"""What a test may ask of the server: which requests came, and errors in place of answers.

A fault is `{"method": "POST", "path": "/commit/", "status": 503, "times": 2, "headers": {"Retry-After": "0"}}`: the
next two POST requests whose path matches the expression get that status.
"""

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send


class Faults:
    """Middleware that keeps a log of the requests and answers some of them with an error."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.log: list[tuple[str, str]] = []
        self.faults: list[dict[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/_test/log":
            await JSONResponse(self.log)(scope, receive, send)
        elif scope["path"] == "/_test/faults":
            self.faults = await Request(scope, receive).json()
            await JSONResponse({})(scope, receive, send)
        else:
            self.log.append((scope["method"], scope["path"]))
            answer = self._fault(scope["method"], scope["path"]) or self.app
            await answer(scope, receive, send)

    def _fault(self, method: str, path: str) -> Response | None:
        for fault in self.faults:
            if fault["times"] > 0 and fault["method"] == method and re.search(fault["path"], path):
                fault["times"] -= 1
                return JSONResponse({"error": "injected"}, fault["status"], headers=fault.get("headers"))
        return None
