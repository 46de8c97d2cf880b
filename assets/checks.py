"""Shows what was judged of the data as asset checks: the same judgement that later steps insist on."""

from collections.abc import Iterable

import dagster as dg

from assets.partitions import RECIPES
from finetuning.checks.judgement import Judgement

SEVERITIES = {"error": dg.AssetCheckSeverity.ERROR, "warn": dg.AssetCheckSeverity.WARN}


def specs(asset: str, descriptions: dict[str, str]) -> list[dg.AssetCheckSpec]:
    """A blocking check of the asset for each name; one whose recipe says `warn` blocks nothing."""
    return [
        dg.AssetCheckSpec(name, asset=asset, description=text, blocking=True, partitions_def=RECIPES)
        for name, text in descriptions.items()
    ]


def results(context: dg.AssetExecutionContext, judgements: Iterable[Judgement]) -> list[dg.AssetCheckResult]:
    """What the UI shows of each judgement; what was found is also in the log, with what to do if it did not pass."""
    return [_result(context, judgement) for judgement in judgements]


def _result(context: dg.AssetExecutionContext, judgement: Judgement) -> dg.AssetCheckResult:
    if not judgement.passed:
        (context.log.error if judgement.severity == "error" else context.log.warning)(judgement.text)
    elif judgement.rows:
        context.log.info(f"{judgement.name}: {judgement.text}")
    places = "\n".join(f"- `{e.place}` {e.field}: {e.detail}" for e in judgement.examples)
    return dg.AssetCheckResult(
        check_name=judgement.name,
        passed=judgement.passed,
        severity=SEVERITIES[judgement.severity],
        description=judgement.text,
        metadata={
            "rows": judgement.rows,
            "of": judgement.of,
            "limit": judgement.limit,
            "first": dg.MetadataValue.md(places) if places else "none",
        },
    )
