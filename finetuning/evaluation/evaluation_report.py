"""The evaluation report: one Markdown page for people, one JSON file for programs, and the plots of the page.

Both are published with the model. Of the data they hold the samples that the recipe allows, and no folder of this
machine is named.
"""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from finetuning.evaluation.report import (
    Answering,
    BenchmarkFigures,
    Figures,
    Findings,
    Published,
    PublishedFigures,
    Report,
    Sample,
    Verdict,
)
from finetuning.evaluation.verdict import change_of, verdict_in_words
from finetuning.plots import base_beside_tuned, loss_curve
from finetuning.public_names import public_base, public_drops, public_source
from finetuning.recipe.evaluation import UNBOUNDED
from finetuning.recipe.recipe import Recipe

COLUMN = 56  # letters of an answer in a line
FEW_ROWS = 30
OUTCOMES = {
    "passed": "**Passed**: may be published.",
    "failed": "**Failed**: will not be published.",
    "smoke run": "**Smoke run**: nothing is proved. It shows that the pipeline works, on few rows and few steps.",
}


class Made(NamedTuple):
    """How an adapter came to be, as the manifests of the artifacts on the way tell it."""

    adapter: str
    """The adapter's fingerprint."""
    files: Mapping[str, str]
    """The sha256 of the adapter's weights, by the file's name."""
    alike: Mapping[str, Any]
    """What two versions must have in common to answer the same prompts on the same base model."""
    training: Mapping[str, Any]
    """The summary of its training."""
    settings: Mapping[str, Any]
    """The recipe's sections that it was trained by."""
    versions: Mapping[str, str]
    """Versions of the packages, by name."""
    base_model: Mapping[str, Any]
    """Where the base model came from: `source`, `revision`, `on_hub`."""
    sources: Sequence[Mapping[str, Any]]
    """Of each data set `stem`, `split`, `source`, `revision` and `rows`."""
    chat: Mapping[str, Any]
    """`train_rows`, `eval_rows`, `supervised_tokens`, and `dropped`: reason, rows and an example's place."""


def write_report(folder: Path, recipe: Recipe, made: Made, found: Findings, verdict: Verdict) -> Report:
    """Write report.md, report.json, two plots and samples.parquet into `folder`; return the numbers."""
    training = made.training
    (folder / "metrics.png").write_bytes(base_beside_tuned(found.metrics))
    curve = loss_curve(training["curve"], training["eval_loss"], training["eval_curve"])
    (folder / "loss.png").write_bytes(curve)
    pd.DataFrame(list(found.samples)).to_parquet(folder / "samples.parquet")
    report = Report(
        adapter=made.adapter,
        files=dict(made.files),
        alike=dict(made.alike),
        verdict=verdict,
        rows=found.rows,
        metrics=dict(found.metrics),
        benchmarks=dict(found.benchmarks),
        answering=dict(found.answering),
        published=found.published,
    )
    (folder / "report.json").write_text(json.dumps(report.as_json(), indent=2, allow_nan=False))
    (folder / "report.md").write_text(markdown(recipe, made, found, verdict))
    return report


def metrics_table(metrics: Mapping[str, Figures] | Mapping[str, PublishedFigures]) -> pd.DataFrame:
    """Put base, or published version, and tuned model in words, one row a metric.

    Shares are percentages, and their gain is in points.
    """
    rows = []
    for name, found in metrics.items():
        number, points = ("{:.3f}", "{:+.3f}") if name in UNBOUNDED else ("{:.1%}", "{:+.1f}")
        scale = 1 if name in UNBOUNDED else 100
        low, high = (points.format(scale * edge) for edge in found.interval)
        before, figure = ("base", found.base) if isinstance(found, Figures) else ("published", found.published)
        rows.append(
            {
                "metric": name if found.higher_is_better else f"{name} (less is better)",
                before: number.format(figure),
                "tuned": number.format(found.tuned),
                "gain": points.format(scale * found.gain) + ("" if name in UNBOUNDED else " points"),
                "95 % interval": f"{low} to {high}",
                "change": change_of(found),
            }
        )
    return pd.DataFrame(rows)


