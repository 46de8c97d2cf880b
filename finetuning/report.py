"""The evaluation report: one Markdown page for people, one JSON file for programs, and the plot that both refer to."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from finetuning.plots import base_beside_tuned

SAMPLES_SHOWN = 3
KINDS = {
    "Got better": (0.0, 1.0),
    "Got worse": (1.0, 0.0),
    "Stayed wrong": (0.0, 0.0),
}


def write_report(
    folder: Path,
    name: str,
    summary: str,
    adapter: Mapping[str, Any],
    found: Mapping[str, Any],
    verdict: Mapping[str, Any],
) -> dict[str, Any]:
    """The numbers of the report that `folder` then holds: report.md, report.json, metrics.png and samples.parquet.

    `adapter` is the manifest of the adapter's artifact, `found` what `evaluate` returned.
    """
    (folder / "metrics.png").write_bytes(base_beside_tuned(found["metrics"]))
    pd.DataFrame(found["samples"]).to_parquet(folder / "samples.parquet")
    report = {
        "adapter": adapter["fingerprint"],
        "rows": found["rows"],
        "metrics": found["metrics"],
        "verdict": verdict,
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2))
    (folder / "report.md").write_text(markdown(name, summary, adapter, found, verdict))
    return report


def metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Base beside tuned, as percentages in text: one row a metric."""
    rows = []
    for name, found in metrics.items():
        low, high = found["interval"]
        rows.append(
            {
                "metric": name if found["higher_is_better"] else f"{name} (less is better)",
                "base": f"{found['base']:.1%}",
                "tuned": f"{found['tuned']:.1%}",
                "gain (points)": f"{100 * found['gain']:+.1f}",
                "95 % interval": f"{100 * low:+.1f} to {100 * high:+.1f}",
            }
        )
    return pd.DataFrame(rows)


def markdown(
    name: str, summary: str, adapter: Mapping[str, Any], found: Mapping[str, Any], verdict: Mapping[str, Any]
) -> str:
    """The page, with its plot as a file beside it."""
    trained = adapter["summary"]
    outcome = "**Passed**: may be published." if verdict["passed"] else "**Failed**: will not be published."
    parts = [
        f"# {name}: base beside tuned",
        summary,
        f"{outcome}\n" + "\n".join(f"- {reason}" for reason in verdict["reasons"]),
        f"{found['rows']} rows of the eval split, never trained on; the same prompts and greedy decoding for both.",
        metrics_table(found["metrics"]).to_markdown(index=False),
        "![Base beside tuned](metrics.png)",
        "## What was trained",
        f"Adapter `{adapter['fingerprint']}`: {trained['trainable_parameters']:,} parameters, {trained['steps']} "
        f"steps, {trained['tokens']:,} tokens in {trained['training_seconds']:.0f} s "
        f"({trained['tokens_per_second']:.0f} tokens/s) on {trained['device']} with {trained['attention']}, at most "
        f"{trained['peak_memory_mb']:,} MiB. Loss {trained['train_loss']:.3f} on train, {trained['eval_loss']:.3f} on "
        "eval.",
        "## Samples",
        *(samples_of(kind, scores, found["samples"]) for kind, scores in KINDS.items()),
    ]
    return "\n\n".join(parts) + "\n"


def samples_of(kind: str, scores: tuple[float, float], samples: Sequence[Mapping[str, Any]]) -> str:
    """The first few samples whose (base, tuned) scores are `scores`, with how many there are."""
    matching = [sample for sample in samples if (sample["base_score"], sample["tuned_score"]) == scores]
    blocks = [f"### {kind}: {len(matching)} of {len(samples)}"]
    for sample in matching[:SAMPLES_SHOWN]:
        texts = [("Question", "question"), ("Reference", "reference"), ("Base", "base"), ("Tuned", "tuned")]
        blocks.append("\n\n".join(f"**{title}**\n\n{quoted(sample[key])}" for title, key in texts))
    return "\n\n".join(blocks)


def quoted(text: str) -> str:
    """`text` as an indented block, which no character in it can leave."""
    return "\n".join(f"    {line}" for line in text.splitlines()) or "    (empty)"
