"""Reading a repo: its description, its folders, its history, and the contents of its files."""

from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from resources.hub_server.access import Json, hub_of, json_object, param, readable_repo, visible_repo
from resources.hub_server.cards import card_of
from resources.hub_server.errors import HubError, entry_not_found
from resources.hub_server.repos import repo_key
from resources.hub_server.store import Commit, File, Repo, Tree, sha1

PAGE = 1000  # entries of a folder in one reply


async def repo_info(request: Request) -> Response:
    repo = visible_repo(request)
    oid = repo.resolve(param(request, "rev", "main"))
    commit, query = repo.commits[oid], request.query_params
    info = _description(repo, oid, card_of(hub_of(request).store, commit.tree))
    with_blobs = "blobs" in query
    info["siblings"] = [_sibling(path, file, with_blobs) for path, file in sorted(commit.tree.items())]
    expand = query.getlist("expand") + query.getlist("expand[]")
    if expand:
        info = {key: value for key, value in info.items() if key in {"_id", "id", *expand}}
    return JSONResponse(info)


async def list_tree(request: Request) -> Response:
    repo, revision = visible_repo(request), param(request, "rev")
    oid, prefix = repo.resolve(revision), param(request, "path").strip("/")
    found = _entries(repo.commits[oid].tree, prefix, recursive=_flag(request, "recursive"))
    if prefix and not found:
        raise entry_not_found(f'{prefix} does not exist on "{revision}"')
    if _flag(request, "expand"):
        last: Json = {"id": oid, "title": repo.commits[oid].title, "date": repo.commits[oid].date}
        found = [{**entry, "lastCommit": last} for entry in found]
    cursor = request.query_params.get("cursor", "0")
    if not cursor.isdecimal():
        raise HubError(400, f"Invalid cursor: {cursor}")
    start, end = int(cursor), int(cursor) + PAGE
    more = {"Link": f'<{request.url.include_query_params(cursor=end)}>; rel="next"'} if end < len(found) else {}
    return JSONResponse(found[start:end], headers=more)


async def paths_info(request: Request) -> Response:
    if "json" in request.headers.get("content-type", ""):
        named = (await json_object(request)).get("paths", [])
        paths = [str(path) for path in named] if isinstance(named, list) else [str(named)]
    else:
        paths = parse_qs((await request.body()).decode(errors="replace")).get("paths", [])
    repo = visible_repo(request)
    tree = repo.commits[repo.resolve(param(request, "rev"))].tree
    found = [_entry_at(tree, path.strip("/")) for path in paths]
    return JSONResponse([entry for entry in found if entry])


async def list_commits(request: Request) -> Response:
    repo = visible_repo(request)
    commits = [_listed_commit(oid, commit) for oid, commit in repo.history(repo.resolve(param(request, "rev")))]
    return JSONResponse(commits, headers={"X-Total-Count": str(len(commits))})


async def read_file(request: Request) -> Response:
    """Send the content of one file, with ranges; the client learns commit, hash and size from the headers."""
    repo, path, hub = readable_repo(request), param(request, "path"), hub_of(request)
    oid = repo.resolve(param(request, "rev"))
    file = repo.commits[oid].tree.get(path)
    if file is None:
        missing = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found", "X-Repo-Commit": oid}
        return JSONResponse({"error": "Entry not found"}, 404, missing)
    headers = _file_headers(oid, path, file)
    if file.lfs and hub.cdn_origin:
        signed = f"{hub.cdn_origin}/_cdn/{file.lfs}?signature={hub.signature(file.lfs)}"
        return Response(status_code=302, headers={**headers, "Location": signed})
    return FileResponse(hub.store.content(file), headers=headers, media_type="application/octet-stream")


def _description(repo: Repo, oid: str, card: Json) -> Json:
    commit = repo.commits[oid]
    tags = card.get("tags")
    description: Json = {
        "_id": repo_key(repo.id),
        "id": repo.id,
        "author": repo.id.split("/")[0],
        "sha": oid,
        "lastModified": commit.date,
        "createdAt": repo.created,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "cardData": card,
        "tags": tags if isinstance(tags, list) else [],
        "usedStorage": sum(file.size for file in commit.tree.values()),
    }
    if repo.kind == "models":
        description["modelId"] = repo.id
        description |= {key: card[key] for key in ("pipeline_tag", "library_name") if key in card}
    return description


def _sibling(path: str, file: File, with_blobs: bool) -> Json:
    if not with_blobs:
        return {"rfilename": path}
    return {"rfilename": path, "blobId": file.oid, "size": file.size, **_lfs_part(file, "sha256")}


def _entries(tree: Tree, prefix: str, recursive: bool) -> list[Json]:
    """Return files and folders below `prefix` ('' is the root), sorted by path."""
    base = f"{prefix}/" if prefix else ""
    found: list[Json] = []
    folders: dict[str, list[str]] = {}
    for path, file in tree.items():
        if not path.startswith(base):
            continue
        parts = path.removeprefix(base).split("/")
        for depth in range(1, len(parts) if recursive else min(2, len(parts))):
            folders.setdefault(base + "/".join(parts[:depth]), []).append(file.oid)
        if recursive or len(parts) == 1:
            found.append(_file_entry(path, file))
    found += [_folder_entry(path, "".join(oids)) for path, oids in folders.items()]
    return sorted(found, key=lambda entry: str(entry["path"]))


def _entry_at(tree: Tree, path: str) -> Json | None:
    if path in tree:
        return _file_entry(path, tree[path])
    inside = "".join(file.oid for other, file in tree.items() if other.startswith(f"{path}/"))
    return _folder_entry(path, inside) if inside else None


def _file_entry(path: str, file: File) -> Json:
    return {"type": "file", "oid": file.oid, "size": file.size, "path": path, **_lfs_part(file, "oid")}


def _folder_entry(path: str, content: str) -> Json:
    return {"type": "directory", "oid": sha1(content.encode()), "size": 0, "path": path}


def _lfs_part(file: File, key: str) -> Json:
    """Return what the API adds for a large file; one of its two places names the hash `oid`, the other `sha256`."""
    if not file.lfs:
        return {}
    return {"lfs": {key: file.lfs, "size": file.size, "pointerSize": file.pointer_size}}


def _listed_commit(oid: str, commit: Commit) -> Json:
    return {
        "id": oid,
        "title": commit.title,
        "message": commit.message,
        "date": commit.date,
        "authors": [{"user": commit.author}],
    }


def _file_headers(oid: str, path: str, file: File) -> dict[str, str]:
    name = quote(path.rsplit("/", maxsplit=1)[-1])
    headers = {
        "X-Repo-Commit": oid,
        "ETag": f'"{file.lfs or file.oid}"',
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"inline; filename*=UTF-8''{name}",
    }
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.lfs}"', "X-Linked-Size": str(file.size)}
    return headers


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in ("true", "1")
