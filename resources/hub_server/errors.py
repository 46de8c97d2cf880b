"""How the server refuses a request, in the form that the client turns into its own exceptions."""

import secrets

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class HubError(Exception):
    """A refusal: HTTP status, message, and the `X-Error-Code` by which the client picks its exception."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.body = status, message, code, body


def repo_not_found(status: int = 404) -> HubError:
    return HubError(status, "Repository not found", "RepoNotFound")


def entry_not_found(message: str = "Entry not found") -> HubError:
    return HubError(404, message, "EntryNotFound")


def revision_not_found(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def refusal(_request: Request, error: Exception) -> Response:
    """The reply that carries a `HubError`."""
    assert isinstance(error, HubError)
    # Messages repeat paths and names, and a header holds one line of ASCII.
    header = error.message.encode("unicode_escape").decode()
    headers = {"X-Error-Message": header, "X-Request-Id": secrets.token_hex(8)}
    if error.code:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": error.message, **error.body}, error.status, headers)
