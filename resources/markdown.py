"""Markdown from anybody as HTML that is safe to show: without scripts, styles, and pictures from other hosts."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape, unescape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

LONGEST = 200_000  # characters of a text
SECONDS = 3.0  # of computing, for one text
LINKED = 2_000_000  # characters of all attributes of a page: a reference repeats its address wherever it is used
DEEPEST = 40  # tags, one in another

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
ATTRIBUTES = {name: {"align"} for name in ("div", "p", *HEADINGS)} | {
    "a": {"href", "title"},
    "details": {"open"},
    "img": {"src", "alt", "title", "width", "height"},
    "ol": {"start"},
    "td": {"align", "colspan", "rowspan"},
    "th": {"align", "colspan", "rowspan"},
}
# What may hold several paragraphs of Markdown between its two tags.
CONTAINERS = {"blockquote", "center", "details", "div", "dd", "dl", "dt", "li", "ol", "ul"}
CONTAINERS |= {"table", "tbody", "td", "tfoot", "th", "thead", "tr"}
VOID = {"br", "hr", "img"}
TAGS = ATTRIBUTES.keys() | CONTAINERS | VOID | {"b", "code", "del", "em", "i", "ins", "kbd", "mark", "pre", "q", "s"}
TAGS |= {"samp", "small", "span", "strong", "sub", "summary", "sup", "u", "var"}

UNSEEN = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style|iframe|template)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
TAG = re.compile(r"""<(/?)([a-z][a-z0-9]*)\b((?:[^<>"']++|"[^"]*+"|'[^']*+')*+)>""", re.IGNORECASE)
ATTRIBUTE = re.compile(r"""([^\s"'<>/=]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'<>`]+)))?""")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
SCHEMES = {"http", "https", "mailto"}
ANCHOR = "user-content-"  # before the names of headings, so that none is that of something else on the page
CONTROLS = "".join(map(chr, range(33)))

Address = Callable[[str], str]


def as_html(text: str, address: Address | None = None, by_line: bool = False) -> str:
    """Return Markdown as a piece of HTML; `address` gives the URL for the path of a link or picture, such as `a/b.png`.

    With `by_line` each line stays one, as in answers, where nobody means two lines to be joined. Paths lead nowhere
    where there is no `address`. Of a picture on another host a link is left. A text of more than 200,000 characters, or
    that takes seconds to read, is shown as it is.
    """
    text = text.encode(errors="replace").decode()
    if len(text) > LONGEST:
        return _as_it_is(text)
    page = _Page(address, time.thread_time() + SECONDS, by_line)
    try:
        return CLEANER.clean(PARSER.render(text, {"page": page}))
    except TooMuchMarkdown:
        return _as_it_is(text)


class TooMuchMarkdown(Exception):
    """A text takes too long to read, or stands for far more than it holds."""


@dataclass
class _Page:
    """What is known while a text is being written as HTML."""

    address: Address | None
    end: float
    """The time of this thread at which it is given up, in seconds."""
    by_line: bool = False
    spare: int = LINKED
    open: list[str] = field(default_factory=list)
    """The tags that are open, outermost first: `div` is raw HTML, `=p` is written by Markdown itself."""

    def own(self) -> int:
        """Return how many tags are open up to the innermost that Markdown wrote; raw HTML closes none of these."""
        return next((number for number in range(len(self.open), 0, -1) if self.open[number - 1][0] == "="), 0)

    def close(self, kept: int) -> str:
        """Return the ends of all open tags but the outermost ones."""
        ends = "".join(f"</{name}>" for name in reversed(self.open[kept:]))
        del self.open[kept:]
        return ends

    def is_in_link(self) -> bool:
        return not {"a", "=a"}.isdisjoint(self.open)


class _Renderer(RendererHTML):
    """Writes HTML in which every tag has its end, and few are open at once.

    A browser, or whatever else reads HTML, opens again in each paragraph what was left open in the one before: a text
    of 100 kB would come to gigabytes.
    """

    def renderToken(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        token, page = tokens[idx], env["page"]
        if token.nesting < 0:
            ends = page.close(page.own())
            page.open.pop()
            return ends + super().renderToken(tokens, idx, options, env)
        if style := token.attrs.pop("style", None):  # of a cell: `text-align:right`
            token.attrs["align"] = str(style).rpartition(":")[2]
        if token.nesting == 0:
            return super().renderToken(tokens, idx, options, env)
        if token.type == "link_open":
            start = f"<a{_written('a', _texts(token), page)}>"
        else:
            start = super().renderToken(tokens, idx, options, env)
        page.open.append(f"={token.tag}")
        return start

    def heading_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        read = "".join(part.content for part in tokens[idx + 1].children or [] if part.type in ("text", "code_inline"))
        tokens[idx].attrs["id"] = ANCHOR + re.sub(r"[^\w\- ]", "", read.strip().lower()).replace(" ", "-")
        return self.renderToken(tokens, idx, options, env)

    def softbreak(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return "<br>\n" if env["page"].by_line else "\n"

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        alt = self.renderInlineAsText(tokens[idx].children, options, env)
        return _picture(_texts(tokens[idx]) | {"alt": alt}, env["page"])

    def html_inline(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return _raw(tokens[idx].content, env["page"])

    def html_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        page = env["page"]
        shown, own = _raw(tokens[idx].content, page), page.own()
        lines = (number for number, name in enumerate(page.open[own:], own) if name not in CONTAINERS)
        return shown + page.close(next(lines, len(page.open)))


def _raw(text: str, page: _Page) -> str:
    """Return raw HTML with the tags that are allowed, rewritten, and with what else there is as text."""
    shown, position, text = [], 0, UNSEEN.sub("", text)
    for tag in [*TAG.finditer(text), None]:
        between = text[position : tag.start() if tag else None]
        shown += [between.replace("<", "&lt;").replace(">", "&gt;"), _tag(tag, page) if tag else ""]
        position = tag.end() if tag else position
    return "".join(shown)


def _tag(tag: re.Match[str], page: _Page) -> str:
    name = tag[2].lower()
    if name not in TAGS:
        return ""
    if tag[1]:
        opened = [number for number in range(page.own(), len(page.open)) if page.open[number] == name]
        return page.close(opened[-1]) if opened else ""
    attributes = {}
    for key, *values in ATTRIBUTE.findall(tag[3]):
        attributes.setdefault(key.lower(), unescape("".join(values)))
    if name == "img":
        return _picture(attributes, page)
    if name not in VOID:
        if len(page.open) >= DEEPEST:
            return ""
        page.open.append(name)
    return f"<{name}{_written(name, attributes, page)}>"


def _picture(attributes: dict[str, str], page: _Page) -> str:
    """Return a picture, or where it is on another host a link to it, or else what is said of it."""
    source = _cleaned(attributes.get("src", ""))
    if not _is_elsewhere(source) and _target(source, page):
        return f"<img{_written('img', attributes, page)}>"
    said = escape(attributes.get("alt") or attributes.get("title") or "picture")
    if page.is_in_link() or not _target(source, page):
        return said
    return f"<a{_written('a', {'href': source}, page)}>{said}</a>"


def _written(tag: str, attributes: dict[str, str], page: _Page) -> str:
    """Return what stands behind a tag's name.

    Raises:
        TooMuchMarkdown: with what was written already it is more than a page may have.
    """
    allowed = {key: value for key, value in attributes.items() if key in ATTRIBUTES.get(tag, ())}
    links = {key: _target(allowed[key], page) for key in allowed if key in ("href", "src")}
    shown = "".join(
        f' {key}="{escape(value)}"' for key, value in (allowed | links).items() if value or key not in links
    )
    page.spare -= len(shown)
    if page.spare < 0:
        raise TooMuchMarkdown
    return shown


def _target(url: str, page: _Page) -> str:
    """Return where a link or picture leads, '' where it leads nowhere."""
    url = _cleaned(url)
    if _is_elsewhere(url):
        full = f"https:{url}" if url.startswith("//") else url
        return full if full.partition(":")[0].lower() in SCHEMES else ""
    path, mark, anchor = url.partition("#")
    if path and page.address is None:
        return ""
    target = page.address(path) if path and page.address else ""
    return f"{target}#{ANCHOR}{anchor.removeprefix(ANCHOR)}" if mark else target


def _cleaned(url: str) -> str:
    """Return a URL as browsers read it: they overlook some characters, and take `\\` for `/`."""
    return re.sub(r"[\t\r\n]", "", url.strip(CONTROLS)).replace("\\", "/")


def _is_elsewhere(url: str) -> bool:
    return url.startswith("//") or SCHEME.match(url) is not None


def _as_it_is(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def _texts(token: Token) -> dict[str, str]:
    return {key: str(value) for key, value in token.attrs.items()}


def _in_time(state: Any, *_place: object) -> bool:
    """A rule of the parser that never applies, and ends the reading of what takes too long."""
    if time.thread_time() > state.env["page"].end:
        raise TooMuchMarkdown
    return False


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", renderer_cls=_Renderer).enable(["table", "strikethrough"])
    parser.inline.ruler.before("text", "in_time", _in_time)
    within = ["paragraph", "reference", "blockquote", "list"]
    parser.block.ruler.before("table", "in_time", _in_time, {"alt": within})
    return parser


def _kept(tag: str, attribute: str, value: str) -> str | None:
    return None if (tag, attribute) == ("img", "src") and _is_elsewhere(_cleaned(value)) else value


PARSER = _parser()
# What comes out of the renderer is safe already; this holds where it has a mistake.
CLEANER = nh3.Cleaner(
    tags=set(TAGS),
    attributes=ATTRIBUTES | {name: {"align", "id"} for name in HEADINGS},
    attribute_filter=_kept,
    url_schemes=SCHEMES,
    link_rel="noopener noreferrer nofollow",
)
