"""Repos as a whole: create, list, settings, access to gated ones, delete."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from resources.hub_server.access import (
    Json,
    account_of,
    hub_of,
    json_object,
    kind_in,
    known_account,
    require_write,
    writable_repo,
)
from resources.hub_server.accounts import Account
from resources.hub_server.errors import HubError, repo_not_found
from resources.hub_server.store import GATED, Commit, Gated, Repo, is_repo_id, now, sha1

# What the Hub itself writes into a new repo; these names are uploaded as large files whatever their size.
LARGE_FILES = (
    *("*.7z", "*.arrow", "*.bin", "*.bz2", "*.ckpt", "*.ftz", "*.gz", "*.h5", "*.joblib", "*.lfs.*", "*.mlmodel"),
    *("*.model", "*.msgpack", "*.npy", "*.npz", "*.onnx", "*.ot", "*.parquet", "*.pb", "*.pickle", "*.pkl", "*.pt"),
    *("*.pth", "*.rar", "*.safetensors", "*.tar", "*.tflite", "*.tgz", "*.wasm", "*.xz", "*.zip", "*.zst"),
    "*tfevents*",
)
GITATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE_FILES)


async def create_repo(request: Request) -> Response:
    body, account = await json_object(request), known_account(request)
    kind, repo_id = _named(body, account)
    if not is_repo_id(kind, repo_id):
        raise HubError(400, f"Invalid repo name: {kind}/{repo_id}")
    require_write(account, repo_id)
    store, url = hub_of(request).store, repo_url(request, kind, repo_id)
    if store.repo(kind, repo_id):
        raise HubError(409, f"You already created this {kind[:-1]} repo", url=url)
    private = body.get("visibility") == "private" or bool(body.get("private"))
    tree = {".gitattributes": store.put_blob(GITATTRIBUTES.encode())}
    repo = Repo(kind, repo_id, private, created=now())
    store.commit(repo, "refs/heads/main", Commit(tree, author=account.name, title="initial commit"))
    return JSONResponse({"url": url, "name": repo_id, "id": repo_key(repo_id)})


async def delete_repo(request: Request) -> Response:
    body, account = await json_object(request), known_account(request)
    kind, repo_id = _named(body, account)
    repo = hub_of(request).store.repo(kind, repo_id)
    if repo is None or (repo.private and not account.is_member(repo_id)):
        raise repo_not_found()
    require_write(account, repo_id)
    hub_of(request).store.delete(repo)
    return Response("OK")


async def list_repos(request: Request) -> Response:
    account, query = account_of(request), request.query_params
    found = []
    for repo in hub_of(request).store.repos(kind_in(request)):
        owner = repo.id.split("/")[0]
        allowed = not repo.private or (account is not None and account.is_member(repo.id))
        if allowed and query.get("author", owner) == owner and query.get("search", "") in repo.id:
            found.append(_listed(repo))
    return JSONResponse(found)


async def change_settings(request: Request) -> Response:
    body = await json_object(request)
    repo, _ = writable_repo(request)
    if "visibility" in body:
        repo.private = body["visibility"] == "private"
    if "gated" in body:
        known: list[Gated] = [word for word in GATED if word == body["gated"]]
        if not known:
            raise HubError(400, f"gated is false, auto or manual, not {body['gated']!r}")
        repo.gated = known[0]
    hub_of(request).store.save(repo)
    return JSONResponse({"private": repo.private, "gated": repo.gated})


async def grant_access(request: Request) -> Response:
    body = await json_object(request)
    repo, _ = writable_repo(request)
    repo.granted = sorted({*repo.granted, str(body.get("user"))})
    hub_of(request).store.save(repo)
    return JSONResponse({})


def repo_url(request: Request, kind: str, repo_id: str) -> str:
    """The address of the repo's page."""
    return str(request.base_url) + ("" if kind == "models" else f"{kind}/") + repo_id


def repo_key(repo_id: str) -> str:
    """The opaque id that the Hub gives beside the name."""
    return sha1(repo_id.encode())[:24]


def _named(body: Json, account: Account) -> tuple[str, str]:
    kind, owner, name = body.get("type") or "model", body.get("organization") or account.name, body.get("name") or ""
    if not all(isinstance(part, str) for part in (kind, owner, name)):
        raise HubError(400, "type, organization and name have to be text")
    return f"{kind}s", f"{owner}/{name}"


def _listed(repo: Repo) -> Json:
    return {
        "id": repo.id,
        "private": repo.private,
        "createdAt": repo.created,
        "likes": 0,
        "downloads": 0,
        "tags": [],
        "sha": repo.refs["refs/heads/main"],
    }
