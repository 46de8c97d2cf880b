"""Which account asks, for which repo, and whether it may."""

import hmac
import json
import secrets
from dataclasses import dataclass, field
from urllib.parse import unquote

from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from resources.hub_server.accounts import Account
from resources.hub_server.errors import HubError, repo_not_found
from resources.hub_server.store import KINDS, Repo, Store, sha1

Json = dict[str, JsonValue]
"""A JSON object of the API: what a client sent, of which nothing is known yet, or a reply."""


@dataclass
class Hub:
    """What the requests to one running server share."""

    store: Store
    accounts: dict[str, Account]
    show_private: bool = False
    cdn_origin: str | None = None
    instance: str = field(default_factory=lambda: secrets.token_hex(16))
    upload_links: dict[str, tuple[str, int, str]] = field(default_factory=dict)  # key -> SHA-256, bytes, account
    xet_keys: dict[str, tuple[float, str]] = field(default_factory=dict)  # key -> its end (seconds since 1970), account
    brought: dict[str, set[str]] = field(default_factory=dict)  # account -> SHA-256 of large files that it sent here
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def may_link(self, account: Account, repo: Repo, sha256: str) -> bool:
        """Whether the account may commit the large file of that name: it sent it, or can read it anyway.

        Who knows no more of a file than its SHA-256 has it sent again.
        """
        if not self.store.lfs_path(sha256).exists():
            return False
        if sha256 in self.brought.get(account.name, ()) or repo.holds(sha256):
            return True
        return any(
            other.holds(sha256)
            for kind in KINDS
            for other in self.store.repos(kind)
            if account.is_member(other.id) or not (other.private or other.gated)
        )

    def signature(self, sha256: str) -> str:
        """What an address of a large file in the storage carries, so that its name alone opens nothing."""
        return hmac.new(self.secret, sha256.encode(), "sha256").hexdigest()


def hub_of(request: Request) -> Hub:
    return request.app.state.hub


def account_of(request: Request) -> Account | None:
    """The account whose token the request carries, None where it carries none.

    Raises:
        HubError: 401, the token is not known.
    """
    header = request.headers.get("authorization")
    if not header:
        return None
    account = hub_of(request).accounts.get(header.removeprefix("Bearer ").strip())
    if account is None:
        raise HubError(401, "Invalid credentials in Authorization header")
    return account


def known_account(request: Request) -> Account:
    """The account that asks.

    Raises:
        HubError: 401, the request carries no token, or one that is not known.
    """
    account = account_of(request)
    if account is None:
        raise HubError(401, "Invalid username or password.")
    return account


def require_write(account: Account, repo_id: str) -> None:
    if not account.may_write(repo_id):
        raise HubError(403, "Forbidden: you must use a write token with access to this namespace")


def kind_in(request: Request) -> str:
    """The kind of repo that the path is about; a model's address outside of the API does not name it."""
    first, second = (*request.url.path.split("/")[1:3], "", "")[:2]
    kind = second if first == "api" else first
    return kind if kind in KINDS else "models"


def param(request: Request, name: str, default: str = "") -> str:
    """A part of the path, decoded: routes match the path as it was sent, since revisions may hold slashes."""
    return unquote(request.path_params.get(name, default))


def visible_repo(request: Request) -> Repo:
    """The repo that the path names.

    Raises:
        HubError: 404 (401 without a token), there is none or the account may not know of it.
    """
    repo_id = f"{param(request, 'ns')}/{param(request, 'name')}"
    account, repo = account_of(request), hub_of(request).store.repo(kind_in(request), repo_id)
    if repo is None or (repo.private and not (account and account.is_member(repo.id))):
        raise repo_not_found(404 if account else 401)
    return repo


def readable_repo(request: Request) -> Repo:
    """The repo that the path names, to an account that may read its files.

    Raises:
        HubError: as for `visible_repo`, and 403 (401 without a token) where the repo is gated and access not granted.
    """
    repo, account = visible_repo(request), account_of(request)
    if repo.gated and not (account and (account.is_member(repo.id) or account.name in repo.granted)):
        raise HubError(403 if account else 401, f"Access to {repo.kind[:-1]} {repo.id} is restricted", "GatedRepo")
    return repo


def writable_repo(request: Request) -> tuple[Repo, Account]:
    """The repo that the path names, and the account that may change it.

    Raises:
        HubError: as for `visible_repo`, 401 without a token, 403 with a token that may not write there.
    """
    repo, account = visible_repo(request), known_account(request)
    require_write(account, repo.id)
    return repo, account


async def json_object(request: Request) -> Json:
    """Return the request's body.

    Raises:
        HubError: 400, it is not a JSON object.
    """
    try:
        body = parsed(await request.body())
    except ValueError as error:
        raise HubError(400, f"The body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise HubError(400, "The body is not a JSON object")
    return body


def parsed(text: bytes) -> JsonValue:
    """Return what JSON text holds.

    Raises:
        ValueError: it is no JSON, is too deep, or has what no reply could repeat: NaN, or half of a character.
    """
    try:
        value = json.loads(text, parse_constant=_refused)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is too deep") from None
    return value


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def objects_in(value: JsonValue) -> list[Json]:
    """Return the objects of a list that a client sent.

    Raises:
        HubError: 400, it is not a list of objects.
    """
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise HubError(400, "The body holds no list of JSON objects where there has to be one")
    return [item for item in value if isinstance(item, dict)]


async def whoami(request: Request) -> Response:
    account = known_account(request)
    organizations = [{"type": "org", "name": name, "roleInOrg": "write"} for name in account.organizations]
    return JSONResponse(
        {
            "type": "user",
            "id": sha1(account.name.encode())[:24],
            "name": account.name,
            "fullname": account.name,
            "isPro": False,
            "orgs": organizations,
            "auth": {"type": "access_token", "accessToken": {"displayName": "local", "role": account.role}},
        }
    )


async def auth_check(request: Request) -> Response:
    readable_repo(request)
    return JSONResponse({})
