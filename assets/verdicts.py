"""The lock on publishing: nothing goes to the hub without a passed verdict on the very adapter that it is made of.

Beside it, what Dagster is told of something that was published.
"""

from typing import Any

import dagster as dg

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


def published(artifact: Artifact, endpoint: str) -> dg.MaterializeResult[Artifact]:
    """What the UI shows of a repo on the hub at that address."""
    summary = artifact.summary
    return dg.MaterializeResult(
        value=artifact,
        data_version=dg.DataVersion(artifact.fingerprint),
        metadata={
            **artifact.metadata(),
            **{key: summary[key] for key in ("repo_id", "commit", "tag")},
            "url": dg.MetadataValue.url(f"{endpoint}/{summary['repo_id']}"),
            "endpoint": endpoint,
        },
    )
