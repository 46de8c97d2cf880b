"""Repos on disk: one JSON file a repo, and the contents of files under the hash of what they hold.

    repos/models/alice/phi.json    commits, branches and tags
    blobs/<git blob id>            small files
    lfs/<sha-256>                  large files
    tmp/                           what is being made, for as long as one server runs

Contents never change once written, and a repo's file is replaced as a whole, so a reader sees the old state or the new
one. One process at a time may write.
"""

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from resources.hub_server.errors import HubError, revision_not_found

KINDS = ("models", "datasets", "spaces")
PART = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
Gated = Literal[False, "auto", "manual"]
GATED: tuple[Gated, ...] = (False, "auto", "manual")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class File:
    """A file in a commit: git blob id, bytes, and for a large file its SHA-256 and the bytes of its git pointer."""

    oid: str
    size: int
    lfs: str | None = None
    pointer_size: int | None = None


Tree = dict[str, File]


@dataclass(frozen=True)
class Commit:
    """All files at one moment, and who made it so, after which commit."""

    tree: Tree
    author: str
    title: str
    message: str = ""
    parent: str | None = None
    date: str = field(default_factory=lambda: now())


@dataclass
class Repo:
    """A repo with its history; `refs` are full names such as `refs/heads/main`."""

    kind: str
    id: str
    private: bool
    created: str
    gated: Gated = False
    granted: list[str] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    def resolve(self, revision: str) -> str:
        """Return the id of the commit that a branch, a tag, a full ref or (the beginning of) a commit id names.

        Raises:
            HubError: 404, where nothing has that name.
        """
        for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if ref in self.refs:
                return self.refs[ref]
        if re.fullmatch(r"[0-9a-f]{7,40}", revision):
            for oid in self.commits:
                if oid.startswith(revision):
                    return oid
        raise revision_not_found(revision)

    def holds(self, sha256: str) -> bool:
        """Return whether any commit has the large file of that SHA-256."""
        return any(file.lfs == sha256 for commit in self.commits.values() for file in commit.tree.values())

    def history(self, oid: str | None) -> Iterator[tuple[str, Commit]]:
        """Yield commits with their ids, from `oid` back to the first."""
        while oid:
            yield oid, self.commits[oid]
            oid = self.commits[oid].parent


class Store:
    """The state folder's contents."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clear_scratch()
        for folder in ("repos", "blobs", "lfs", "tmp/xorbs"):
            (root / folder).mkdir(parents=True, exist_ok=True)

    def clear_scratch(self) -> None:
        shutil.rmtree(self.root / "tmp", ignore_errors=True)

    def repo(self, kind: str, repo_id: str) -> Repo | None:
        """Return the repo as it is now; None where there is none, or where no repo can have that name."""
        if not is_repo_id(kind, repo_id):
            return None
        try:
            return _repo_from_json(self._repo_path(kind, repo_id).read_text())
        except FileNotFoundError:
            return None

    def repos(self, kind: str) -> list[Repo]:
        """Return all repos of a kind, sorted by name."""
        paths = sorted((self.root / "repos" / kind).glob("*/*.json"))
        return [_repo_from_json(path.read_text()) for path in paths]

    def save(self, repo: Repo) -> None:
        path = self._repo_path(repo.kind, repo.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write(path, json.dumps(asdict(repo)).encode())

    def delete(self, repo: Repo) -> None:
        self._repo_path(repo.kind, repo.id).unlink()

    def commit(self, repo: Repo, ref: str, commit: Commit) -> str:
        """Make a commit the head of `ref`; return its id."""
        identity = {**asdict(commit), "repo": repo.id, "number": len(repo.commits)}
        oid = sha1(json.dumps(identity, sort_keys=True).encode())
        repo.commits[oid] = commit
        repo.refs[ref] = oid
        self.save(repo)
        return oid

    def put_blob(self, content: bytes) -> File:
        """Keep a small file that holds `content`, and return it."""
        file = File(git_blob_id(content), len(content))
        if not self.content(file).exists():
            self._write(self.content(file), content)
        return file

    def lfs_path(self, sha256: str) -> Path:
        """Return where the large file with that SHA-256 lies, or will.

        Raises:
            HubError: 400, where it is not a SHA-256; clients choose the text, and it becomes a path.
        """
        if not SHA256.fullmatch(sha256):
            raise HubError(400, f"Not a SHA-256: {sha256}")
        return self.root / "lfs" / sha256

    def xorb_path(self, account: str, name: str) -> Path:
        """Return where the chunks that an account sent under that hash lie; they go when the server ends.

        Raises:
            HubError: 400, where it is not a hash.
        """
        if not SHA256.fullmatch(name):
            raise HubError(400, f"Not a hash: {name}")
        folder = self.root / "tmp" / "xorbs" / account
        folder.mkdir(exist_ok=True)
        return folder / name

    def lfs_file(self, sha256: str) -> File:
        """Return the large file of that SHA-256, which must have been uploaded."""
        size = self.lfs_path(sha256).stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return File(git_blob_id(pointer), size, sha256, len(pointer))

    def content(self, file: File) -> Path:
        return self.lfs_path(file.lfs) if file.lfs else self.root / "blobs" / file.oid

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a path for a file in the making; what has not been moved away by the end is removed."""
        path = self.root / "tmp" / secrets.token_hex(8)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _write(self, path: Path, content: bytes) -> None:
        with self.scratch() as scratch:
            scratch.write_bytes(content)
            scratch.replace(path)

    def _repo_path(self, kind: str, repo_id: str) -> Path:
        if not is_repo_id(kind, repo_id):
            raise HubError(400, f"Invalid repo name: {kind}/{repo_id}")
        path = self.root / "repos" / kind / f"{repo_id}.json"
        if path.exists():
            return path
        # Names that differ in case are one.
        others = (self.root / "repos" / kind).glob("*/*.json")
        return next((other for other in others if str(other).casefold() == str(path).casefold()), path)


def is_name(part: str) -> bool:
    """Return whether a user, an organization or a repo may be called that, by the Hub's own rule."""
    return bool(PART.fullmatch(part)) and "--" not in part and ".." not in part and not part.endswith(".git")


def is_repo_id(kind: str, repo_id: str) -> bool:
    """Return whether `repo_id` (`owner/name`) can name a repo; what passes is safe as a path."""
    parts = repo_id.split("/")
    return kind in KINDS and len(parts) == 2 and all(map(is_name, parts))


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def git_blob_id(content: bytes) -> str:
    return sha1(b"blob %d\0" % len(content) + content)


def now() -> str:
    """Return the time in UTC, to the millisecond, as the Hub writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _repo_from_json(text: str) -> Repo:
    raw = json.loads(text)
    for oid, commit in raw["commits"].items():
        tree = {path: File(**file) for path, file in commit["tree"].items()}
        raw["commits"][oid] = Commit(**{**commit, "tree": tree})
    return Repo(**raw)
