"""Passages: all of a document is in them, none is longer than asked for, and each ends where it may."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuning.knowledge.documents import Document, with_secrets
from finetuning.knowledge.passages import blocks_of, first_passages, passages_of, write_passages
from finetuning.recipe.knowledge import PassagesSpec
from tests.finetuning.knowledge.sample_documents import KEY_LINES, write

TEXT = """# Kettle

It boils.

## Care

Clean it with vinegar.

Rinse it twice.

### Filter

| month | filter |
|---|---|
| 1 | A |

## Guarantee of the kettle

- two years
- not for water
"""


def words(texts):
    return [len(text.split()) for text in texts]


def letters(texts):
    return [len(text) for text in texts]


def test_passages_end_at_headings_and_know_those_above_them():
    found, within = passages_of(Document("kettle.md", TEXT), PassagesSpec(), words)
    assert within == 0
    assert [(passage.heading, passage.text) for passage in found] == [
        ("Kettle", "It boils."),
        ("Kettle › Care", "Clean it with vinegar.\n\nRinse it twice."),
        ("Kettle › Care › Filter", "| month | filter |\n|---|---|\n| 1 | A |"),
        ("Guarantee of the kettle", "- two years\n- not for water"),
    ]
    for passage in found:
        assert TEXT[passage.offset :].startswith(passage.text.split("\n")[0])


def test_a_paragraph_is_cut_only_where_it_is_too_long_and_that_is_counted():
    text = "one two three\n\n" + "long " * 25
    found, within = passages_of(Document("a.txt", text), PassagesSpec(max_tokens=10), words)
    assert [len(passage.text.split()) for passage in found] == [3, 10, 10, 5] and within == 2


def test_an_overlap_repeats_the_end_of_the_passage_before():
    found, _ = passages_of(Document("a", "a b c\n\nd e f\n\ng h i"), PassagesSpec(max_tokens=8, overlap=4), words)
    assert [passage.text for passage in found] == ["a b c\n\nd e f", "d e f\n\ng h i"]
    cut, _ = passages_of(Document("a", "a b c d e f g h"), PassagesSpec(max_tokens=4, overlap=1), words)
    assert [passage.text for passage in cut] == ["a b c d", "d e f g", "g h"]


def test_a_number_sign_in_a_code_block_is_no_heading():
    assert [block.heading for block in blocks_of("# A\n\n```\n# comment\n```\n")] == ["A"]


def test_a_heading_that_nothing_stands_below_is_a_passage_itself():
    found, _ = passages_of(
        Document("a.md", "# A\n\n## Weight: 2 kg\n\n## Care\n\nClean it.\n\n## End"), PassagesSpec(), words
    )
    assert [(passage.heading, passage.text) for passage in found] == [
        ("A", "Weight: 2 kg"),
        ("A › Care", "Clean it."),
        ("A", "End"),
    ]


def test_a_paragraph_that_is_set_as_a_heading_is_a_paragraph():
    text = "word " * 60
    (found,), _ = passages_of(Document("a.md", f"{text}\n---\n"), PassagesSpec(), words)
    assert found.text.split() == [*text.split(), "---"]


def test_a_heading_takes_no_more_than_a_third_of_a_passage():
    found, _ = passages_of(Document("a.md", "# " + "h" * 90 + "\n\n" + "x " * 40), PassagesSpec(max_tokens=30), letters)
    assert max(passage.tokens for passage in found) <= 30 and all(len(passage.heading) <= 10 for passage in found)


def test_a_document_without_words_has_no_passage():
    assert passages_of(Document("a.md", "# !\n\n***\n"), PassagesSpec(), words) == ([], 0)


paragraphs = st.lists(st.text("ab c", min_size=1, max_size=60), min_size=1, max_size=12)


@given(paragraphs, st.integers(1, 12), st.integers(0, 6))
def test_no_word_is_lost_and_no_passage_is_too_long(parts, most, overlap):
    spec = PassagesSpec(max_tokens=most, overlap=min(overlap, most // 2))
    text = "\n\n".join(parts)
    found, _ = passages_of(Document("x", text), spec, words)
    assert all(len(passage.text.split()) <= most for passage in found)
    said = [word for passage in found for word in passage.text.split()]
    if not spec.overlap:
        assert said == text.split()
    assert set(said) == set(text.split())


@pytest.mark.parametrize("long", ["x" * 500, "漢字" * 300])
def test_what_has_no_spaces_is_cut_too(long):
    found, within = passages_of(Document("x", long), PassagesSpec(max_tokens=50), letters)
    assert "".join(passage.text for passage in found) == long and within
    assert max(passage.tokens for passage in found) <= 50


@pytest.mark.parametrize("limit", [32, 64])
def test_of_a_document_with_a_key_no_passage_is_among_the_first(tmp_path, limit):
    documents = [Document("key.md", f"# Key\n\nSecret:\n\n{KEY_LINES}\n"), Document("kettle.md", TEXT)]
    folder, spec = write(tmp_path / "documents", documents), PassagesSpec(max_tokens=limit, overlap=0)
    write_passages(folder, tmp_path / "passages", spec, letters)
    hidden = with_secrets(folder)
    assert hidden == {"key.md"}
    everything = first_passages(tmp_path / "passages", 1000, frozenset())["document"].to_pylist()
    assert everything.count("key.md") > 2
    assert first_passages(tmp_path / "passages", 3, hidden)["document"].to_pylist() == ["kettle.md"] * 3
    assert len(first_passages(tmp_path / "passages", 3, frozenset(everything))) == 0
