"""The section `evaluation.judge`: what is right, and what is said of what is not."""

import pytest
import yaml

from finetuning.hub.public_recipe import public_recipe
from finetuning.recipe.loading import load_file
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import smoke
from tests.finetuning.recipe.short_recipe import mistakes_of, with_sections, write

JUDGE = "judge: {endpoint: https://lab.test/v1/, name: fake}"


def recipe(folder, evaluation=f"metrics: [judge], {JUDGE}", more=""):
    return write(folder, with_sections(f"evaluation: {{{evaluation}}}{more}"))


def test_a_judge_has_defaults_that_bound_it(tmp_path):
    judge = load_file(recipe(tmp_path)).evaluation.judge
    assert judge.endpoint == "https://lab.test/v1"
    assert (judge.agreement, judge.max_requests, judge.max_tokens, judge.max_choices) == (0.6, 2000, 16, 100)


@pytest.mark.parametrize(
    ("evaluation", "told"),
    [
        ("metrics: [judge]", "evaluation.metrics: judge, and nothing says who that is; write evaluation.judge: {"),
        (JUDGE, "evaluation.judge: would be ignored: neither evaluation.metrics nor gate names it"),
        (f"metrics: [chrf], {JUDGE}", "evaluation.judge: would be ignored"),
        ("gate: {judge: {}}", "evaluation.gate: judge, and nothing says who that is"),
        (
            "metrics: [judge], judge: {endpoint: 'https://me:hunter2@lab.test/v1', name: fake}",
            "evaluation.judge.endpoint: 'https://lab.test/v1' is not the address of an API: write https://HOST/v1",
        ),
        ("metrics: [judge], judge: {endpoint: lab.test, name: fake}", "not the address of an API"),
        (
            "metrics: [judge], judge: {endpoint: 'https://lab.test/v1/chat/completions', name: fake}",
            "leave /chat/completions out, which is added",
        ),
        ("metrics: [judge], judge: {endpoint: 'https://lab.test/v1'}", "evaluation.judge.name"),
        (
            "metrics: [judge], judge: {endpoint: 'https://lab.test/v1', name: fake, agreement: 0.5}",
            "evaluation.judge.agreement",
        ),
        ("metrics: [judge], judge: {endpoint: 'https://lab.test/v1', name: fake, key: abc}", "evaluation.judge.key"),
        (
            "metrics: [judge], judge: {name: phi-2/base, temperature: 0.5}",
            "evaluation.judge.temperature: 0.5 would be ignored: a model on this machine replies by",
        ),
        ("metrics: [judge], judge: {name: phi-2, parallel: 8}", "evaluation.judge.parallel: 8 would be ignored"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_write(tmp_path, evaluation, told):
    said = "\n".join(mistakes_of(recipe(tmp_path, evaluation)))
    assert told in said and "hunter2" not in said, said


def test_a_judge_on_this_machine_is_a_recipes_model(tmp_path):
    given = "metrics: [judge], judge: {endpoint: null, name: phi-2/base, temperature: 0.0, parallel: 4}"
    assert load_file(recipe(tmp_path, given)).evaluation.judge.on_this_machine() == ("phi-2", True)


def test_answers_with_passages_have_no_judge(tmp_path):
    more = "\nknowledge: {documents: [{hub: lab/manuals}]}"
    assert "judge beside knowledge" in "\n".join(mistakes_of(recipe(tmp_path, more=more)))


def test_a_judge_is_part_of_the_report_alone_and_what_bounds_it_of_nothing(tmp_path):
    plain = load_file(write(tmp_path, with_sections("evaluation: {metrics: [chrf]}")))
    assert "judge" not in sections(plain, "evaluation_report")["evaluation"]
    asked = sections(load_file(recipe(tmp_path)), "evaluation_report")["evaluation"]["judge"]
    assert asked["name"] == "fake" and not {"max_requests", "parallel"} & asked.keys()
    assert "judge" not in str(sections(load_file(recipe(tmp_path)), "base_answers"))


def test_a_smoke_run_asks_about_few_choices(tmp_path):
    assert smoke(load_file(recipe(tmp_path))).evaluation.judge.max_choices == 10


def test_the_address_of_a_judge_is_not_published(tmp_path):
    text = public_recipe(load_file(recipe(tmp_path)), "0" * 16, {"revision": "1" * 40, "on_hub": True}, RECORDS)
    published = tmp_path / "published.yaml"
    published.write_text(text)
    assert "lab.test" not in text and "# evaluation.judge.endpoint" in text
    assert load_file(published).evaluation.judge.name == yaml.safe_load(text)["evaluation"]["judge"]["name"] == "fake"


RECORDS = [{"stem": "train-00", "revision": "2" * 40}]
