"""What Dagster is told of an artifact that an asset obtained: the same for every asset."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from resources.store.artifact import Artifact


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
