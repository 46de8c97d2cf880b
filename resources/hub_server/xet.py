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
    _, account = writable_repo(request)
    hub = hub_of(request)
    key, end = secrets.token_urlsafe(16), int(time.time()) + KEY_SECONDS
    hub.xet_keys[key] = (end, account.name)
    # The client remembers, by this address, which chunks it need not send again. They are kept only while this server
    # runs (whole files are what stays), so the next one must have another address, even at the same port.
    address = f"{request.base_url}_cas/{hub.instance}"
    return JSONResponse({"casUrl": address, "accessToken": key, "exp": end})


async def known_chunk(_request: Request) -> Response:
    """Always 404: chunks are not looked up across uploads."""
    return JSONResponse({"error": "unknown chunk"}, 404)


async def upload_xorb(request: Request) -> Response:
    account, store = _account(request), hub_of(request).store
    path = store.xorb_path(account, request.path_params["hash"])
    with store.scratch() as scratch:
        scratch.write_bytes(await request.body())
        scratch.replace(path)
    return JSONResponse({"was_inserted": True})


async def upload_shard(request: Request) -> Response:
    account, hub = _account(request), hub_of(request)
    shard = await request.body()
    try:
        made = await run_in_threadpool(_keep_files, hub.store, account, shard)
    except (ValueError, OSError, struct.error) as error:
        raise HubError(400, f"bad shard: {error}") from error
    hub.brought.setdefault(account, set()).update(made)
    return JSONResponse({"result": 1})


def _account(request: Request) -> str:
    """The account that the key of the request was given to."""
    key = request.headers.get("authorization", "").removeprefix("Bearer ")
    end, account = hub_of(request).xet_keys.get(key, (0.0, ""))
    if end < time.time():
        raise HubError(401, "unauthorized")
    return account


def _keep_files(store: Store, account: str, shard: bytes) -> set[str]:
    """Put the files of a shard together; return the SHA-256 of each."""
    made = set()
    for terms in shard_files(shard):
        with store.scratch() as scratch:
            digest = hashlib.sha256()
            with scratch.open("wb") as file:
                for term in terms:
                    for chunk in chunks(store.xorb_path(account, term.xorb), term.first, term.end):
                        digest.update(chunk)
                        file.write(chunk)
            scratch.replace(store.lfs_path(digest.hexdigest()))
            made.add(digest.hexdigest())
    return made
