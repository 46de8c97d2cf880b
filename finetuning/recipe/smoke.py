"""The recipe of a smoke run: every asset by the same code as ever, on so few rows and steps that it ends in a minute.

    >>> smoke(load("phi-2")).training.max_steps
    4

`FINETUNING_SMOKE=1` asks for it. What comes out proves nothing, and is kept and published apart from the real thing.
"""

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from finetuning.recipe.rules import LONGEST_NAME
from finetuning.settings import Settings

# Keys of a section, and the values that a smoke run gives them.
Changes = Mapping[str, object]

if TYPE_CHECKING:
    from finetuning.recipe.checks import CheckSpec
    from finetuning.recipe.dataset import DatasetSpec
    from finetuning.recipe.evaluation import EvaluationSpec
    from finetuning.recipe.recipe import Recipe
    from finetuning.recipe.source import SourceSpec
    from finetuning.recipe.training import TrainingSpec

# Of each source; and of these, where the recipe sets eval rows aside by their share, at least so large a one.
ROWS, EVAL_ROWS, EVAL_FRACTION = 64, 16, 0.125
STEPS, STEPS_BETWEEN = 4, 2
ANSWERS, ANSWER_TOKENS, BENCHMARK_ROWS, CHOICES = 8, 16, 4, 10
# Standard deviations that a share of a fault may be over its limit, by the luck of so few rows.
LUCK = 3


def is_smoke() -> bool:
    """Return whether this process is part of a smoke run.

    Raises:
        InfrastructureError: FINETUNING_SMOKE is neither 0 nor 1.
    """
    return Settings.read("smoke").smoke


def load_for_run(name: str) -> "Recipe":
    """Return the recipe of that name by which this process runs: as it is written, or cut down for a smoke run.

    Raises:
        RecipeError: there is none, or it is wrong.
    """
    from finetuning.recipe.loading import load

    recipe = load(name)
    return smoke(recipe) if is_smoke() else recipe


def smoke(recipe: "Recipe") -> "Recipe":
    """Return the recipe with few rows, steps and answers, and with a repo of its own; all else is what it was.

    What a run needs of a machine stays: base model, lengths, rows of a pass.
    """
    data = recipe.model_dump(mode="json", exclude_unset=True)
    few = {} if recipe.lora.merge else _few_steps(recipe.training)
    changes = {
        "dataset": _few_rows(recipe.dataset),
        "chat": {"tolerance": by_luck(recipe.chat.tolerance)},
        "checks": {name: _with_luck(check) for name, check in recipe.checks},
        "training": few,
        "evaluation": _few_answers(recipe.evaluation),
        "hub": {"repo": smoke_repo(recipe.hub.repo), "private": True},
    }
    if recipe.variants:
        changes["variants"] = _fewer_settings(data["variants"], {f"training.{key}" for key in few})
    cut = type(recipe).model_validate(data | {key: data.get(key, {}) | value for key, value in changes.items()})
    return (cut.at(recipe._path) if recipe._path else cut).as_smoke()


def smoke_repo(repo: str) -> str:
    """Return what a smoke run publishes instead of `repo`."""
    return f"{repo[: LONGEST_NAME - len('-smoke-merged')].rstrip('-.')}-smoke"


def title_of(recipe: "Recipe") -> str:
    """Return what commits of the recipe's model are called on the hub."""
    return f"Publish {'smoke run of ' if recipe.smoke else ''}{recipe.name}"


def by_luck(limit: float) -> float:
    """Return the share of a fault that so few rows may show where that of all rows keeps to `limit`; 0 stays 0."""
    if limit == 0:
        return 0.0
    return min(1.0, limit + LUCK * math.sqrt(limit * (1 - limit) / ROWS) + 1 / ROWS)


def _with_luck(check: "CheckSpec") -> Changes:
    return {"severity": check.severity, "limit": by_luck(check.limit)}


def _few_rows(dataset: "DatasetSpec") -> Changes:
    share, own = dataset.eval.fraction, dataset.eval.sources
    if own:
        held_out = {"sources": [_few(source, EVAL_ROWS) for source in own]}
    else:
        held_out = {"fraction": max(share or 0.0, EVAL_FRACTION)}
    dev = {"dev": {"fraction": max(dataset.dev.fraction, EVAL_FRACTION)}} if dataset.dev else {}
    return {"sources": [_few(source, ROWS) for source in dataset.sources], "eval": held_out, **dev}


def _few(source: "SourceSpec", most: int) -> Changes:
    """Return the source with `most` rows, or with its own number of them, or all that are there, if fewer."""
    rows = {"rows": min(source.rows, most)} if source.rows else {"rows": most, "at_most": True}
    return source.model_dump(mode="json", exclude_unset=True) | rows


def _few_steps(training: "TrainingSpec") -> Changes:
    steps = STEPS if training.max_steps == -1 else min(training.max_steps, STEPS)
    few: dict[str, object] = {"max_steps": steps, "logging_steps": 1}
    for key in ("eval_steps", "save_steps"):
        if own := getattr(training, key):
            few[key] = min(own, STEPS_BETWEEN)
    if training.warmup_steps >= 1:
        few["warmup_steps"] = 1.0
    # A tracker elsewhere would show it among the real ones.
    return few | {"report_to": [tracker for tracker in training.report_to if tracker == "tensorboard"]}


def _fewer_settings(variants: Mapping[str, Any], limited: Collection[str]) -> Changes:
    """Return the variants without the settings that a smoke run limits."""

    def others(changes: Mapping[str, Any]) -> dict[str, object]:
        return {key: value for key, value in changes.items() if key not in limited}

    if variants.get("grid") is not None:
        return {"grid": others(variants["grid"])}
    return {"list": [others(changes) for changes in variants["list"]]}


def _few_answers(evaluation: "EvaluationSpec") -> Changes:
    few: dict[str, object] = {
        "rows": min(evaluation.rows, ANSWERS),
        "max_new_tokens": min(evaluation.max_new_tokens, ANSWER_TOKENS),
    }
    if evaluation.benchmarks:
        few["benchmark_rows"] = min(evaluation.benchmark_rows or BENCHMARK_ROWS, BENCHMARK_ROWS)
    if evaluation.judge:
        asked = evaluation.judge.model_dump(mode="json", exclude_unset=True)
        few["judge"] = asked | {"max_choices": min(evaluation.judge.max_choices, CHOICES)}
    return few
