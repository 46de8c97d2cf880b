"""Markdown becomes HTML that a person can read, and that does nothing to them, whoever wrote it."""

import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.markdown import ATTRIBUTES, LONGEST, TAGS, as_html

VOID = ("br", "hr", "img")


class Reader(HTMLParser):
    """Every tag of a piece of HTML with its attributes, and the most that were open at once."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open, self.deepest = 0, 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += tag not in VOID
        self.deepest = max(self.deepest, self.open)

    def handle_endtag(self, tag):
        self.open -= 1


def attributes(html: str, tag: str) -> list[dict[str, str | None]]:
    return [found for name, found in Reader(html).tags if name == tag]


def within(path: str) -> str:
    return f"/files/{path}"


TABLE = """
| metric | base | tuned |
| --- | ---: | :---: |
| exact | 0.10 | **0.52** |
"""


def test_a_table_keeps_its_cells_and_how_they_are_aligned():
    html = as_html(TABLE)
    assert '<th align="right">base</th>' in html and '<td align="center"><strong>0.52</strong></td>' in html
    assert "<td>exact</td>" in html


def test_code_is_shown_as_it_was_written():
    html = as_html('```python\nif a < b:\n    print("<b>")\n```\n\nand `x < y`')
    assert "<pre><code>if a &lt; b:\n    print(" in html and "&lt;b&gt;" in html and "<code>x &lt; y</code>" in html


def test_headings_lists_quotes_and_what_was_struck_out_are_shown():
    html = as_html("# Title\n\n- one\n  1. two\n\n> said\n\n~~gone~~ *so* **so**\n\n---\n")
    for part in ("Title</h1>", "<li>one\n<ol>\n<li>two</li>", "<blockquote>", "<s>gone</s>", "<em>so</em>", "<hr>"):
        assert part in html


def test_what_is_folded_stays_folded_with_the_markdown_in_it():
    html = as_html("<details>\n<summary>All settings</summary>\n\n```yaml\na: 1\n```\n\n**b**\n\n</details>\n\nafter")
    assert re.sub(r"\n", "", html) == (
        "<details><summary>All settings</summary><pre><code>a: 1</code></pre><p><strong>b</strong></p></details>"
        "<p>after</p>"
    )


def test_raw_html_that_only_lays_out_is_kept():
    html = as_html('<p align="center"><img src="a.png" width="300"></p>\n\nH<sub>2</sub>O <kbd>x</kbd><br>', within)
    assert '<p align="center"><img src="/files/a.png" width="300"></p>' in html
    assert "H<sub>2</sub>O <kbd>x</kbd><br>" in html


def test_paths_go_by_the_address_and_nowhere_without_one():
    text = '[report](evaluation/report.md) ![plot](a%20b.png) <a href="x.md">x</a> <img src="y.png" alt="y">'
    html = as_html(text, within)
    assert [link["href"] for link in attributes(html, "a")] == ["/files/evaluation/report.md", "/files/x.md"]
    assert [picture["src"] for picture in attributes(html, "img")] == ["/files/a%20b.png", "/files/y.png"]
    bare = as_html(text)
    assert "<img" not in bare and "href" not in bare and "report" in bare and "plot" in bare


def test_a_link_to_a_heading_leads_to_it():
    html = as_html("# What `it` is, in short\n\n[there](#what-it-is-in-short) [other](a.md#b)", within)
    assert 'id="user-content-what-it-is-in-short"' in html
    links = [link["href"] for link in attributes(html, "a")]
    assert links == ["#user-content-what-it-is-in-short", "/files/a.md#user-content-b"]


def test_a_link_to_another_host_tells_it_nothing():
    (link,) = attributes(as_html("[x](https://example.org/a?b=c&d)"), "a")
    assert link == {"href": "https://example.org/a?b=c&d", "rel": "noopener noreferrer nofollow"}


REMOTE = [
    "https://elsewhere.example/x.png", "http://elsewhere.example/x.png", "//elsewhere.example/x.png",
    "HTTPS://elsewhere.example/x.png", "\\\\elsewhere.example/x.png", "/\\elsewhere.example/x.png",
    "/\t/elsewhere.example/x.png", " //elsewhere.example/x.png", "ht\ntps://elsewhere.example/x.png",
    "https:elsewhere.example/x.png", "ftp://elsewhere.example/x.png", "&#47;/elsewhere.example/x.png",
    "data:image/png;base64,AAAA", "blob:x", "file:///etc/passwd", "javascript:alert(1)",
]  # fmt: skip


@pytest.mark.parametrize("source", REMOTE, ids=ascii)
@pytest.mark.parametrize(
    "picture",
    ["![alt]({})", "![alt](<{}>)", "![alt][a]\n\n[a]: {}", '<img src="{}" alt="alt">', "<img src='{}' alt='alt'>"],
)
def test_a_picture_from_elsewhere_is_not_loaded(source: str, picture: str):
    html = as_html(picture.format(source), lambda path: path)
    for found in attributes(html, "img"):
        # Markdown has an end of a line, or a space, for the end of the address: what is left is a path.
        assert re.fullmatch(r"/?[^/\\:\s][^\\:\s]*", found["src"] or ""), html
    assert "alt" in html


def test_a_picture_on_another_host_is_a_link_or_its_words_within_one():
    html = as_html("![a plot](https://elsewhere.example/x.png)")
    assert attributes(html, "a")[0]["href"] == "https://elsewhere.example/x.png" and ">a plot</a>" in html
    badge = as_html("[![a badge](https://elsewhere.example/x.svg)](https://example.org)")
    assert [link["href"] for link in attributes(badge, "a")] == ["https://example.org"] and ">a badge</a>" in badge


HOSTILE = [
    "<script>alert(1)</script>", "<SCRIPT SRC=//x.example>", "a <script>alert(1)</script>", "<scr<script>ipt>alert(1)",
    "<img src=x onerror=alert(1)>", "<img src=x\nonerror\n=alert(1) alt='>'>", "<img/src=x/onerror=alert(1)>",
    '<img alt="`><script>alert(1)</script>">', "<p style='position:fixed'>x</p>", "<style>*{display:none}</style>",
    "a <style>*{display:none}</style>", "<iframe src=/></iframe>", "<object data=x><embed src=x>", "<base href=//x>",
    "<form action=/x><input name=a><button>x", "<meta http-equiv=refresh content='0;url=//x'>", "<link rel=stylesheet>",
    "<svg onload=alert(1)><script>alert(1)</script></svg>", "<math><mi xlink:href='javascript:alert(1)'>x",
    "<a href=javascript:alert(1)>x</a>", "<a href='java\nscript:alert(1)'>x</a>", "<a href=' &#1;javascript:x'>x</a>",
    "<a href='&#106;avascript:alert(1)'>x</a>", "[x](javascript:alert(1))", "[x](<java\tscript:alert(1)>)",
    "[x](data:text/html,<script>alert(1)</script>)", "<javascript:alert(1)>", "[x][a]\n\n[a]: JaVaScRiPt:alert(1)",
    "[x](vbscript:x)", "<a href='x' target=_top id=a name=b class=c onclick=alert(1)>x</a>", "<plaintext>", "<xmp><b>",
    '[x](x "\\" onclick=alert(1) x=")', '![" onerror=alert(1) x="](x)', "<details ontoggle=alert(1) open>", "<!--><b>",
    "```\"><script>\nx\n```", "<title><img src=x onerror=alert(1)></title>", "<noscript><p title='</noscript><b>'>",
    "<textarea></textarea><script>alert(1)</script>", "<template><script>alert(1)</script></template>", "<td><b></td>",
    "<video src=x onerror=alert(1)>", "<p data-src=x srcset=y>", "<img srcset='//x 1x' src=a>", "<b\0 onclick=x>", "\0",
]  # fmt: skip


def assert_harmless(html: str) -> None:
    allowed = {name: {*kept, "id", "rel"} for name, kept in ATTRIBUTES.items()}
    for tag, found in Reader(html).tags:
        assert tag in TAGS and found.keys() <= allowed.get(tag, set()), html
        for link in (found.get("href"), found.get("src")):
            assert link is None or re.match(r"https?:|mailto:|/files/|#", link), html


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_nothing_runs_loads_or_looks_other_than_the_page_allows(text: str):
    for written in (text, f"# a\n\n{text}\n\nb", f"- {text}", f"| a |\n| - |\n| {text} |", f"<div>\n{text}\n</div>"):
        assert_harmless(as_html(written, within))


PIECES = st.sampled_from(
    ["<", ">", "</", "b", "a", "div", "details", "table", "td", "p", " href=", " src=", '"', "'", "javascript:", "//x",
     "[", "](", ")", "!", "`", "```", "\n", "\n\n", "- ", "> ", "* ", "| ", "| - |", "&#x27;", "<!--", "-->", "=", "x",
     "<script>", "</script>", "<b>", "</b>", "<div>", "</div>", "<a>", "<td>", "</table>", "**", "# ", "\\", "\t"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=40).map("".join))
def test_whatever_is_written_every_tag_has_its_end_and_none_is_harmful(text: str):
    html = as_html(text, within)
    assert_harmless(html)
    assert Reader(html).open == 0


@pytest.mark.parametrize("text", ["\ud800", "a\ud800b", "\x00", "\ufeff# x", "", "\u202e"], ids=ascii)
def test_half_of_a_character_is_no_reason_to_fail(text: str):
    as_html(text).encode()


FULL = LONGEST - 10
ENDLESS = {
    "quotes": ">" * FULL,
    "quotes, in lines": (">" * 200 + "\n") * (FULL // 201),
    "brackets": "[" * FULL,
    "brackets and links": "[a](" * (FULL // 4),
    "pictures in pictures": "![" * (FULL // 2),
    "links that end": "[" * (FULL // 8) + "a](b)" * (FULL // 8),
    "lists": "- " * (FULL // 2),
    "lists, deeper with each line": "".join("  " * number + "- a\n" for number in range(430)),
    "stars": "*" * FULL,
    "stars and words": "*a **a " * (FULL // 7),
    "underscores": "_a__" * (FULL // 4),
    "ticks": "".join("`" * number + "a" for number in range(600)),
    "tags": "<b>" * (FULL // 3),
    "tags that are none": "<" * FULL,
    "tags that never end": "<a " * (FULL // 3),
    "attributes that never end": '<a b="' * (FULL // 6),
    "comments": "<!--" * (FULL // 4),
    "comments, in a block": "<div>\n" + "<!--\n" * (FULL // 5),
    "scripts": "<script>" * (FULL // 8),
    "boxes": "<div>\n" * (FULL // 6),
    "cells": "|" + "a|" * (FULL // 8) + "\n|" + "-|" * (FULL // 8) + "\n" + "a\n" * (FULL // 8),
    "references": "[a]: /" + "x" * (FULL // 2) + "\n\n" + "[a]" * (FULL // 7),
    "short references": "[a]: x\n\n" + "[a]" * (FULL // 3 - 4),
    "definitions": "".join(f"[{number}]: x\n" for number in range(FULL // 11)),
    "lines": "a\n" * (FULL // 2),
    "lines of brackets": "[\n" * (FULL // 2),
    "entities": "&#1234567;" * (FULL // 10),
    "backslashes": "\\" * FULL,
    "titles": '[a](b "' * (FULL // 7),
    "bold, left open, and paragraphs": "".join(f"<b a={number}>" for number in range(6000)) + "\n\nx" * 30000,
    "bold, left open in a box, and paragraphs": "<div>\n" + "<b><i><s>" * 8000 + "\n\nx" * 30000,
    "bold about boxes": "<p>" + "<b>" * 9000 + "<div>x</div>" * 9000,
    "bold about cells": "<b><table><tr><td></b></td></tr></table>" * 2000 + "\n\nx" * 30000,
    "cells about bold": "<table><tr><td><b><table></b></table>" * 2000 + "\n\nx" * 30000,
}


@pytest.mark.long("texts that are made to take long")
@pytest.mark.parametrize("case", ENDLESS)
def test_a_text_that_is_made_to_take_long_does_not_and_stays_of_its_size(case: str):
    text = ENDLESS[case]
    assert len(text) <= LONGEST
    began = time.thread_time()
    html = as_html(text, within)
    assert time.thread_time() - began < 10, "it stops after 3 seconds, and what it does at once takes less than these"
    assert len(html) < 40 * LONGEST
    assert Reader(html[:200_000]).deepest <= 100
    assert_harmless(html[:200_000].rpartition("<")[0])


def test_a_text_of_megabytes_is_shown_as_it_is():
    began = time.thread_time()
    html = as_html("# <b>\n" * 1_000_000)
    assert html.startswith("<pre># &lt;b&gt;\n") and time.thread_time() - began < 2


def test_a_text_that_takes_longer_than_it_may_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("resources.markdown.SECONDS", -1)
    assert as_html("# a & b") == "<pre># a &amp; b</pre>"


def test_lines_of_an_answer_stay_lines():
    assert as_html("18 = 0 + 2z\n18 = 2z", by_line=True) == "<p>18 = 0 + 2z<br>\n18 = 2z</p>\n"
    assert as_html("one\ntwo") == "<p>one\ntwo</p>\n"
