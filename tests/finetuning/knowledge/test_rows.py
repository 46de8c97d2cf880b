"""Rows with passages: what is learned, what is asked, and what is left out with its reason."""

import time
from collections import Counter

import pyarrow as pa
import pytest

from finetuning.dataset.row_faults import RowDropped
from finetuning.knowledge.context import citations_in, refuses, with_passages, without_citations
from finetuning.knowledge.passages import SCHEMA, Passage, passages_at
from finetuning.knowledge.rows import Contexts, Examined, Named, named_in
from finetuning.recipe.knowledge import ContextSpec
from finetuning.recipe.source import SourceSpec

SOURCE = SourceSpec(files=("x.jsonl",))
PASSAGES = [
    Passage(f"m/{letter}.md", f"{letter} care", f"Clean {letter} with vinegar number {i}. **Rinse**  it.", 0, 9)
    for i, letter in enumerate("abcdefghijkl")
]


def passage_table(passages):
    columns = [pa.array(column, field.type) for column, field in zip(zip(*passages, strict=True), SCHEMA, strict=True)]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


class Shelf:
    """An index that finds every passage for each question, the one that the question names first."""

    table = passage_table(PASSAGES)

    def passages(self, numbers):
        return passages_at(self.table, numbers)

    def find(self, questions, most):
        first = [ord(question[0]) - ord("a") for question in questions]
        return [[one, *(n for n in range(len(PASSAGES)) if n != one)][:most] for one in first]


class Twice(Shelf):
    """Two of its documents have the same name, in other folders."""

    table = pa.concat_tables([Shelf.table, passage_table([Passage("n/c.md", "c care", "Clean c by hand.", 0, 4)])])


def asked(question, answer="yes", document=None, evidence=None):
    messages = [{"role": "user", "content": f"{question}?"}, {"role": "assistant", "content": answer}]
    return messages, Named(document, evidence)


def golden(letter):
    return asked(letter, document=f"{letter}.md", evidence=f"clean {letter.upper()} with  VINEGAR")


def contexts(examined=(), **spec):
    return Contexts(Shelf(), ContextSpec(**spec), set(examined), 7)  # pyright: ignore


def test_of_training_rows_a_share_has_its_passage_at_any_place_and_the_others_the_refusal():
    rows = [
        asked(f"{letter}{n}", document=f"{letter}.md", evidence=f"Clean {letter}")
        for n in range(100)
        for letter in "abcdef"
    ]
    found = contexts(golden=0.75).give(rows, is_eval=False)
    shown = [context for context in found if context.golden]
    assert 0.7 < len(shown) / len(found) < 0.8
    places = Counter(context.golden[0] for context in shown)
    assert set(places) == {1, 2, 3} and min(places.values()) > 100
    for context in found:
        answer = context.messages[-1]["content"]
        assert answer == (f"yes [{context.golden[0]}]" if context.golden else "The documents do not say.")
        assert len(set(context.passages)) == 3 and context.rank == 1
        assert "vinegar" not in context.asked[0]["content"] and "vinegar" in context.messages[0]["content"]


def test_the_same_seed_draws_the_same_and_a_row_does_not_depend_on_those_beside_it():
    rows = [golden(letter) for letter in "abcdef"]
    assert contexts().give(rows, False) == contexts().give(rows, False)
    assert contexts().give(rows[3:4], False) == contexts().give(rows, False)[3:4]


def test_in_the_exam_the_passages_are_those_that_are_found_in_their_order():
    (found,) = contexts().give([golden("c")], is_eval=True)
    assert found.passages == [2, 0, 1] and found.golden == [1] and found.rank == 1
    assert found.messages[-1]["content"] == "yes [1]"
    far = asked("a", document="l.md", evidence="Clean l")
    (missed,) = contexts().give([far], is_eval=True)
    assert missed.golden == [] and missed.rank == 0 and missed.messages[-1]["content"] == "yes"


def test_documents_of_the_exam_are_neither_learned_nor_shown_in_training():
    found = contexts(examined=["m/b.md", "c.md"]).give([golden("a"), golden("b"), golden("c")], is_eval=False)
    assert isinstance(found[1], Examined) and isinstance(found[2], Examined)
    assert not set(found[0].passages) & {1, 2}


