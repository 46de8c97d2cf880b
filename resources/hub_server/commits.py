"""Commits: which files are to come as large ones, and the one atomic change of a branch."""

import base64
import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from resources.hub_server.access import Json, hub_of, json_object, objects_in, param, parsed, writable_repo
from resources.hub_server.errors import HubError, entry_not_found, revision_not_found
from resources.hub_server.repos import repo_url
from resources.hub_server.store import Commit, Store, Tree

REGULAR_MAX = 10 * 1024 * 1024  # bytes; what is larger must be uploaded as a large file
# Of a path: bytes between two slashes, characters in all, what no path holds, and characters in an error.
LONGEST_PART, LONGEST_PATH, SHOWN = 255, 1_000, 200
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True)
class Operation:
    """One change of a commit: its kind, such as `file` or `deletedFolder`, and what the client sent with it."""

    key: str
    value: Json


async def preupload(request: Request) -> Response:
    body = await json_object(request)
    repo, _ = writable_repo(request)
    head = repo.resolve(param(request, "rev"))
    tree = repo.commits[head].tree
    patterns = _large_patterns(hub_of(request).store, tree)
    files = [_upload_mode(tree, patterns, file) for file in objects_in(body.get("files", []))]
    return JSONResponse({"files": files, "commitOid": head})


async def commit(request: Request) -> Response:
    writable_repo(request)  # refuses before the body is read
    if request.query_params.get("create_pr"):
        raise HubError(400, "pull requests are not supported by this server")
    header, operations = _parsed(await request.body())
    # Everything that changes a repo reads the body first and then loads, checks and saves the repo without an `await`.
    # The event loop thus runs such changes one after another, and none is made on top of a state that is gone.
    repo, account = writable_repo(request)
    ref = _branch(repo.refs, param(request, "rev"))
    hub = hub_of(request)
    head, parent, store = repo.refs[ref], header.get("parentCommit"), hub.store
    if parent and not head.startswith(str(parent)):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    made = Commit(
        _changed(store, repo.commits[head].tree, operations, lambda name: hub.may_link(account, repo, name)),
        author=account.name,
        title=str(header["summary"]),
        message=str(header.get("description") or ""),
        parent=head,
    )
    oid = store.commit(repo, ref, made)
    url = f"{repo_url(request, repo.kind, repo.id)}/commit/{oid}"
    return JSONResponse({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


def _large_patterns(store: Store, tree: Tree) -> list[str]:
    if ".gitattributes" not in tree:
        return []
    lines = store.content(tree[".gitattributes"]).read_text(errors="replace").splitlines()
    return [line.split()[0] for line in lines if "filter=lfs" in line.split()[1:]]


def _upload_mode(tree: Tree, patterns: list[str], file: Json) -> Json:
    path, size, sample = file.get("path"), file.get("size"), file.get("sample", "")
    if not (isinstance(path, str) and isinstance(size, int) and isinstance(sample, str)):
        raise HubError(400, "Each of the files needs a path, a size in bytes and a sample in base64")
    known = tree.get(path)
    names = (path, path.rsplit("/", maxsplit=1)[-1])
    large = (
        size > REGULAR_MAX
        or b"\0" in _bytes_of(path, sample)
        or any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)
    )
    # The hash of what lies there already lets the client leave out files that have not changed.
    unchanged: Json = {"oid": known.lfs or known.oid} if known else {}
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, **unchanged}


def _parsed(body: bytes) -> tuple[Json, list[Operation]]:
    """Return the header and the operations of a commit, which is sent as one JSON object a line."""
    found = []
    for line in body.splitlines():
        if line.strip():
            try:
                found.append(_operation(parsed(line)))
            except ValueError as error:
                raise HubError(400, f"The commit cannot be read: {error}") from error
    headers = [operation.value for operation in found if operation.key == "header"]
    if len(headers) != 1 or not headers[0].get("summary"):
        raise HubError(400, "missing commit header")
    return headers[0], [operation for operation in found if operation.key != "header"]


def _operation(line: JsonValue) -> Operation:
    if isinstance(line, dict):
        key, value = line.get("key"), line.get("value")
        if isinstance(key, str) and isinstance(value, dict):
            return Operation(key, value)
    raise ValueError("each line is an object with a key and a value, which is an object")


def _branch(refs: dict[str, str], revision: str) -> str:
    """Return the full name of a branch; nothing is committed to a tag."""
    ref = revision if revision.startswith("refs/heads/") else f"refs/heads/{revision}"
    if ref not in refs:
        raise revision_not_found(revision)
    return ref


def _changed(store: Store, tree: Tree, operations: list[Operation], may_link: Callable[[str], bool]) -> Tree:
    """Return `tree` after the operations.

    Args:
        may_link: whether the large file of a SHA-256 is there for whoever commits.

    Raises:
        HubError: 400 or 404, an operation cannot be carried out; nothing is changed then.
    """
    tree = dict(tree)
    for operation in operations:
        key, value = operation.key, operation.value
        path = _safe_path(value.get("path"), folder=key == "deletedFolder")
        match key:
            case "file":
                tree[path] = store.put_blob(_decoded(path, value))
            case "lfsFile":
                sha256 = str(value.get("oid"))
                if not may_link(sha256):
                    raise HubError(400, f"LFS pointer pointed to a file that does not exist: {path}")
                tree[path] = store.lfs_file(sha256)
            case "deletedFile":
                if tree.pop(path, None) is None:
                    raise entry_not_found("A file with this name doesn't exist")
            case "deletedFolder":
                _delete_folder(tree, path)
            case _:
                raise HubError(400, f"Unknown operation {key}")
    _refuse_files_as_folders(tree)
    return tree


def _safe_path(path: object, folder: bool) -> str:
    """Return `path`, which must name something inside the repo that every disk can hold."""
    parts = str(path).removesuffix("/" if folder else "").split("/")
    if any(part in ("", ".", "..", ".git") or len(part.encode(errors="replace")) > LONGEST_PART for part in parts):
        raise HubError(400, f"Invalid path: {str(path)[:SHOWN]}")
    if len(str(path)) > LONGEST_PATH or UNPRINTABLE.search(str(path)):
        raise HubError(400, f"Invalid path: {str(path)[:SHOWN]!r}")
    return "/".join(parts)


def _decoded(path: str, value: Json) -> bytes:
    content = value.get("content", "")
    if not isinstance(content, str):
        raise HubError(400, f"The content of {path} is not text")
    decoded = _bytes_of(path, content) if value.get("encoding") == "base64" else content.encode()
    if len(decoded) > REGULAR_MAX:
        raise HubError(400, f"Your push was rejected: {path} is larger than 10 MiB, use LFS")
    return decoded


def _bytes_of(path: str, content: str) -> bytes:
    try:
        return base64.b64decode(content)
    except ValueError as error:  # also of letters that are not ASCII
        raise HubError(400, f"The content of {path} cannot be decoded") from error


def _delete_folder(tree: Tree, folder: str) -> None:
    inside = [path for path in tree if path.startswith(f"{folder}/")]
    if not inside:
        raise entry_not_found("A folder with this name doesn't exist")
    for path in inside:
        del tree[path]


def _refuse_files_as_folders(tree: Tree) -> None:
    for path in tree:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder in tree:
                raise HubError(400, f"Invalid path: {path} ({folder} is a file)")