def markdown(recipe: Recipe, made: Made, found: Findings, verdict: Verdict) -> str:
    """Return the page, with its plots as files beside it."""
    less_is_better = not next(iter(found.metrics.values())).higher_is_better
    outcome = OUTCOMES[verdict_in_words(verdict)]
    parts = [
        f"# {recipe.name}: base beside tuned",
        recipe.summary,
        f"{outcome}\n\n" + "\n".join(f"- {reason}" for reason in verdict.reasons),
        how_it_was_asked(found.rows),
        metrics_table(found.metrics).to_markdown(index=False, disable_numparse=True),
        "![Base beside tuned](metrics.png)",
        *benchmarks(found.benchmarks),
        *beside_published(found.published),
        "## Samples",
        *samples(found.samples, less_is_better, recipe.evaluation.samples),
        *what_was_trained(made),
        "## What the evaluation took",
        answering_table(found.answering).to_markdown(index=False),
    ]
    return "\n\n".join(parts) + "\n"


def benchmarks(found: Mapping[str, BenchmarkFigures]) -> list[str]:
    """The part of the page on public benchmarks; empty where there were none."""
    if not found:
        return []
    how = (
        "By lm-eval: the same rows and the same shots for both. ± is a standard error, and the intervals are of the "
        "same paired bootstrap as above."
    )
    return ["## Benchmarks", how, benchmarks_table(found).to_markdown(index=False, disable_numparse=True)]


def benchmarks_table(benchmarks: Mapping[str, BenchmarkFigures]) -> pd.DataFrame:
    """Base beside tuned in words, one row a benchmark."""
    rows = []
    for name, found in benchmarks.items():
        base, tuned = (
            f"{figure:.3f} ± {error:.3f}"
            for figure, error in zip((found.base, found.tuned), found.standard_errors, strict=True)
        )
        low, high = found.interval
        metric = found.metric if found.higher_is_better else f"{found.metric} (less is better)"
        rows.append(
            {
                "benchmark": name,
                "metric": metric,
                "rows": f"{found.rows:,}",
                "base": base,
                "tuned": tuned,
                "gain": f"{found.gain:+.3f}",
                "95 % interval": f"{low:+.3f} to {high:+.3f}",
                "change": change_of(found),
            }
        )
    return pd.DataFrame(rows)


def beside_published(published: Published | None) -> list[str]:
    """The part of the page on the version that is published now; none where there was none, or only this one."""
    if published is None:
        return []
    parts = ["## Beside the version that is published now", f"Version `{published.tag}` of {published.repo_id}."]
    if published.metrics is None:
        return [*parts, f"It was not compared: {published.why}."]
    table = metrics_table(published.metrics)
    return [*parts, table.to_markdown(index=False, disable_numparse=True)]


def how_it_was_asked(rows: int) -> str:
    """A sentence on the rows, and one on what a gain is worth."""
    doubt = f" With fewer than {FEW_ROWS} rows the intervals themselves are rough." if rows < FEW_ROWS else ""
    return (
        f"{rows} rows of the eval split, never trained on; the same prompts and greedy decoding for both. The "
        "intervals are of a paired bootstrap over the rows; a gain whose interval has zero in it is called "
        f"noise.{doubt}"
    )


def what_was_trained(made: Made) -> list[str]:
    """The parts of the page on data, base model, settings and training."""
    trained = made.training
    return [
        "## What was trained",
        f"Adapter `{made.adapter}` for {public_base(made.base_model)} at `{made.base_model['revision']}`: "
        f"{trained['trainable_parameters']:,} parameters, {trained['steps']} steps, {trained['tokens']:,} tokens in "
        f"{trained['training_seconds']:.0f} s ({trained['tokens_per_second']:.0f} tokens/s) on {trained['device']} "
        f"with {trained['attention']}, at most {trained['peak_memory_mb']:,} MiB. Loss {trained['train_loss']:.3f} on "
        f"train, {trained['eval_loss']:.3f} on eval.",
        "![Loss while training](loss.png)",
        "### Data",
        *what_it_saw(made),
        "### Settings",
        quoted(yaml.safe_dump(dict(made.settings), sort_keys=False)),
        f"With {packages(made)}.",
    ]


