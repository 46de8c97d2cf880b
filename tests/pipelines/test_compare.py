"""Two exams side by side on the command line: whatever names them, and as a page that no answer can break."""

from html.parser import HTMLParser

import pytest

from finetuning.evaluation.side_by_side import side_by_side
from pipelines.compare import as_page, main
from tests.assets.exam_store import ExamStore
from tests.finetuning.evaluation.test_side_by_side import examined

HOSTILE = [
    "</code></pre><script>alert(1)</script>",
    "````\n<img src=https://lab.test/x.png onerror=alert(1)>\n````text",
    "![](https://lab.test/x.png) [here](javascript:alert(1))",
    "\x1b[31m\u202e | --- |\n<!-- <style>body{display:none}</style>",
]


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNING_ARTIFACTS", str(tmp_path))
    monkeypatch.delenv("FINETUNING_SMOKE", raising=False)
    return ExamStore(tmp_path)


def test_recipes_adapters_reports_versions_and_folders_are_compared(store, capsys):
    first = store.exam("one", [1.0] * 20, r=4)
    store.exam("one", [0.0] * 20, r=8)
    store.exam("two", [1.0] * 20, r=16)
    adapter = store.root / "lora_adapter" / "one" / first.inputs["lora_adapter"]
    names = [first.fingerprint, first.inputs["lora_adapter"][:8]]
    for name in [*(f"one@{named}" for named in names), str(first.path), str(adapter)]:
        assert main([name, "one"]) == 0
        page = capsys.readouterr().out
        assert "| lora.r | 4 | 8 |" in page and "is better** on the 20 rows" in page
    assert main(["one", "two"]) == 0 and "| lora.r | 8 | 16 |" in capsys.readouterr().out
    base = first.path.parents[2] / "quantized_base_model"
    (shared,) = [path.name for path in base.iterdir() if len(path.name) == 16]
    assert main([f"one@{shared}", "two"]) == 0
    assert "| lora.r |" in capsys.readouterr().out, "an exam of what was made from it"
    assert main(["one@0000", "two"]) == 4 and "there is no such exam" in capsys.readouterr().err


def test_a_page_is_written_for_a_browser(store, tmp_path, capsys):
    store.exam("one", [1.0] * 20), store.exam("two", [0.0] * 20)
    assert main(["one", "two", "--page", str(tmp_path / "both.html"), "--out", str(tmp_path / "both.md")]) == 0
    assert capsys.readouterr().out == f"written: {tmp_path / 'both.md'}, {tmp_path / 'both.html'}\n"
    page = Tags((tmp_path / "both.html").read_text())
    assert {"h1", "h2", "table", "pre", "title"} <= {tag for tag, _ in page.tags}
    assert "one says 1.0" in page.text and "two says 0.0" in page.text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_an_answer_says_is_shown_and_does_nothing(hostile):
    settings = {"dataset": {"system": hostile}}
    ours = examined("a", [1.0] * 8, answers=[hostile] * 8, questions=[f"{hostile} {i}" for i in range(8)], **settings)
    theirs = examined("b", [0.0] * 8, answers=["fine"] * 8, questions=[f"{hostile} {i}" for i in range(8)])
    page = Tags(as_page("a <script> beside b", side_by_side(ours, theirs, 8)))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "iframe", "object", "link", "svg"}, tags
    assert [tag for tag, _ in page.tags].count("style") == 1
    attributes = [pair for _, found in page.tags for pair in found.items()]
    assert not [name for name, value in attributes if name.startswith("on") or "javascript:" in (value or "")]
    if "`" not in hostile:  # which makes code of a part
        assert " ".join(hostile.split()).partition("![")[0] in page.text, "in the table of settings too"
    assert page.text.count("fine") == 8 and page.text.count("rows.jsonl:") == 8
    assert [tag for tag, _ in page.tags].count("h3") == 8, "each answer ends where its block does"
