"""Pages for a person: the list of repos, and for each its README, files, branches, tags and commits."""

import mimetypes
from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from resources.hub_server.access import hub_of, kind_in, param
from resources.hub_server.errors import entry_not_found, repo_not_found
from resources.hub_server.store import KINDS, Commit, Repo, Store, Tree

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; white-space: pre-wrap; }
td { padding: 0 1.5rem 0 0; vertical-align: top; } .number { text-align: right; } .quiet { color: #777; }
"""
# What is published may come from anybody: a page never runs or loads any of it.
POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")


async def index(request: Request) -> Response:
    hub = hub_of(request)
    shown = [repo for kind in KINDS for repo in hub.store.repos(kind) if hub.show_private or not repo.private]
    rows = [_repo_row(repo) for repo in shown]
    return _page("Hub", _table(rows) if rows else "<p>Nothing has been published here yet.</p>")


async def repo_page(request: Request) -> Response:
    repo, store = _shown_repo(request), hub_of(request).store
    revision = param(request, "rev", "main")
    oid = repo.resolve(revision)
    tree = repo.commits[oid].tree
    # A gated repo shows what it holds, and its contents to nobody who has not been let in.
    readme = _readme(store, tree) if _may_show_contents(request, repo) else ""
    parts = [
        f'<p><a href="/">All repos</a> · {_marks(repo)} at <b>{escape(revision)}</b></p>',
        readme,
        "<h2>Files</h2>",
        _table(_file_row(repo, oid, path, file.size) for path, file in sorted(tree.items())),
        "<h2>Branches and tags</h2>",
        _table(_ref_row(repo, ref, target) for ref, target in sorted(repo.refs.items())),
        "<h2>Commits</h2>",
        _table(_commit_row(repo, commit_id, commit) for commit_id, commit in repo.history(oid)),
    ]
    return _page(repo.id, *parts)


async def file_content(request: Request) -> Response:
    repo, path = _shown_repo(request), param(request, "path")
    file = repo.commits[repo.resolve(param(request, "rev"))].tree.get(path)
    if file is None or not _may_show_contents(request, repo):
        raise entry_not_found()
    guessed = mimetypes.guess_type(path)[0]
    media_type = guessed if guessed in PICTURES else "application/octet-stream" if file.lfs else "text/plain"
    return FileResponse(hub_of(request).store.content(file), headers=POLICY, media_type=media_type)


def _shown_repo(request: Request) -> Repo:
    hub = hub_of(request)
    repo = hub.store.repo(kind_in(request), f"{param(request, 'ns')}/{param(request, 'name')}")
    if repo is None or (repo.private and not hub.show_private):
        raise repo_not_found()
    return repo


def _may_show_contents(request: Request, repo: Repo) -> bool:
    return hub_of(request).show_private or repo.gated is False


def _readme(store: Store, tree: Tree) -> str:
    if "README.md" not in tree:
        return ""
    return f"<pre>{escape(store.content(tree['README.md']).read_text(errors='replace'))}</pre>"


def _page(title: str, *parts: str) -> Response:
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return HTMLResponse("\n".join((head, f"<h1>{escape(title)}</h1>", *parts)), headers=POLICY)


def _table(rows: Iterable[str]) -> str:
    return f"<table>{''.join(rows)}</table>"


def _repo_row(repo: Repo) -> str:
    head = repo.commits[repo.refs["refs/heads/main"]]
    return f"<tr><td>{_link(_address(repo), repo.id)}<td>{_marks(repo)}<td>{_date(head.date)}<td>{escape(head.title)}"


def _file_row(repo: Repo, oid: str, path: str, size: int) -> str:
    link = _link(f"{_address(repo)}/blob/{oid}/{quote(path)}", path)
    return f'<tr><td>{link}<td class="number">{size:,} bytes'


def _ref_row(repo: Repo, ref: str, target: str) -> str:
    _, kind, name = ref.split("/", maxsplit=2)
    link = _link(f"{_address(repo)}/tree/{quote(name, safe='')}", name)
    return f"<tr><td>{'tag' if kind == 'tags' else 'branch'}<td>{link}<td><code>{target[:12]}</code>"


def _commit_row(repo: Repo, oid: str, commit: Commit) -> str:
    link = _link(f"{_address(repo)}/commit/{oid}", oid[:12])
    return f"<tr><td>{_date(commit.date)}<td>{link}<td>{escape(commit.title)}<td>{escape(commit.author)}"


def _marks(repo: Repo) -> str:
    gated = ", gated" if repo.gated else ""
    return f"{repo.kind[:-1]}, {'private' if repo.private else 'public'}{gated}"


def _address(repo: Repo) -> str:
    return f"/{repo.id}" if repo.kind == "models" else f"/{repo.kind}/{repo.id}"


def _link(address: str, text: str) -> str:
    return f'<a href="{escape(address)}">{escape(text)}</a>'


def _date(date: str) -> str:
    return f'<span class="quiet">{escape(date[:16].replace("T", " "))}</span>'