def what_it_saw(made: Made) -> list[str]:
    """The parts of a page on sources, splits and dropped rows."""
    chat, dropped = made.chat, pd.DataFrame(public_drops(made.chat["dropped"]))
    sources = [
        {"source": public_source(record)} | {key: record[key] for key in ("revision", "rows", "split")}
        for record in made.sources
    ]
    return [
        pd.DataFrame(sources).to_markdown(index=False, disable_numparse=True),
        f"{chat['train_rows']:,} rows to train on, with {chat['supervised_tokens']:,} learned tokens; "
        f"{chat['eval_rows']:,} rows kept for evaluation. "
        + ("Rows that are in neither:" if len(dropped) else "No row was dropped."),
        *([dropped.to_markdown(index=False)] if len(dropped) else []),
    ]


def packages(made: Made) -> str:
    """Names and versions of the packages that it was trained with."""
    return ", ".join(f"{name} {version}" for name, version in sorted(made.versions.items()))


def answering_table(answering: Mapping[str, Answering]) -> pd.DataFrame:
    """What it took each model to answer: one row a model."""
    rows = [
        {
            "model": name,
            "tokens": took.tokens,
            "seconds": took.seconds,
            "tokens/s": took.tokens_per_second,
            "MiB at most": took.peak_memory_mb,
        }
        for name, took in answering.items()
    ]
    return pd.DataFrame(rows)


def samples(rows: Sequence[Sample], less_is_better: bool = False, shown: int = 3) -> list[str]:
    """The part of the page on rows that got better, that got worse, and that are still wrong, those furthest first."""
    sign = -1 if less_is_better else 1
    gains = [(sign * (row.tuned_score - row.base_score), row) for row in rows]
    best = 0.0 if less_is_better else 1.0
    kinds = {
        "Got better": sorted((x for x in gains if x[0] > 0), key=lambda x: -x[0]),
        "Got worse": sorted((x for x in gains if x[0] < 0), key=lambda x: x[0]),
        "Stayed wrong": [x for x in gains if x[0] == 0 and x[1].tuned_score != best],
    }
    return [
        *([] if shown else ["Numbers alone: the recipe says `evaluation.samples: 0`."]),
        *(samples_of(kind, [row for _, row in found], len(rows), shown) for kind, found in kinds.items()),
    ]


def samples_of(kind: str, matching: Sequence[Sample], rows: int, shown: int) -> str:
    """The first few samples of a kind, with how many there are, both answers side by side."""
    blocks = [f"### {kind}: {len(matching)} of {rows}"]
    for sample in matching[:shown]:
        for title, text in (("Question", sample.question), ("Reference", sample.reference)):
            blocks.append(f"**{title}**\n\n{quoted(text)}")
        answers = side_by_side(("BASE", sample.base), ("TUNED", sample.tuned))
        blocks.append(f"**Answers**\n\n{quoted(answers)}")
    return "\n\n".join(blocks)


def side_by_side(left: tuple[str, str], right: tuple[str, str]) -> str:
    """Two texts in two columns, each under its title."""
    columns = [[title, "-" * COLUMN, *wrapped(text)] for title, text in (left, right)]
    lines = (f"{one:<{COLUMN}} | {other}".rstrip() for one, other in zip_longest(*columns, fillvalue=""))
    return "\n".join(lines)


def wrapped(text: str) -> Iterable[str]:
    """The lines of `text`, none longer than a column."""
    for line in text.expandtabs(4).splitlines() or ["(empty)"]:
        yield from textwrap.wrap(line, COLUMN, drop_whitespace=False) or [""]


def quoted(text: str) -> str:
    """`text` as an indented block, which no character in it can leave."""
    return "\n".join(f"    {line}" for line in text.splitlines()) or "    (empty)"