def test_a_row_without_evidence_is_answered_by_the_refusal_and_one_without_columns_as_it_is():
    for is_eval in (False, True):
        unsaid, plain = contexts(refusal="No idea").give([asked("a", document="a.md"), asked("a")], is_eval)
        assert unsaid.messages[-1]["content"] == "No idea" and unsaid.rank is None
        assert plain.messages[-1]["content"] == "yes" and plain.golden == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (asked("a", document="zz.md", evidence="x"), "there is no document of that name"),
        (asked("a", document="a.md", evidence="not in it"), "no passage of its document has the evidence"),
        (([{"role": "system", "content": "x"}], Named(None, None)), "no question"),
    ],
)
def test_what_cannot_be_looked_up_is_left_out_with_its_reason(row, said):
    for is_eval in (False, True):
        good, bad = contexts().give([golden("a"), row], is_eval)
        assert not isinstance(good, RowDropped) and isinstance(bad, RowDropped) and said in str(bad)


def test_what_a_row_names_is_read_by_the_names_that_the_data_has():
    source = SourceSpec(files=("x.jsonl",), columns={"document": "file", "evidence": "quote"})
    assert named_in({"file": "a.md", "quote": "x"}, source) == Named("a.md", "x")
    assert named_in({"file": None, "quote": " "}, source) == Named(None, None)
    with pytest.raises(RowDropped, match="evidence without the document"):
        named_in({"quote": "x"}, source)
    with pytest.raises(RowDropped, match="document: not text"):
        named_in({"file": ["a.md"]}, source)


def test_of_several_turns_the_last_question_alone_is_asked_with_passages_and_learned():
    messages = [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": "first"},
        {"role": "user", "content": "b?"},
        {"role": "assistant", "content": "second"},
    ]
    (found,) = contexts().give([(messages, Named("b.md", "Clean b"))], is_eval=True)
    assert [m["content"] for m in found.messages[:2]] == ["a?", "first"] and found.messages[1]["train"] is False
    assert found.messages[2]["content"].endswith("Question: b?") and found.messages[3]["content"] == "second [1]"


def test_citations_are_read_and_taken_off():
    assert citations_in("18 [2] or 20 [1][2]") == [2, 1] and without_citations("18 [2]") == "18"
    assert citations_in("a[i] and [100] and [note]") == [] and without_citations("x[0]") == "x[0]"
    assert refuses("  the documents\ndo not say. [1]", ContextSpec()) and not refuses(
        "The documents say 3", ContextSpec()
    )


def test_a_prompt_has_every_passage_with_its_number_and_the_question_last():
    text = with_passages("How?", PASSAGES[:2], ContextSpec(citations=False, refusal="No."))
    assert "[1] a care\nClean a" in text and "[2] b care" in text and text.endswith("\n\nQuestion: How?")
    assert "name the passage" not in text and "answer: No." in text
    assert "(no passage was found)" in with_passages("How?", [], ContextSpec())


def test_rows_that_are_the_same_are_learned_alike_and_are_told_by_what_they_say_themselves():
    first, second = contexts().give([golden("a"), golden("a")], is_eval=False)
    assert first == second and first.own == golden("a")[0]


@pytest.mark.parametrize(
    "answer",
    [
        "18 months [2]",
        "18 months [1], [2]",
        "18 months [1][2]",
        "18 months [1] [2]",
        "18 months [1, 2]",
        "18 months[2]",
        "18 months 【1】",
        "18 months**[2]**",
        "18 months **[1], [2]**",
        "18 months\n[2]",
    ],
)
@pytest.mark.parametrize("after", ["", ".", " \n"])
def test_citations_of_all_forms_are_taken_off_and_read(answer, after):
    assert without_citations(answer + after, 3).rstrip() == f"18 months{after}".rstrip()
    assert citations_in(answer + after, 3)[-1] in (1, 2)
    assert without_citations(f"{answer}. See it.", 3) == "18 months. See it."


@pytest.mark.parametrize(
    ("answer", "without"),
    [
        ("18 months. [2]", "18 months."),
        ("18 months.[2] Or 20. [1] See it.", "18 months. Or 20. See it."),
        ("**18 months [2]**", "**18 months**"),
        ("One [1]\nTwo [2]", "One\nTwo"),
        ("7[1]", "7"),
        *((kept, kept) for kept in ("[3]", "**[1]**", "x = [1]", "return [0]", "18 [4]", "argv[1]", "`return [1]`")),
        *((kept, kept) for kept in ("Press [2] twice", "[1] Reset it", "f(x, [1])", "a, [1]", "", "1. [2] and on")),
    ],
)
def test_brackets_that_end_no_sentence_or_name_no_passage_are_part_of_the_answer(answer, without):
    assert without_citations(answer, 3) == without


