"""The job `prune`: artifacts that nobody refers to any more are shown and, if that is asked for, removed.

So is what trainings left that were never gone on with.

dg launch --job prune --config-json '{"ops": {"prune_artifacts": {"config": {"dry_run": false}}}}'
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TypedDict, TypeVar

import dagster as dg
from pydantic import Field

from assets.failures import explained
from resources.artifacts import Artifacts
from resources.hub import Hub
from resources.hub_client.connection import HubConnection
from resources.hub_client.versions import tags_of
from resources.store.artifact import Artifact
from resources.store.retention import unreferenced
from resources.store.store import Unfinished

MB = 1e6
Prunable = TypeVar("Prunable", Artifact, Unfinished)


class Row(TypedDict):
    """What became of one artifact."""

    asset: str
    partition: str
    fingerprint: str
    created: str
    MB: float
    what: str


class Pruning(dg.Config):
    """What is removed."""

    dry_run: bool = Field(default=True, description="Whether to show only what would be removed.")
    older_than_days: float = Field(default=7.0, ge=0, description="Younger artifacts stay, whoever refers to them.")


@dg.op
def prune_artifacts(context: dg.OpExecutionContext, config: Pruning, artifacts: Artifacts, hub: Hub) -> None:
    """Remove the artifacts that nobody refers to; the step's metadata has each that went, or would have gone."""
    import pandas as pd

    with explained():
        store, older_than = artifacts.store(context.log.info), timedelta(days=config.older_than_days)
        with hub.connect(log=context.log.warning) as connection:
            found = unreferenced(store, Published(connection), older_than)
        rows = list(pruned(found, store.remove, config.dry_run))
        rows += pruned(store.unfinished(older_than), store.remove_unfinished, config.dry_run)
    for row in rows:
        context.log.info("{asset} {partition} {fingerprint} ({MB} MB, {created}): {what}".format(**row))
    gone = sum(row["MB"] for row in rows if row["what"] != "in use")
    context.log.info(f"{len(rows)} artifacts, {gone:.1f} MB" + (": a dry run, nothing was removed" * config.dry_run))
    table = pd.DataFrame(rows).to_markdown(index=False) if rows else "Every artifact is referred to."
    context.add_output_metadata({"artifacts": dg.MetadataValue.md(table), "mb": gone, "dry_run": config.dry_run})


def pruned(found: Sequence[Prunable], take_away: Callable[[Prunable], bool], dry_run: bool) -> Iterator[Row]:
    """Take each artifact away; yield a row of the table once it is gone, or is seen to be in use."""
    for artifact in found:
        yield {
            "asset": artifact.asset,
            "partition": artifact.partition,
            "fingerprint": artifact.fingerprint,
            "created": artifact.created,
            "MB": round(artifact.bytes / MB, 1),
            "what": "would be removed" if dry_run else "removed" if take_away(artifact) else "in use",
        }


class Published:
    """Tells whether the hub has a publication still; each repo is asked about once."""

    def __init__(self, connection: HubConnection) -> None:
        self.connection = connection
        self.tags: dict[str, dict[str, str] | None] = {}

    def __call__(self, artifact: Artifact) -> bool:
        """Return whether its tag is there. A repo that is not seen may be hidden from this account: all of it stays."""
        repo_id = artifact.summary["repo_id"]
        if repo_id not in self.tags:
            self.tags[repo_id] = tags_of(self.connection, repo_id)
        tags = self.tags[repo_id]
        return tags is None or artifact.summary["tag"] in tags


@dg.job(
    description="Shows the artifacts that no current.json, published version or running step refers to, and removes "
    "them where the configuration says `dry_run: false`."
)
def prune() -> None:
    """One step over all partitions."""
    prune_artifacts()
