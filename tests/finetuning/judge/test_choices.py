"""What people preferred becomes pairs, in whole tens."""

import pytest
import yaml

from finetuning.feedback.entries import keep, parsed
from finetuning.judge.choices import feedback_learned, human_choices, revision_of
from finetuning.recipe.loading import load_file
from tests.finetuning.recipe.short_recipe import with_sections, write

JUDGE = "evaluation: {{metrics: [judge], judge: {{endpoint: https://judge.test/v1, name: fake{}}}}}"


@pytest.fixture
def said(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNING_FEEDBACK", str(tmp_path / "feedback"))

    def keep_it(number, folder="short", **what):
        answers = [{"model": "maths", "content": f"<think>so</think>{number}"}, {"model": "base", "content": "four"}]
        messages = [{"role": "user", "content": f"{number}?"}]
        keep(tmp_path / "feedback" / folder, parsed({"messages": messages, "answers": answers, **what}), "v1")

    return keep_it


def recipe(tmp_path, more="", sections=""):
    return load_file(write(tmp_path, with_sections(JUDGE.format(more) + sections)))


def test_the_preferred_answer_is_the_second_and_whole_tens_are_taken(said, tmp_path):
    for number in range(10):
        said(number, preferred="maths" if number % 2 else "base")
    said(99, preferred="maths")
    said(100, rating="good", of="maths")
    found = human_choices(recipe(tmp_path))
    assert len(found) == 10
    assert [(pair.first, pair.second) for pair in found[:2]] == [("0", "four"), ("four", "1")]
    assert revision_of(found).startswith("10 choices ") and revision_of(found) != revision_of(found[:9])


def test_the_last_ones_are_taken_of_the_feedback_that_the_recipe_names(said, tmp_path):
    for number in range(20):
        said(number, "other", preferred="maths")
    assert human_choices(recipe(tmp_path)) == []
    found = human_choices(recipe(tmp_path, ", choices: other, max_choices: 5"))
    assert [pair.second for pair in found] == ["15", "16", "17", "18", "19"]
    assert len(human_choices(recipe(tmp_path, sections="\nfeedback: {name: other}"))) == 20


def test_what_a_recipe_learned_of_feedback_is_what_those_that_it_goes_on_from_learned_too(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNING_RECIPES", str(tmp_path))
    text = write(tmp_path, with_sections("lora: {from: first}\n")).read_text()
    (tmp_path / "second.yaml").write_text(text)
    learned = {"sources": [{"feedback": "said"}, {"feedback": "heard"}], "eval": {"sources": [{"hub": "lab/exam"}]}}
    first = yaml.safe_load(text) | {"dataset": learned}
    (tmp_path / "first.yaml").write_text(yaml.safe_dump({key: first[key] for key in first if key != "lora"}))
    assert [*feedback_learned("second")] == [("first", "said"), ("first", "heard")]
    assert [*feedback_learned("phi-2")] == []
