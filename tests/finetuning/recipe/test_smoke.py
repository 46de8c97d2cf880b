"""The recipe of a smoke run: few rows and steps, whatever a machine needs as it was, and a repo of its own."""

import pytest

from finetuning.errors import FinetuningError
from finetuning.recipe.loading import ROOT, load_file
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.smoke import LONGEST_NAME, ROWS, by_luck, is_smoke, load_for_run, smoke, smoke_repo, title_of

NAMES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
FILES = {"files": ["rows.jsonl"], "format": "question-answer"}


def recipe(**sections) -> Recipe:
    data = {
        "name": "tiny",
        "summary": "Adds",
        "base_model": {"repo": "lab/tiny"},
        "dataset": {"sources": [FILES]},
        "hub": {"repo": "lab/adds", "license": "mit", "private": False},
    }
    return Recipe.model_validate(data | sections)


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_recipe_can_be_cut_down(name):
    whole = load_file(ROOT / "recipes" / f"{name}.yaml")
    cut = smoke(whole)
    assert cut.smoke and not whole.smoke and cut.name == name
    assert cut.training.max_steps == 4 and cut.evaluation.rows == 8 and cut.evaluation.max_new_tokens == 16
    assert all(source.rows == ROWS for source in cut.dataset.sources)
    assert cut.hub.repo == f"{whole.hub.repo}-smoke" and cut.hub.private
    for section in ("base_model", "lora", "merge", "summary"):
        assert getattr(cut, section) == getattr(whole, section)
    same = {"per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "method"}
    assert cut.training.model_dump(include=same) == whole.training.model_dump(include=same)
    assert cut.chat.max_length == whole.chat.max_length
    assert cut.evaluation.gate == whole.evaluation.gate


def test_what_is_less_already_stays():
    small = recipe(
        dataset={"sources": [FILES | {"rows": 5}], "eval": {"sources": [FILES | {"files": ["e.jsonl"], "rows": 3}]}},
        training={"max_steps": 2, "eval_steps": 1, "save_steps": 1, "early_stopping_patience": 1},
        evaluation={"rows": 2, "max_new_tokens": 4, "benchmarks": ["arc_easy"], "benchmark_rows": 3},
    )
    cut = smoke(small)
    assert cut.dataset == small.dataset
    assert (cut.training.max_steps, cut.training.eval_steps, cut.training.save_steps) == (2, 1, 1)
    assert (cut.evaluation.rows, cut.evaluation.max_new_tokens, cut.evaluation.benchmark_rows) == (2, 4, 3)


def test_a_source_whose_rows_nobody_counted_may_have_fewer():
    (source,) = smoke(recipe()).dataset.sources
    assert source.rows == ROWS and source.at_most
    (source,) = smoke(recipe(dataset={"sources": [FILES | {"rows": 5000}]})).dataset.sources
    assert source.rows == ROWS and not source.at_most


def test_steps_between_saves_and_a_long_warm_up_fit_into_the_few_steps():
    training = smoke(recipe(training={"warmup_steps": 100, "eval_steps": 50, "save_steps": 500})).training
    assert (training.warmup_steps, training.eval_steps, training.save_steps) == (1, 2, 2)


def test_preferences_benchmarks_and_rows_by_their_tokens_can_be_cut_down():
    cut = smoke(
        recipe(
            dataset={"sources": [FILES | {"format": "preference"}]},
            training={"method": "dpo", "tokens_per_step": 4096, "report_to": ["wandb", "tensorboard"]},
            evaluation={"benchmarks": ["arc_easy"]},
        )
    )
    assert cut.training.beta == 0.1 and cut.training.tokens_per_step == 4096
    assert cut.training.report_to == ("tensorboard",), "no tracker elsewhere shows it among real runs"
    assert cut.evaluation.benchmark_rows == 4


def test_a_fault_that_no_row_may_have_stays_one_and_a_share_gets_the_luck_of_few_rows():
    cut = smoke(recipe(checks={"bad_rows": {"limit": 0.01}}, chat={"tolerance": 0.3}))
    assert cut.checks.supervision.limit == 0 and cut.checks.duplicates.severity == "warn"
    assert 3.9 < cut.checks.bad_rows.limit * ROWS < 4.1, "four of 64, and five are too many"
    assert 0.45 < cut.chat.tolerance < 0.5
    assert by_luck(1.0) == 1.0


def test_the_longest_name_of_a_repo_leaves_room():
    longest = "a" * (LONGEST_NAME - len("-merged"))
    assert len(f"{smoke_repo(longest)}-merged") == LONGEST_NAME
    assert smoke_repo("lab/" + "a" * 78 + "-" + "b" * 10) == "lab/" + "a" * 78 + "-smoke"
    assert smoke(recipe(hub={"repo": longest, "license": "mit"}, merge={})).hub.repo == smoke_repo(longest)


def test_commits_of_a_smoke_run_are_called_otherwise():
    assert title_of(recipe()) == "Publish tiny" != title_of(smoke(recipe())) == "Publish smoke run of tiny"


def test_the_variable_is_1_or_0_and_nothing_else(monkeypatch):
    monkeypatch.delenv("FINETUNING_SMOKE", raising=False)
    assert not is_smoke() and not load_for_run("phi-2").smoke
    for value, meant in (("", False), ("0", False), ("1", True)):
        monkeypatch.setenv("FINETUNING_SMOKE", value)
        assert is_smoke() is meant and load_for_run("phi-2").smoke is meant
    for value in ("true", "yes", "2", " 1"):
        monkeypatch.setenv("FINETUNING_SMOKE", value)
        with pytest.raises(FinetuningError, match="is neither 1, for a smoke run, nor 0"):
            load_for_run("phi-2")
