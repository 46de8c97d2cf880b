"""What starts the steps of a run, where it cannot start any."""

import sys
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from finetuning.errors import InfrastructureError
from pipelines.executor import by_reason, create_on_cluster, not_asked_for


@pytest.mark.parametrize("package", ["ray", "dagster_ray"])
def test_a_cluster_without_its_packages_is_said(monkeypatch, package):
    for name in [name for name in sys.modules if name.split(".")[0] == package or name == "pipelines.ray_executor"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    context: Any = SimpleNamespace(instance=dg.DagsterInstance.ephemeral())
    with pytest.raises(InfrastructureError) as told:
        create_on_cluster(context)
    assert str(told.value).startswith(f"FINETUNING_EXECUTOR: ray needs the package {package}")
    assert "pip install -c constraints.txt -e '.[cluster]'" in str(told.value)


def test_a_run_of_one_recipe_skips_what_it_does_not_ask_for_and_what_is_of_all_recipes():
    steps = ["passages", "lora_adapter", "leaderboard", "merged_model"]
    skipped = not_asked_for("phi-2", steps)
    assert skipped == ["passages", "merged_model", "leaderboard"]
    assert by_reason(skipped) == {
        "the recipe has no section knowledge": ["passages"],
        "the recipe has no section merge": ["merged_model"],
        "it is of all recipes, and this run of one: dg launch --assets leaderboard": ["leaderboard"],
    }
    assert not_asked_for("no-such-recipe", steps) == ["leaderboard"], "the first step says what is wrong"
    assert not_asked_for(None, steps) == []
