"""The observed asset `hub_state`: what the published repo holds now, and whether that is what was last published."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from assets.failures import explained
from assets.partitions import OWNERS, RECIPES
from finetuning.errors import FinetuningError
from finetuning.evaluation.verdict import verdict_in_words
from finetuning.recipe.smoke import load_for_run
from resources.artifacts import Artifacts
from resources.hub import Hub
from resources.hub_client.versions import Head, head_of

IN_STEP = "none"
# An observed asset with partitions is a beta feature of Dagster 1.13.
warnings.filterwarnings("ignore", "Function `multi_observable_source_asset` is currently in beta")


@dg.multi_observable_source_asset(
    name="hub_state",
    specs=[
        dg.AssetSpec(
            "hub_state",
            deps=["published_repo"],
            group_name="publication",
            kinds={"huggingface"},
            tags={"hub": "read"},
            owners=OWNERS,
            partitions_def=RECIPES,
            description="What the repo on the hub holds now: its newest commit, which version of the model that is, "
            "and how it came away from what was published last, if it did. Observing it changes nothing.",
        )
    ],
    partitions_def=RECIPES,
)
def hub_state(context: dg.AssetExecutionContext, artifacts: Artifacts, hub: Hub) -> Iterator[dg.ObserveResult]:
    """The head of the repo as it is now."""
    with explained():
        recipe = load_for_run(context.partition_key)
        try:
            last = artifacts.current("published_repo", recipe.name).summary
        except FinetuningError:
            last = None  # never published from here
        with hub.connect(log=context.log.warning) as connection:
            head = head_of(connection, last["repo_id"] if last else connection.repo_id(recipe.hub.repo))
        drift = drift_of(head, last)
    (context.log.info if drift == IN_STEP else context.log.warning)(f"drift: {drift}")
    yield dg.ObserveResult(
        asset_key="hub_state",
        data_version=dg.DataVersion(head.commit if head else "absent"),
        metadata={"drift": drift, **state_of(head, last, connection.endpoint)},
    )


def drift_of(head: Head | None, last: Mapping[str, Any] | None) -> str:
    """`none`, or in words how the repo differs from the last publication from here."""
    if last is None:
        return IN_STEP if head is None else f"{head.repo_id} is there, and nothing was published from here yet"
    if head is None:
        return f"{last['repo_id']} is gone, or this account may not see it any more"
    if head.commit == last["commit"] or head.tag == last["tag"]:
        return IN_STEP
    by = ", ".join(head.authors) or "unknown"
    if head.tag:
        return f"version {head.tag} is in force (by {by}), and {last['tag']} was published last from here"
    return f"{head.title!r} by {by} was committed after version {last['tag']}"


def state_of(head: Head | None, last: Mapping[str, Any] | None, endpoint: str) -> dict[str, Any]:
    """What else the UI shows: the repo's head, and what its report says of it."""
    found: dict[str, Any] = {"endpoint": endpoint}
    if last:
        found["last_publication"] = last["commit"]
    if head:
        found |= {"repo_id": head.repo_id, "commit": head.commit, "title": head.title}
        found["url"] = dg.MetadataValue.url(f"{endpoint}/{head.repo_id}")
        found |= {"tag": head.tag} if head.tag else {}
    if head and head.report and head.adapter:
        found |= {"adapter": head.adapter, "verdict": verdict_in_words(head.report.verdict)}
    return found
