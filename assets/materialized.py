"""What Dagster is told of an artifact that an asset obtained: the same for every asset."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from resources.store.artifact import Artifact


def page_of(artifact: Artifact, page: str) -> dg.MarkdownMetadataValue:
    """Return a Markdown page of the artifact, with the pictures that lie beside it inside."""
    text = (artifact.path / page).read_text()
    for plot in artifact.path.glob("*.png"):
        picture = base64.b64encode(plot.read_bytes()).decode()
        text = text.replace(f"({plot.name})", f"(data:image/png;base64,{picture})")
    return dg.MetadataValue.md(text)


def materialized(
    artifact: Artifact, metadata: Mapping[str, Any], checks: Sequence[dg.AssetCheckResult] = ()
) -> dg.MaterializeResult[Artifact]:
    """Return the event that records the artifact: its fingerprint as data version, and what the UI shows of it."""
    return dg.MaterializeResult(
        value=artifact,
        data_version=dg.DataVersion(artifact.fingerprint),
        metadata={**metadata, **artifact.metadata()},
        check_results=list(checks),
    )
