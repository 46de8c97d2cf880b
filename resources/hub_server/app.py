"""The web application: every address that the server answers."""

from collections.abc import Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from resources.hub_server import access, cards, commits, lfs, pages, reading, refs, repos, xet
from resources.hub_server.access import Hub
from resources.hub_server.accounts import Account
from resources.hub_server.errors import HubError, refusal
from resources.hub_server.faults import Faults
from resources.hub_server.store import KINDS, Store

# Every handler is `async def`: a plain function would run in a thread, beside the change of a repo that another request
# is in the middle of (see `commits.commit`).
API = [
    ("", "GET", reading.repo_info),
    ("/revision/{rev}", "GET", reading.repo_info),
    ("/tree/{rev}", "GET", reading.list_tree),
    ("/tree/{rev}/{path:path}", "GET", reading.list_tree),
    ("/paths-info/{rev}", "POST", reading.paths_info),
    ("/commits/{rev}", "GET", reading.list_commits),
    ("/auth-check", "GET", access.auth_check),
    ("/preupload/{rev}", "POST", commits.preupload),
    ("/commit/{rev}", "POST", commits.commit),
    ("/refs", "GET", refs.list_refs),
    ("/tag/{rev}", "POST", refs.create_tag),
    ("/tag/{rev}", "DELETE", refs.delete_tag),
    ("/branch/{rev}", "POST", refs.create_branch),
    ("/branch/{rev}", "DELETE", refs.delete_branch),
    ("/settings", "PUT", repos.change_settings),
    ("/user-access-request/grant", "POST", repos.grant_access),
    ("/xet-write-token/{rev}", "GET", xet.write_token),
]
FILES = [
    (".git/info/lfs/objects/batch", "POST", lfs.batch),
    ("/resolve/{rev}/{path:path}", "GET", reading.read_file),
    ("", "GET", pages.repo_page),
    ("/tree/{rev}", "GET", pages.repo_page),
    ("/tree/{rev}/{path:path}", "GET", pages.repo_page),
    ("/commit/{rev}", "GET", pages.repo_page),
    ("/blob/{rev}/{path:path}", "GET", pages.file_page),
    ("/raw/{rev}/{path:path}", "GET", pages.raw_file),
]


class UndecodedPath:
    """Middleware that routes on the path as it was sent, since a revision may hold a slash (`refs%2Fpr%2F1`)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": scope["raw_path"].split(b"?")[0].decode("latin-1")}
        await self.app(scope, receive, send)


def create_app(
    state: Path,
    accounts: Mapping[str, Account],
    *,
    show_private: bool = False,
    cdn_origin: str | None = None,
    testing: bool = False,
) -> Starlette:
    """The application over the state folder, for the accounts by token.

    `show_private` opens the pages (not the API) of private repos to whoever reaches the server. `cdn_origin` makes
    large files come through a redirect to that origin, as on the Hub. `testing` adds what `faults` describes.
    """
    middleware = [
        Middleware(UndecodedPath),
        # A page elsewhere on the web can point a name of its own at this machine, and so read what is shown here.
        Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False),
        *([Middleware(Faults)] if testing else []),
    ]
    app = Starlette(routes=_routes(), middleware=middleware, exception_handlers={HubError: refusal})
    app.state.hub = Hub(Store(state), dict(accounts), show_private, cdn_origin)
    return app


def _routes() -> list[Route]:
    api = [(f"/api/{kind}/{{ns}}/{{name}}{tail}", method, answer) for kind in KINDS for tail, method, answer in API]
    files = [
        (f"{prefix}/{{ns}}/{{name}}{tail}", method, answer)
        for prefix in ("/datasets", "/spaces", "")  # a model's address does not name its kind
        for tail, method, answer in FILES
    ]
    table = [
        ("/", "GET", pages.index),
        ("/_server", "GET", _server),
        ("/_lfs/{key}", "PUT", lfs.upload),
        ("/_lfs-verify", "POST", lfs.verify),
        ("/_cdn/{oid}", "GET", lfs.download),
        ("/_cas/{instance}/v1/chunks/{prefix}/{hash}", "GET", xet.known_chunk),
        ("/_cas/{instance}/v1/xorbs/{prefix}/{hash}", "POST", xet.upload_xorb),
        ("/_cas/{instance}/v1/shards", "POST", xet.upload_shard),
        ("/api/whoami-v2", "GET", access.whoami),
        ("/api/repos/create", "POST", repos.create_repo),
        ("/api/repos/delete", "DELETE", repos.delete_repo),
        ("/api/validate-yaml", "POST", cards.validate_yaml),
        *((f"/api/{kind}", "GET", repos.list_repos) for kind in KINDS),
        *api,
        *files,
    ]
    return [Route(path, answer, methods=[method]) for path, method, answer in table]


async def _server(request: Request) -> Response:
    """Which server this is; whoever can read the state folder can tell whether it is that folder's."""
    return JSONResponse({"instance": access.hub_of(request).instance})
