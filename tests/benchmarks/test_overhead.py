"""What the measurement of the pipeline's own cost makes of times, and of a recipe."""

import json

from benchmarks.overhead import prepare, result, shortened


def test_the_medians_of_the_rounds_are_compared():
    seconds = {"script": [100.0, 90.0, 110.0], "pipeline": [125.0, 124.0, 300.0], "nothing changed": [9.0, 8.0, 7.0]}
    assert result(seconds) == {
        "ratio_to_script": 1.25,
        "seconds_over_script": 25.0,
        "nothing_changed_seconds": 8.0,
        "script_seconds": 100.0,
        "pipeline_seconds": 125.0,
    }


def test_a_shortened_recipe_is_published_whatever_it_comes_to_and_a_whole_one_by_its_own_gate():
    whole, short = shortened(None, None), shortened(2, 4)
    assert whole["evaluation"]["gate"] == {"final-answer": {"min_gain": 0.3}}
    assert short["evaluation"]["gate"]["final-answer"]["min_gain"] == -1.0
    assert (short["training"]["max_steps"], short["evaluation"]["rows"]) == (2, 4)
    assert {key: whole[key] for key in ("dataset", "lora", "hub")} == {
        key: short[key] for key in ("dataset", "lora", "hub")
    }


def test_both_sides_begin_with_empty_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNING_ARTIFACTS", "/somewhere/else")
    environment = prepare(tmp_path, shortened(2, 4))
    for name in ("DAGSTER_HOME", "FINETUNING_RECIPES", "FINETUNING_ARTIFACTS", "FINETUNING_HUB_STATE", "HF_HOME"):
        assert environment[name].startswith(str(tmp_path)), json.dumps(environment)
    assert not (tmp_path / "artifacts").exists()
