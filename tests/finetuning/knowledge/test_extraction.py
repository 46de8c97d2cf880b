"""The text of a document's file: what a person reads, and a reason where there is nothing to read."""

import html
import re
import time
import zlib

import pytest
from markdown_it import MarkdownIt

from finetuning.knowledge import extraction
from finetuning.knowledge.context import has_words
from finetuning.knowledge.extraction import UnreadableText, text_of
from finetuning.knowledge.passages import blocks_of
from tests.finetuning.knowledge.sample_documents import HTML, pdf
from tests.finetuning.test_bounded_yaml import UNREAD


def test_of_a_page_the_main_text_is_read_with_its_headings_and_nothing_that_is_run():
    text = text_of("kettle.html", HTML)
    assert "# Kettle K7" in text and "## Care" in text and "vinegar once a month" in text
    assert not any(word in text for word in ("steal", "color", "<p>", "Shop"))


CARE = (
    "Press the red button twice to wake it. Hold it for five seconds to reset the clock. The lamp then turns green. "
    "Fill it up to the line with cold water. Never open the lid while it boils. Empty it after each use."
)
MODELS = [f"<h2>Model K{n}</h2><p>{CARE} It weighs {n} kg.</p>" for n in range(6)]
CONTENTS = {
    "models": ("".join(MODELS), [f"## Model K{n}" for n in range(6)]),
    "sections": ("".join(f"<section>{model}</section>" for model in MODELS), [f"## Model K{n}" for n in range(6)]),
    "list": (
        f"<h1>Kettle</h1><h2>Care</h2><p>{CARE}</p><ul><li>Use vinegar</li></ul>",
        ["# Kettle", "## Care", "- Use vinegar"],
    ),
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("around", ["{}", "<div>{}</div>", "<section>{}</section>", "<main>{}</main>"])
@pytest.mark.parametrize("beside", ["", '<nav><a href="/">Home</a></nav>', '<ul class="menu"><li>Home</li></ul>'])
def test_a_page_keeps_its_headings_wherever_they_stand_and_gains_no_menu(content, around, beside):
    body, lines = CONTENTS[content]
    page = f"<html><body>{beside}{around.format(body)}<footer>All rights reserved</footer></body></html>"
    text = text_of("a.html", page.encode())
    assert [line for line in text.split("\n") if line.startswith(("#", "-"))] == lines
    assert "Empty it after each use." in text and "Home" not in text and "All rights" not in text


def test_of_a_pdf_each_page_is_read_under_its_number():
    text = text_of("KETTLE.PDF", pdf("Clean it with vinegar.", "Never put it into water."))
    assert text == "# Page 1\n\nClean it with vinegar.\n\n# Page 2\n\nNever put it into water."


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.md", b"---\ntitle: x\n---\n# A\r\n\r\ntext\x00\x1b[31m", "# A\n\ntext[31m"),
        ("a.txt", b"# no heading\nnor\n---\nthis\n", "\\# no heading\nnor\n\\---\nthis\n"),
        ("a.md", b"---\n\n# A\n\nB\n\n---\n\nC", "---\n\n# A\n\nB\n\n---\n\nC"),
        ("a.rst", "\ufeffÄ".encode(), "Ä"),
        ("a.txt", "Grüße".encode("utf-16"), "Grüße"),
    ],
)
def test_text_is_read_as_it_is_but_for_what_nobody_sees(name, content, text):
    assert text_of(name, content) == text


PLAIN = [
    "[Note]: 13kg",
    "  [ERROR]: disk-full",
    "> [Note]: 13kg",
    "- [a note\nof two]: x",
    "[a]:\nb",
    "<!-- a comment -->",
    "<!-- one that never ends",
    "Press <b>red</b>",
    "<div>\nin it\n</div>",
    "<?xml 1.0?>",
    "a <b and c> d",
    "---\ntitle: x\n---",
    "Title\n---",
    "# no heading",
]


