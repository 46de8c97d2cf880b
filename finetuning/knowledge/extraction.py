"""The text of a document's file, as Markdown: what a person reads of it, with its headings.

manual.html  <nav>…</nav><h1>Kettle</h1><p>It weighs 2 kg.</p>  ->  # Kettle\\n\\nIt weighs 2 kg.
"""

import io
import os
import re
import resource
import select
import signal
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from finetuning.bounded_yaml import load
from finetuning.dataset.encodings import conversion
from finetuning.dataset.files import COMPRESSIONS

# Of a file; what is longer is no document that somebody wrote.
MOST_BYTES = {"html": 16 << 20, "pdf": 64 << 20, "markdown": 16 << 20, "plain": 16 << 20}
MOST_PAGES = 5_000
KINDS = {
    **dict.fromkeys((".md", ".markdown", ".mdx"), "markdown"),
    **dict.fromkeys((".txt", ".text", ".rst", ".log"), "plain"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    ".pdf": "pdf",
}
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
# Formats that are programs to lay out pages, and come from anybody: each is read in a process of its own, in bounds of
# computing time and memory.
CONFINED = ("html", "pdf")
SECONDS, MEMORY = 30, 2 << 30
WAIT = 300.0  # seconds, on a busy machine
TEXT, REASON = b"T", b"R"
# What Markdown takes for a heading: what stands before a line, or below it.
HEADING = re.compile(r"^[ \t]*(#{1,6}[ \t]|=+[ \t]*$|-+[ \t]*$)", re.MULTILINE)
# What Markdown shows nothing of: the beginning of a link's definition, and of a tag or comment.
UNSEEN = re.compile(
    r"^(?P<before>[ \t]*(?:(?:[>*+-]|\d{1,9}[.)])[ \t]+)*)\[(?=[^\[\]]{1,999}\]:)|(?<!\\)<(?=[A-Za-z/!?])", re.MULTILINE
)


class UnreadableText(Exception):
    """Why there is no text in a file, in words that are the same for all files with that fault."""


def kind_of(name: str) -> str | None:
    """The kind of a document by its file's name; None for one that is not read."""
    plain = name.lower()
    for ending in COMPRESSIONS:
        plain = plain.removesuffix(ending)
    return next((kind for ending, kind in KINDS.items() if plain.endswith(ending)), None)


def text_of(name: str, content: bytes) -> str:
    """Return the text of a file as Markdown.

    Raises:
        UnreadableText: it is of no kind that is read, damaged, too long, or has no text.
    """
    kind = kind_of(name)
    if kind is None:
        raise UnreadableText(f"neither text, Markdown, HTML nor PDF by its name ({', '.join(KINDS)})")
    if len(content) > MOST_BYTES[kind]:
        raise UnreadableText(f"longer than {MOST_BYTES[kind] >> 20} MiB")
    read = READERS[kind]
    text = without_controls(confined(read, content) if kind in CONFINED else read(content))
    if not any(map(str.isalnum, text)):
        raise UnreadableText("no text in it" + (", as in scanned pages" if kind == "pdf" else ""))
    return text


def confined(read: Callable[[bytes], str], content: bytes) -> str:
    """Return what `read` makes of the content in a process of its own.

    Raises:
        UnreadableText: it raised that, or kept to no bounds.
    """
    import pypdf  # noqa: F401 — once, and not in each process
    import trafilatura  # noqa: F401

    reads, writes = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reads)
        _read_and_exit(read, content, writes)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        said = _until(time.monotonic() + WAIT, pipe)
    if said is None:
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    said = said or b""
    if status or said[:1] not in (TEXT, REASON):
        raise UnreadableText(f"takes more than {SECONDS} s, or {MEMORY >> 30} GiB of memory, to read")
    if said[:1] == REASON:
        raise UnreadableText(said[1:].decode())
    return said[1:].decode()


def _until(end: float, pipe: BinaryIO) -> bytes | None:
    """All that comes through the pipe until it is closed; None where it is still open at that time."""
    said = b""
    while len(said) < 4 * max(MOST_BYTES.values()):
        ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return None
        if not (piece := os.read(pipe.fileno(), 1 << 20)):
            break
        said += piece
    return said


def _read_and_exit(read: Callable[[bytes], str], content: bytes, pipe: int) -> None:
    """Write what was read into the pipe, or why nothing was, and end this process."""
    code = 1
    try:
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        with os.fdopen(pipe, "wb") as out:
            try:
                out.write(TEXT + read(content).encode(errors="replace"))
            except UnreadableText as reason:
                out.write(REASON + str(reason).encode())
        code = 0
    finally:
        os._exit(code)


def without_controls(text: str) -> str:
    """The text with one kind of line end, and without characters that nobody sees."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n\n")
    return "".join(
        letter for letter in lines if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cs", "Co")
    )


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableText(f"not valid UTF-8; convert it with {conversion(content[: 1 << 20])}") from None


def _markdown(content: bytes) -> str:
    """Markdown without the settings that some tools write above it, between two lines of ---."""
    text = _decoded(content).replace("\r\n", "\n")
    above = FRONT_MATTER.match(text)
    try:
        settings = load(above[1]) if above else None
    except yaml.YAMLError:
        settings = None
    return text[above.end() :] if above and isinstance(settings, dict) else text


def _plain(content: bytes) -> str:
    """Plain text, in which nothing is a heading, and nothing hidden."""
    text = HEADING.sub(lambda found: f"\\{found[0].lstrip()}", _decoded(content))
    return UNSEEN.sub(lambda found: f"{found['before'] or ''}\\{found[0][-1]}", text)


def _html(content: bytes) -> str:
    """The main text of a page: no menus, no scripts, nothing that is hidden."""
    import trafilatura

    try:
        text = trafilatura.extract(
            _in_main(trafilatura.load_html(_decoded(content))),
            output_format="markdown",
            include_comments=False,
            include_tables=True,
            include_formatting=True,
            favor_recall=True,
        )
    except (RecursionError, ValueError) as error:
        raise UnreadableText(f"HTML that cannot be read: {type(error).__name__}") from error
    if not text:
        raise UnreadableText("no main text in the page")
    return text


def _in_main(page: Any) -> Any:
    """The tree of a page, with all that it shows in <main>, where nothing in it says what its main text is.

    Of content that stands in <body> itself, trafilatura keeps the paragraphs alone, without headings and lists.
    """
    if page is None:
        return None
    body = page.find("body")
    if body is None or next(page.iter("main", "article"), None) is not None:
        return page
    main = body.makeelement("main", {})
    main.text, body.text = body.text, None
    main.extend(list(body))
    body.append(main)
    return page


def _pdf(content: bytes) -> str:
    """The text of each page, under its number as a heading."""
    import pypdf

    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableText("a PDF with a password")
        if len(reader.pages) > MOST_PAGES:
            raise UnreadableText(f"a PDF of more than {MOST_PAGES:,} pages")
        pages = [page.extract_text() for page in reader.pages]
    except UnreadableText:
        raise
    except Exception as error:  # of a damaged file, pypdf raises whatever its code meets first
        raise UnreadableText(f"a PDF that cannot be read: {type(error).__name__}") from error
    return "\n\n".join(
        f"# Page {n}\n\n{_plain(text.encode(errors='ignore'))}" for n, text in enumerate(pages, 1) if text.strip()
    )


READERS: dict[str, Callable[[bytes], str]] = {"markdown": _markdown, "plain": _plain, "html": _html, "pdf": _pdf}
