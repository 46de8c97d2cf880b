"""The upload half of the Xet protocol, which the client uses for large files wherever hf_xet is installed.

hf_xet 1.8 asks newer addresses first and goes on to these on 404. Files are put together when their shard arrives and
kept as ordinary large files; no reply ever names a Xet hash, so downloads go over plain HTTP.
"""

import hashlib
import secrets
import struct
import time

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from resources.hub_server.access import hub_of, writable_repo
from resources.hub_server.errors import HubError
from resources.hub_server.store import Store
from resources.hub_server.xorbs import chunks, shard_files

KEY_SECONDS = 3600


async def write_token(request: Request) -> Response:
    writable_repo(request)
    hub = hub_of(request)
    key, end = secrets.token_urlsafe(16), int(time.time()) + KEY_SECONDS
    hub.xet_keys[key] = end
    # The client remembers, by this address, which chunks it need not send again. They are kept only while this server
    # runs (whole files are what stays), so the next one must have another address, even at the same port.
    address = f"{request.base_url}_cas/{hub.instance}"
    return JSONResponse({"casUrl": address, "accessToken": key, "exp": end})


async def known_chunk(_request: Request) -> Response:
    """Always 404: chunks are not looked up across uploads."""
    return JSONResponse({"error": "unknown chunk"}, 404)


async def upload_xorb(request: Request) -> Response:
    _require_key(request)
    store = hub_of(request).store
    path = store.xorb_path(request.path_params["hash"])
    with store.scratch() as scratch:
        scratch.write_bytes(await request.body())
        scratch.replace(path)
    return JSONResponse({"was_inserted": True})


async def upload_shard(request: Request) -> Response:
    _require_key(request)
    shard = await request.body()
    try:
        await run_in_threadpool(_keep_files, hub_of(request).store, shard)
    except (ValueError, OSError, struct.error) as error:
        raise HubError(400, f"bad shard: {error}") from error
    return JSONResponse({"result": 1})


def _require_key(request: Request) -> None:
    key = request.headers.get("authorization", "").removeprefix("Bearer ")
    if hub_of(request).xet_keys.get(key, 0) < time.time():
        raise HubError(401, "unauthorized")


def _keep_files(store: Store, shard: bytes) -> None:
    for terms in shard_files(shard):
        with store.scratch() as scratch:
            digest = hashlib.sha256()
            with scratch.open("wb") as file:
                for term in terms:
                    for chunk in chunks(store.xorb_path(term.xorb), term.first, term.end):
                        digest.update(chunk)
                        file.write(chunk)
            scratch.replace(store.lfs_path(digest.hexdigest()))
