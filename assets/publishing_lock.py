"""The lock on publishing: nothing goes to the hub without a passed verdict on the very adapter that it is made of.

Beside it, what Dagster is told of something that was published.
"""

import dagster as dg

from assets.materialized import materialized
from finetuning.errors import GateError
from finetuning.evaluation.report import Report
from finetuning.evaluation.verdict import require_verdict
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.sections import sections
from resources.hub_client.connection import HubConnection
from resources.hub_client.versions import Head, head_of
from resources.store.artifact import Artifact


def verdict_on(recipe: Recipe, adapter: Artifact, evaluation_report: Artifact) -> Report:
    """The report, which holds a passed verdict on this adapter by the recipe's rules of today.

    Raises:
        FinetuningError: it is about another adapter, by other rules, or did not pass.
    """
    report = require_verdict(evaluation_report.path, adapter.fingerprint, recipe.name, recipe.smoke)
    evaluation_report.require_inputs(adapter)
    if evaluation_report.sections["evaluation"] != sections(recipe, "evaluation_report")["evaluation"]:
        raise GateError(
            f"{recipe.file}: evaluation: changed since report {evaluation_report.fingerprint} was made. Materialize "
            f"evaluation_report for {recipe.name}, then publish."
        )
    return report


def version_to_beat(recipe: Recipe, connection: HubConnection, adapter: Artifact) -> Head | None:
    """What is published now, where the recipe's verdict is also about that; None if it is of this very adapter.

    Raises:
        FinetuningError: the hub cannot be asked.
    """
    if not recipe.evaluation.no_worse_than_published:
        return None
    head = head_of(connection, connection.repo_id(recipe.hub.repo))
    return head if head and head.adapter not in (None, adapter.fingerprint) else None


def knows(report: Report, head: Head | None) -> bool:
    """Whether the report's verdict was given beside this version."""
    return head is None or (report.published is not None and report.published.adapter == head.adapter)


def require_beside(recipe: Recipe, connection: HubConnection, adapter: Artifact, report: Report) -> str | None:
    """The commit that is published now, beside which the verdict was given; None where that needed none.

    Raises:
        FinetuningError: it was given before that one was published, or the hub cannot be asked.
    """
    head = version_to_beat(recipe, connection, adapter)
    if head and not knows(report, head):
        raise GateError(
            f"{recipe.name}: not published: the verdict on adapter {adapter.fingerprint} was given without a look at "
            f"the version that is published now ({head.tag or head.commit} of {head.repo_id}). Materialize "
            f"evaluation_report for {recipe.name}, then publish."
        )
    return head.commit if head else None


def published(artifact: Artifact, endpoint: str) -> dg.MaterializeResult[Artifact]:
    """What the UI shows of a repo on the hub at that address."""
    summary = artifact.summary
    return materialized(
        artifact,
        {
            "url": dg.MetadataValue.url(f"{endpoint}/{summary['repo_id']}"),
            **{key: summary[key] for key in ("repo_id", "commit", "tag")},
            "endpoint": endpoint,
            "dagster/uri": f"hf://{summary['repo_id']}@{summary['tag']}",
        },
    )
