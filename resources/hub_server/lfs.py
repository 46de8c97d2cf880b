"""Large files over Git LFS: where to upload, the upload, its check, and the download that a redirect leads to."""

import hashlib
import hmac
import secrets

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from resources.hub_server.access import Hub, Json, hub_of, json_object, objects_in, writable_repo
from resources.hub_server.accounts import Account
from resources.hub_server.errors import HubError, entry_not_found
from resources.hub_server.store import SHA256, Repo


async def batch(request: Request) -> Response:
    body = await json_object(request)
    repo, account = writable_repo(request)
    hub, base_url, wanted = hub_of(request), str(request.base_url), objects_in(body.get("objects", []))
    objects = [_upload_offer(hub, account, repo, base_url, each) for each in wanted]
    return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")


async def upload(request: Request) -> Response:
    hub, key = hub_of(request), request.path_params["key"]
    if key not in hub.upload_links:
        raise HubError(403, "expired upload link")
    sha256, size, account = hub.upload_links[key]
    with hub.store.scratch() as scratch:
        digest, received = hashlib.sha256(), 0
        with scratch.open("wb") as file:
            async for chunk in request.stream():
                digest.update(chunk)
                received += file.write(chunk)
        if digest.hexdigest() != sha256 or received != size:
            raise HubError(400, f"uploaded content does not match {sha256} ({received} of {size} bytes)")
        scratch.replace(hub.store.lfs_path(sha256))
    hub.brought.setdefault(account, set()).add(sha256)
    hub.upload_links.pop(key, None)
    return Response(headers={"ETag": f'"{sha256}"'})


async def verify(request: Request) -> Response:
    body = await json_object(request)
    path = hub_of(request).store.lfs_path(str(body.get("oid")))
    if not path.exists() or path.stat().st_size != body.get("size"):
        raise HubError(404, "LFS object not found")
    return JSONResponse({})


async def download(request: Request) -> Response:
    """A large file, as the storage behind the Hub gives it: to whoever has its signed address, without a token."""
    if "authorization" in request.headers:
        raise HubError(400, "a token was sent to the storage, which is another host on the Hub")
    hub, sha256 = hub_of(request), request.path_params["oid"]
    path = hub.store.lfs_path(sha256)
    if not hmac.compare_digest(request.query_params.get("signature", "").encode(), hub.signature(sha256).encode()):
        raise HubError(403, "The address is not signed: ask the repo for the file")
    if not path.exists():
        raise entry_not_found()
    return FileResponse(path)


def _upload_offer(hub: Hub, account: Account, repo: Repo, base_url: str, wanted: Json) -> Json:
    sha256, size = str(wanted.get("oid")), wanted.get("size")
    if not SHA256.fullmatch(sha256) or not isinstance(size, int):
        return {**wanted, "error": {"code": 422, "message": "bad oid or size"}}
    offer: Json = {"oid": sha256, "size": size}
    if hub.may_link(account, repo, sha256):
        return offer
    key = secrets.token_urlsafe(16)
    hub.upload_links[key] = (sha256, size, account.name)
    actions: Json = {
        "upload": {"href": f"{base_url}_lfs/{key}", "header": {}},
        "verify": {"href": f"{base_url}_lfs-verify", "header": {}},
    }
    return {**offer, "authenticated": True, "actions": actions}
