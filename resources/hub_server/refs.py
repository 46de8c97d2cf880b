"""Branches and tags."""

import re

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from resources.hub_server.access import hub_of, json_object, param, visible_repo, writable_repo
from resources.hub_server.errors import HubError, revision_not_found
from resources.hub_server.store import Repo

# Git's rule for the name of a ref, as far as it matters here.
REF_NAME = re.compile(r"(?![-/.])(?!@$)(?!.*(\.\.|//|@\{|/\.|\.lock(/|$)))[^\s\x00-\x1f\x7f~^:?*\[\\]+(?<![/.])")


async def list_refs(request: Request) -> Response:
    repo = visible_repo(request)
    branches, tags = _refs(repo, "refs/heads/"), _refs(repo, "refs/tags/")
    return JSONResponse({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})


async def create_tag(request: Request) -> Response:
    body = await json_object(request)
    repo, _ = writable_repo(request)
    return _create(request, repo, "refs/tags/", str(body.get("tag")), repo.resolve(param(request, "rev")))


async def delete_tag(request: Request) -> Response:
    repo, _ = writable_repo(request)
    return _delete(request, repo, "refs/tags/", param(request, "rev"))


async def create_branch(request: Request) -> Response:
    body = await json_object(request)
    repo, _ = writable_repo(request)
    start = repo.resolve(str(body.get("startingPoint") or "main"))
    return _create(request, repo, "refs/heads/", param(request, "rev"), start)


async def delete_branch(request: Request) -> Response:
    repo, _ = writable_repo(request)
    if param(request, "rev") == "main":
        raise HubError(403, "cannot delete the main branch")
    return _delete(request, repo, "refs/heads/", param(request, "rev"))


def _refs(repo: Repo, prefix: str) -> list[dict[str, str]]:
    return [
        {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": oid}
        for ref, oid in repo.refs.items()
        if ref.startswith(prefix)
    ]


def _create(request: Request, repo: Repo, prefix: str, name: str, oid: str) -> Response:
    if not REF_NAME.fullmatch(name):
        raise HubError(400, f"Invalid reference name: {name}")
    if prefix + name in repo.refs:
        raise HubError(409, f"Reference already exists: {prefix}{name}")
    repo.refs[prefix + name] = oid
    hub_of(request).store.save(repo)
    return JSONResponse({"success": True})


def _delete(request: Request, repo: Repo, prefix: str, name: str) -> Response:
    if repo.refs.pop(prefix + name, None) is None:
        raise revision_not_found(name)
    hub_of(request).store.save(repo)
    return JSONResponse({})