def test_a_long_row_of_brackets_is_read_in_time():
    started = time.monotonic()
    for text in ("[1] " * 20_000, "[1], " * 20_000 + "x", "*" * 50_000, " " * 50_000 + "[1]x", "x[1]" * 20_000):
        without_citations(text)
        citations_in(text)
    assert time.monotonic() - started < 5


def test_what_was_cited_when_a_row_was_written_is_taken_off():
    messages, named = asked("a", "Vinegar [2]. See rows[1] too.", "a.md", "Clean a")
    (found,) = contexts().give([(messages, named)], is_eval=True)
    assert found.messages[-1]["content"] == "Vinegar. See rows[1] too. [1]"


@pytest.mark.parametrize("answer", ["x = [1]", "[3]", "return [1]", "18 months [2]"])
def test_a_row_without_a_document_is_learned_with_its_brackets(answer):
    for is_eval in (False, True):
        (found,) = contexts().give([asked("a", answer)], is_eval)
        assert found.messages[-1]["content"] == found.asked[-1]["content"] == answer


def test_brackets_that_stand_in_the_evidence_are_no_citation():
    shelf = Shelf()
    shelf.table = passage_table([Passage("m/a.md", "", "In this case, return [1] and end.", 0, 9)])
    shelf.find = lambda questions, most: [[0] for _ in questions]
    row = asked("a", "return [1]", "a.md", "return [1] and end")
    (found,) = Contexts(shelf, ContextSpec(), set(), 7).give([row], is_eval=True)  # pyright: ignore
    assert found.messages[-1]["content"] == "return [1] [1]"


def test_a_passage_of_another_document_that_says_it_too_is_not_beside_a_refusal():
    everywhere = asked("a", document="a.md", evidence="with vinegar")
    (found,) = contexts(golden=1e-9).give([everywhere], is_eval=False)
    assert found.passages == [] and found.messages[-1]["content"] == "The documents do not say."


def test_evidence_is_found_as_whole_words():
    (found,) = contexts().give([asked("a", document="a.md", evidence="vinegar number 0")], is_eval=True)
    assert found.golden == [1]
    (dropped,) = contexts().give([asked("k", document="k.md", evidence="vinegar number 1")], is_eval=True)
    assert isinstance(dropped, RowDropped), "number 10 is another number"


def test_a_call_of_tools_is_learned_as_it_is_and_never_refused():
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}],
    }
    result = {"role": "tool", "content": "12"}
    last = {"role": "assistant", "content": "yes"}
    question = {"role": "user", "content": "a?"}
    named = Named("a.md", "Clean a")
    (whole,) = contexts().give([([question, call, result, last], named)], is_eval=True)
    assert "train" not in whole.messages[1] and whole.messages[1]["tool_calls"] == call["tool_calls"]
    assert whole.messages[-1]["content"] == "yes [1]"
    (ends,) = contexts(golden=1.0).give([([question, call], named)], is_eval=False)
    assert ends.messages[-1] == call
    (refused,) = contexts(golden=1e-9).give([([question, call], named)], is_eval=False)
    assert isinstance(refused, RowDropped)


def test_a_refusal_is_given_without_the_thoughts_of_the_answer():
    messages = [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": "yes", "reasoning_content": "It says"},
    ]
    (found,) = contexts(golden=1e-9).give([(messages, Named("a.md", "Clean a"))], is_eval=False)
    assert found.messages[-1] == {"role": "assistant", "content": "The documents do not say."}


def test_a_name_that_several_documents_end_in_is_none_of_them_and_all_of_them_are_kept_from_training():
    some = Contexts(Twice(), ContextSpec(), {"c.md"}, 7)  # pyright: ignore
    evidence = {"evidence": "Clean c"}
    twice, first = some.give([asked("c", document="c.md", **evidence), asked("c", document="m/c.md", **evidence)], True)
    assert isinstance(twice, RowDropped) and "several documents end in that name" in str(twice)
    assert not isinstance(first, RowDropped)
    for name in ("c.md", "m/c.md", "n/c.md"):
        assert isinstance(some.give([asked("c", document=name, **evidence)], is_eval=False)[0], Examined)
