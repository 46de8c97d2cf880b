"""The lock on publishing: nothing goes to the hub without a passed verdict on the very adapter that it is made of."""

from typing import Any

from finetuning.errors import FinetuningError
from finetuning.recipe import Recipe
from finetuning.verdict import require_verdict
from resources.artifacts import Artifact


def verdict_on(recipe: Recipe, adapter: Artifact, evaluation_report: Artifact) -> dict[str, Any]:
    """The report, which holds a passed verdict on this adapter by the recipe's rules of today.

    Raises:
        FinetuningError: it is about another adapter, by other rules, or did not pass.
    """
    report = require_verdict(evaluation_report.path, adapter.fingerprint, recipe.name)
    evaluation_report.require_inputs(adapter)
    if evaluation_report.sections["evaluation"] != recipe.evaluation.model_dump(mode="json"):
        raise FinetuningError(
            f"{recipe.file}: evaluation: changed since report {evaluation_report.fingerprint} was made. Materialize "
            f"evaluation_report for {recipe.name}, then publish."
        )
    return report
