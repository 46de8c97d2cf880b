"""Pages for a person: the list of repos, and for each its README, files, branches, tags and commits."""

import mimetypes
import posixpath
from collections.abc import Iterable
from functools import partial
from html import escape
from urllib.parse import quote, unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from resources.hub_server.access import hub_of, kind_in, param
from resources.hub_server.cards import BLOCK
from resources.hub_server.errors import entry_not_found, repo_not_found
from resources.hub_server.store import KINDS, Commit, File, Repo, Store
from resources.markdown import as_html

STYLE = """
:root { color-scheme: light dark; --soft: #f4f4f2; --line: #d9d9d5; --quiet: #6a6a6a; }
@media (prefers-color-scheme: dark) { :root { --soft: #25282d; --line: #42464d; --quiet: #a3a8ae; } }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 1.5rem auto; padding: 0 1rem; }
body { overflow-wrap: break-word; } h1, h2, h3, h4 { line-height: 1.25; margin: 1.5em 0 .6em; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.25rem; }
article h1 { font-size: 1.75rem; } article h2 { font-size: 1.4rem; }
article { border: solid var(--line); border-width: 1px 0; padding: .5rem 0; }
pre, code { background: var(--soft); font: .8125em/1.5 ui-monospace, monospace; border-radius: 4px; }
pre { padding: .8rem 1rem; overflow-x: auto; white-space: pre-wrap; }
code { padding: .1em .3em; } pre code { padding: 0; font-size: 1em; white-space: pre; }
img { max-width: 100%; height: auto; background: #fff; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-variant-numeric: tabular-nums; }
td { padding: 0 1.2rem 0 0; vertical-align: top; } .number { text-align: right; white-space: nowrap; }
article th, article td { border: 1px solid var(--line); padding: .3rem .7rem; } article th { background: var(--soft); }
blockquote { margin: 1em 0; padding-left: 1rem; border-left: 3px solid var(--line); }
hr { border: 0; border-top: 1px solid var(--line); } summary { cursor: pointer; }
.quiet, blockquote { color: var(--quiet); } span.quiet { white-space: nowrap; } details.quiet { font-size: .875rem; }
"""
# What is published may come from anybody: a page never runs any of it, and loads nothing but pictures of this hub.
POLICY = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
LARGEST = 4_000_000  # bytes of a Markdown file that is shown as a page


async def index(request: Request) -> Response:
    hub = hub_of(request)
    shown = [repo for kind in KINDS for repo in hub.store.repos(kind) if hub.show_private or not repo.private]
    rows = [_repo_row(repo) for repo in shown]
    return _page("Hub", _table(rows) if rows else "<p>Nothing has been published here yet.</p>")


async def repo_page(request: Request) -> Response:
    """Show a repo, or one folder of it, at a revision."""
    repo, store = _shown_repo(request), hub_of(request).store
    revision, folder = param(request, "rev", "main"), param(request, "path").strip("/")
    oid, below = repo.resolve(revision), f"{folder}/" if folder else ""
    files = {path: file for path, file in sorted(repo.commits[oid].tree.items()) if path.startswith(below)}
    if folder and not files:
        raise entry_not_found(f'{folder} does not exist on "{revision}"')
    # A gated repo shows what it holds, and its contents to nobody who has not been let in.
    has_readme = f"{below}README.md" in files and _may_show_contents(request, repo)
    parts = [
        f'<p><a href="/">All repos</a> · {_marks(repo)} at <b>{escape(revision)}</b></p>',
        await _article(store, repo, oid, f"{below}README.md") if has_readme else "",
        "<h2>Files</h2>",
        _table(_file_row(repo, oid, path, file.size) for path, file in files.items()),
        "<h2>Branches and tags</h2>",
        _table(_ref_row(repo, ref, target) for ref, target in sorted(repo.refs.items())),
        "<h2>Commits</h2>",
        _table(_commit_row(repo, commit_id, commit) for commit_id, commit in repo.history(oid)),
    ]
    return _page(f"{repo.id}/{folder}" if folder else repo.id, *parts)


async def file_page(request: Request) -> Response:
    """Show a Markdown file as a page, and any other as it is."""
    repo, oid, path, file = _shown_file(request)
    if not path.lower().endswith(".md") or file.size > LARGEST:
        return _content(hub_of(request).store, path, file)
    way = f"{_link(f'{_address(repo)}/tree/{oid}', repo.id)} at <b>{escape(param(request, 'rev'))}</b>"
    raw = _link(f"{_address(repo)}/raw/{oid}/{quote(path)}", "as it is")
    return _page(path, f"<p>{way} · {raw}</p>", await _article(hub_of(request).store, repo, oid, path))


async def raw_file(request: Request) -> Response:
    """Send the content of a file to a browser, which has no token, under the same rules as the pages."""
    _, _, path, file = _shown_file(request)
    return _content(hub_of(request).store, path, file)


def _shown_file(request: Request) -> tuple[Repo, str, str, File]:
    """Return the repo, the commit, the path and the file that the address names.

    Raises:
        HubError: 404, there is none that may be shown.
    """
    repo, path = _shown_repo(request), param(request, "path")
    oid = repo.resolve(param(request, "rev"))
    file = repo.commits[oid].tree.get(path)
    if file is None or not _may_show_contents(request, repo):
        raise entry_not_found()
    return repo, oid, path, file


def _content(store: Store, path: str, file: File) -> Response:
    guessed = mimetypes.guess_type(path)[0]
    media_type = guessed if guessed in PICTURES else "application/octet-stream" if file.lfs else "text/plain"
    return FileResponse(store.content(file), headers=POLICY, media_type=media_type)


def _shown_repo(request: Request) -> Repo:
    hub = hub_of(request)
    repo = hub.store.repo(kind_in(request), f"{param(request, 'ns')}/{param(request, 'name')}")
    if repo is None or (repo.private and not hub.show_private):
        raise repo_not_found()
    return repo


def _may_show_contents(request: Request, repo: Repo) -> bool:
    return hub_of(request).show_private or repo.gated is False


async def _article(store: Store, repo: Repo, oid: str, path: str) -> str:
    """Return a Markdown file of a repo as a part of a page, with the YAML at its head folded away."""
    file = repo.commits[oid].tree[path]
    if file.size > LARGEST:
        return f"<p>{_link(f'{_address(repo)}/raw/{oid}/{quote(path)}', path)} is too long to be shown here.</p>"
    text = store.content(file).read_text("utf-8-sig", "replace")
    block = BLOCK.match(text)
    head = f'<details class="quiet"><summary>Metadata</summary><pre>{escape(block[1])}</pre></details>' if block else ""
    # In a thread, since a text may take seconds, and other requests do not wait for it.
    body = await run_in_threadpool(as_html, text[block.end() :] if block else text, partial(_linked, repo, oid, path))
    return f"<article>{head}{body}</article>"


def _linked(repo: Repo, oid: str, path: str, link: str) -> str:
    """Return the address of what a file links to: another file or folder of the repo, or another page of this hub."""
    if link.startswith("/"):
        return link
    folder, name = posixpath.dirname(path), unquote(link.partition("?")[0])
    target = posixpath.normpath(posixpath.join("/", folder, name)).strip("/")
    page = "blob" if target in repo.commits[oid].tree else "tree"
    return f"{_address(repo)}/{page}/{oid}/{quote(target)}".rstrip("/")


def _page(title: str, *parts: str) -> Response:
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    width = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    return HTMLResponse("\n".join((head, width, f"<h1>{escape(title)}</h1>", *parts)), headers=POLICY)


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
