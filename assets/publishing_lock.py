"""The lock on publishing: nothing goes to the hub without a passed verdict on the very adapter that it is made of.

Beside it, what Dagster is told of something that was published.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import dagster as dg

from assets.lineage import weights_of, with_choice
from assets.materialized import materialized
from finetuning.digests import sha256
from finetuning.errors import GateError
from finetuning.evaluation.benchmark_tasks import tasks_revision
from finetuning.evaluation.report import Report
from finetuning.evaluation.verdict import require_verdict
from finetuning.hub.publication import AdapterPublicationSummary
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.recipe.dataset import sources
from finetuning.recipe.knowledge import EmbeddingSpec
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.sections import sections
from finetuning.recipe.spec import Made
from resources.artifacts import Artifacts
from resources.hub_client.connection import HubConnection
from resources.hub_client.versions import Head, head_of
from resources.store.artifact import Artifact, Log
from resources.store.plan import differences

COMMIT = re.compile(r"[0-9a-f]{40}")


def verdict_on(recipe: Recipe, adapter: Artifact, evaluation_report: Artifact) -> Report:
    """The report, which holds a passed verdict on this adapter by the recipe's rules of today.

    Raises:
        FinetuningError: it is about another adapter, by other rules, or did not pass.
    """
    weights = weights_of(adapter)
    has_gate = bool(recipe.evaluation.gate)
    report = require_verdict(evaluation_report.path, adapter.fingerprint, weights, recipe.name, recipe.smoke, has_gate)
    evaluation_report.require_inputs(adapter)
    if evaluation_report.sections["evaluation"] != sections(recipe, "evaluation_report")["evaluation"]:
        raise GateError(
            f"{recipe.file}: evaluation: changed since report {evaluation_report.fingerprint} was made. Materialize "
            f"evaluation_report for {recipe.name}, then publish."
        )
    asked = evaluation_report.resolved.get("benchmarks", {}).get("folder")
    if asked != tasks_revision(recipe.evaluation).get("benchmarks", {}).get("folder"):
        raise GateError(
            f"{recipe.file}: evaluation.benchmark_folder: its files changed since report "
            f"{evaluation_report.fingerprint} was made. Materialize evaluation_report for {recipe.name}, then publish."
        )
    return report


def require_recipe(recipe: Recipe, *made: Artifact) -> None:
    """Check that the recipe still asks for what was made, so that what is published is described as it is.

    Raises:
        FinetuningError: it was edited since one of these was made.
    """
    # All but the choice itself was made by the settings that were chosen.
    chosen = with_choice(recipe, next((artifact for artifact in made if artifact.asset == "variants"), None))
    asked = {"variants": recipe}
    changed = [
        f"{difference} (of {artifact.asset} {artifact.fingerprint})"
        for artifact in made
        for difference in (
            *differences(artifact.sections, sections(asked.get(artifact.asset, chosen), cast("Made", artifact.asset))),
            *renamed(recipe, artifact.resolved),
        )
    ]
    if changed:
        raise GateError(
            f"{recipe.file}: not published: edited since what is to be published was made: {'; '.join(changed)}. "
            f"Materialize {recipe.name} again, or take the edit back."
        )


def renamed(recipe: Recipe, resolved: Mapping[str, Any]) -> Iterator[str]:
    """Give a line for each key of the recipe that cannot have stood for what an artifact was made of.

    A branch or a tag may have stood for any commit, and is published as the one that was used.

    Args:
        resolved: what the artifact's manifest says that the recipe stood for.
    """
    if base := resolved.get("base_model"):
        yield from _other_model("base_model", recipe.base_model, base)
    if recipe.knowledge and (embedding := resolved.get("embedding")):
        yield from _other_model("knowledge.embedding", recipe.knowledge.embedding, embedding)
    for number, documents in enumerate(recipe.knowledge.documents if recipe.knowledge else ()):
        place = f"knowledge.documents[{number}]"
        used = resolved.get("revisions", {}).get(place)
        if used and documents.hub and is_other_commit(documents.revision, used):
            yield f"{place}.revision: {used}, now {documents.revision}"
    for stem, (source, place) in sources(recipe.dataset).items():
        used = resolved.get("revisions", {}).get(stem)
        if used and source.hub and is_other_commit(source.revision, used):
            yield f"{place}.revision: {used}, now {source.revision}"
    processes, workers = resolved.get("processes"), recipe.resources.workers
    if processes and workers and processes != workers:
        yield f"resources.workers: {processes}, now {workers}"


def _other_model(place: str, spec: BaseModelSpec | EmbeddingSpec, used: Mapping[str, Any]) -> Iterator[str]:
    """Give a line where the recipe names another model, or another commit of it, than the one that was used."""
    of_package = used["source"].split()[:2] == ["package", spec.package]
    if not (of_package if spec.repo is None else used["source"] == spec.repo):
        key, now = ("package", spec.package) if spec.repo is None else ("repo", spec.repo)
        yield f"{place}.{key}: {used['source']}, now {now}"
    # That of a folder is a hash of its files.
    elif COMMIT.fullmatch(used["revision"]) and is_other_commit(spec.revision, used["revision"]):
        yield f"{place}.revision: {used['revision']}, now {spec.revision}"


def is_other_commit(asked: str, used: str) -> bool:
    """Return whether the revision that is asked for is a commit, and not the one that was used."""
    return COMMIT.fullmatch(asked) is not None and asked != used


def version_to_beat(
    recipe: Recipe, artifacts: Artifacts, connection: HubConnection, adapter: Artifact, log: Log
) -> Head | None:
    """What is published now, where the recipe's verdict is also about that; None if it is of this very adapter.

    What was proved of it is what was recorded when it was published from here, whatever the hub says of it now.

    Raises:
        FinetuningError: the hub cannot be asked.
    """
    if not recipe.evaluation.no_worse_than_published:
        return None
    head = head_of(connection, connection.repo_id(recipe.hub.repo))
    recorded = artifacts.find("published_repo", recipe.name, head.tag, log) if head and head.tag else None
    if head and recorded and (proof := recorded.read(AdapterPublicationSummary).proof):
        head = replace(head, report=proof)
    if head is None or head.report is None:
        return None
    is_this = head.adapter == adapter.fingerprint and head.report.files == weights_of(adapter)
    return None if is_this else head


def knows(report: Report, head: Head | None) -> bool:
    """Whether the report's verdict was given beside this version."""
    if head is None or head.report is None:
        return True
    beside = report.published
    return beside is not None and (beside.adapter, beside.files) == (head.adapter, head.report.files)


def require_beside(
    recipe: Recipe,
    artifacts: Artifacts,
    connection: HubConnection,
    adapter: Artifact,
    report: Report,
    log: Log,
) -> str | None:
    """The commit that is published now, beside which the verdict was given; None where that needed none.

    Raises:
        FinetuningError: it was given before that one was published, or the hub cannot be asked.
    """
    head = version_to_beat(recipe, artifacts, connection, adapter, log)
    if head and not knows(report, head):
        raise GateError(
            f"{recipe.name}: not published: the verdict on adapter {adapter.fingerprint} was given without a look at "
            f"the version that is published now ({head.tag or head.commit} of {head.repo_id}). Materialize "
            f"evaluation_report for {recipe.name}, then publish."
        )
    return head.commit if head else None


def hashes_of(files: Mapping[str, Path]) -> dict[str, str]:
    """The sha256 of each file that is published, by its path in the repo."""
    return {path: sha256(local) for path, local in sorted(files.items())}


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
