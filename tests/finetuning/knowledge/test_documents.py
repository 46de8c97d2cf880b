"""Documents of files: each under its name, or with a reason why there is none; and mistakes that name the place."""

import gzip

import pytest

from finetuning.errors import FinetuningError
from finetuning.knowledge.documents import documents_in, resolve_all, write_documents
from finetuning.recipe.recipe import Recipe
from tests.finetuning.knowledge.sample_documents import HTML, pdf

REST = {
    "name": "x",
    "summary": "Answers",
    "base_model": {"repo": "lab/tiny"},
    "dataset": {"sources": [{"hub": "lab/a"}], "eval": {"sources": [{"hub": "lab/b"}]}},
    "hub": {"repo": "x", "license": "mit"},
}


def recipe(*patterns):
    return Recipe.model_validate(REST | {"knowledge": {"documents": [{"files": list(patterns)}]}})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "a.md").write_text("# A\n\nText of A.")
    (docs / "deep" / "b.html").write_bytes(HTML)
    (docs / "c.pdf").write_bytes(pdf("Text of C."))
    (docs / "d.txt.gz").write_bytes(gzip.compress(b"Text of D."))
    (docs / "e.docx").write_bytes(b"PK")
    (docs / "f.md").write_bytes(b"\xff\xfe\xff")
    return docs


def test_every_file_is_a_document_or_has_a_reason(folder, tmp_path):
    found = recipe("docs/**/*.*")
    revisions = resolve_all(found, None)
    summary = write_documents(found, revisions, tmp_path / "out", None)
    read = {document.name for document in documents_in(tmp_path / "out")}
    assert read == {"docs/a.md", "docs/deep/b.html", "docs/c.pdf", "docs/d.txt.gz"}
    assert {fault.name for fault in summary.unreadable_examples} == {"docs/e.docx", "docs/f.md"}
    assert summary.checks["unreadable_documents"].rows == 2 and summary.checks["unreadable_documents"].of == 6
    (folder / "a.md").write_text("# A\n\nAnother text of A.")
    assert resolve_all(found, None) != revisions


@pytest.mark.parametrize("place", ["elsewhere/b.html", "b.html", "docs/deep/c.html", "docs/deep/deeper/b.html"])
def test_a_document_that_is_called_otherwise_is_another_version(folder, tmp_path, place):
    found = recipe("**/*.html")
    before = resolve_all(found, None)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / "deep" / "b.html").rename(tmp_path / place)
    after = resolve_all(found, None)
    assert after != before
    write_documents(found, after, tmp_path / "out", None)
    assert [document.name for document in documents_in(tmp_path / "out")] == [place]


def test_documents_of_one_name_in_two_folders_that_change_places_are_another_version(folder):
    (folder / "deep" / "a.md").write_text("# Another A")
    found = recipe("docs/**/a.md")
    before = resolve_all(found, None)
    texts = [path.read_text() for path in (folder / "a.md", folder / "deep" / "a.md")]
    for path, text in zip((folder / "deep" / "a.md", folder / "a.md"), texts, strict=True):
        path.write_text(text)
    assert resolve_all(found, None) != before


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["docs/*.rst"], r"x\.yaml: knowledge\.documents\[0\]\.files: no file matches 'docs/\*\.rst'"),
        (["docs"], "is a folder"),
        (["docs/e.docx", "docs/f.md"], r"knowledge\.documents: no text in any of them\. docs/e\.docx: neither"),
        (["docs/a.md", "s3://"], r"knowledge\.documents\[0\]\.files: no file matches 's3://'"),
    ],
)
def test_a_mistake_is_told_with_its_place(folder, tmp_path, patterns, said):
    found = recipe(*patterns)
    with pytest.raises(FinetuningError, match=said):
        write_documents(found, resolve_all(found, None), tmp_path / "out", None)


def test_two_documents_of_one_name_are_refused(folder, tmp_path):
    twice = Recipe.model_validate(
        REST | {"knowledge": {"documents": [{"files": ["docs/a.md"]}, {"files": ["docs/a.md"]}]}}
    )
    with pytest.raises(FinetuningError, match=r"documents\[1\]: two documents are named 'docs/a\.md'"):
        write_documents(twice, resolve_all(twice, None), tmp_path / "out", None)