def seen(text):
    """What a person sees of a Markdown text, without its tags, and of lines what has letters, digits or brackets."""
    shown = html.unescape(re.sub(r"<[^>]*>|<!--.*?-->", " ", MarkdownIt("commonmark").render(text)))
    return re.findall(r"[\w\[\]<]+", shown)


@pytest.mark.parametrize("line", PLAIN)
def test_plain_text_is_all_read_and_seen_as_it_is(line):
    plain = f"{line}\n\nMore of it.\n\n{line}\n"
    text = text_of("a.txt", plain.encode())
    assert seen(text) == re.findall(r"[\w\[\]<]+", plain) and text.replace("\\", "").split() == plain.split()
    blocks = list(blocks_of(text))
    assert "\n\n".join(block.text for block in blocks).split() == text.split() and {b.heading for b in blocks} == {""}
    assert all(has_words(text, one) for one in plain.split("\n") if any(map(str.isalnum, one)))


def test_pages_of_a_pdf_are_plain_text():
    text = text_of("a.pdf", pdf("[Note]: 13kg", "<!-- it begins", "<b>red</b>"))
    assert [(block.heading, block.text) for block in blocks_of(text)] == [
        ("Page 1", "\\[Note]: 13kg"),
        ("Page 2", "\\<!-- it begins"),
        ("Page 3", "\\<b>red\\</b>"),
    ]


@pytest.mark.parametrize("kind", UNREAD)
def test_settings_above_a_text_that_cannot_be_read_are_text(kind):
    started = time.monotonic()
    assert text_of("a.md", f"---\n{UNREAD[kind].strip()}\n---\n# A\n".encode()).startswith("---\n")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.docx", b"PK", "neither text, Markdown, HTML nor PDF"),
        ("README", b"text", "neither text, Markdown, HTML nor PDF"),
        ("a.md", b"", "no text in it"),
        ("a.md", b" \n***\n", "no text in it"),
        ("a.txt", b"Z\xfcrich", "not valid UTF-8; convert it with `iconv -f cp1252"),
        ("a.pdf", b"%PDF-1.4 broken", "a PDF that cannot be read"),
        ("a.pdf", b"", "a PDF that cannot be read"),
        ("a.pdf", pdf(""), "no text in it, as in scanned pages"),
        ("a.html", b"<html><body></body></html>", "no main text in the page"),
        ("a.html", b"", "no main text in the page"),
        ("a.md", b"a" * (16 << 20) + b"a", "longer than 16 MiB"),
    ],
)
def test_what_cannot_be_read_has_a_reason(name, content, reason):
    with pytest.raises(UnreadableText, match="^" + reason.replace("(", r"\(")):
        text_of(name, content)


@pytest.mark.parametrize(
    "content",
    [
        b"<div>" * 300_000 + b"deep",
        b"<!DOCTYPE x [<!ENTITY a '" + b"ha" * 99 + b"'>" + b"<!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]><p>&b;</p>",
        b"<p>" + b"<b>" * 100_000 + b"x" * 1000,
        b"<table>" * 50_000,
    ],
    ids=["nested", "entities", "unclosed", "tables"],
)
def test_a_hostile_page_ends_in_a_text_or_a_reason_and_harms_nobody(content, monkeypatch):
    monkeypatch.setattr(extraction, "SECONDS", 5)
    try:
        assert len(text_of("bomb.html", content)) < 1 << 20
    except UnreadableText as reason:
        assert str(reason)


def test_a_pdf_that_stands_for_gigabytes_takes_no_more_than_a_process_may(monkeypatch):
    monkeypatch.setattr(extraction, "SECONDS", 5)
    packed = zlib.compress(b"BT (x) Tj ET\n" * 8_000_000, 9)
    content = pdf("text").replace(
        b"<< /Length 38 >>\nstream\n", b"<< /Length %d /Filter /FlateDecode >>\nstream\n" % len(packed)
    )
    broken = content.replace(b"BT /F1 12 Tf 72 720 Td (text) Tj ET", packed)
    try:
        text_of("bomb.pdf", broken)
    except UnreadableText as reason:
        assert "cannot be read" in str(reason) or "takes more than" in str(reason) or "no text" in str(reason)
