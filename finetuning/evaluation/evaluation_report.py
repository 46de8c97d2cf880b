"""The evaluation report: one Markdown page for people, one JSON file for programs, and the plots of the page.

Both are published with the model. Of the data they hold the samples that the recipe allows, and no folder of this
machine is named.
"""

import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from finetuning.errors import FinetuningError
from finetuning.evaluation.intervals import least_gain
from finetuning.evaluation.judged import judge_in_words
from finetuning.evaluation.merged_parts import merged_data, merged_from
from finetuning.evaluation.report import (
    BenchmarkFigures,
    Figures,
    Findings,
    Published,
    Report,
    Sample,
    Started,
    Verdict,
)
from finetuning.evaluation.tables import answering_table, benchmarks_table, metrics_table
from finetuning.evaluation.verdict import verdict_in_words
from finetuning.evaluation.with_passages import in_words
from finetuning.plots import base_beside_tuned, loss_curve, reward_curve
from finetuning.public_names import public_base, public_drops, public_path, public_source
from finetuning.recipe.evaluation import UNBOUNDED
from finetuning.recipe.judge import JUDGE
from finetuning.recipe.recipe import Recipe

SAMPLES = "samples.parquet"  # of all rows; it stays here, whatever is published
UNCHOSEN = "The loss on eval, whose rows chose nothing, shows what the choice made look better than it is."
COLUMN = 56  # letters of an answer in a line
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
    """The summary of its training, or of the merge."""
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
    start: Mapping[str, Any] | None = None
    """The adapter that training went on from: `kind`, `source` and `revision`; None for a fresh one."""
    documents: Sequence[Mapping[str, Any]] = ()
    """Of each collection of documents `stem` (its place in the recipe), `source`, `revision` and `documents`."""
    merge: Mapping[str, Any] | None = None
    """The adapters that it is made of: `parts`, each with `recipe`, `revision`, `weight`, `license`, `datasets` and
    `data`; None for one that was trained."""
    choice: str | None = None
    """Which settings were tried before, and how they were chosen; None where none were."""


def write_report(folder: Path, recipe: Recipe, made: Made, found: Findings, verdict: Verdict) -> Report:
    """Write report.md, report.json, plots and samples.parquet into `folder`; return the numbers.

    Raises:
        FinetuningError: a figure is no finite number.
    """
    require_numbers(found)
    training = made.training
    (folder / "metrics.png").write_bytes(base_beside_tuned(found.metrics))
    if not made.merge:
        curve = loss_curve(training["curve"], training["eval_loss"], training["eval_curve"])
        (folder / "loss.png").write_bytes(curve)
    if rewards := training.get("reward_curve"):
        (folder / "reward.png").write_bytes(reward_curve(rewards))
    rows = pd.DataFrame(list(found.samples))
    (rows if found.context else rows.drop(columns="asked", errors="ignore")).to_parquet(folder / SAMPLES)
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
        start=found.start,
        context=found.context,
        judge=found.judge,
    )
    (folder / "report.json").write_text(json.dumps(report.as_json(), indent=2, allow_nan=False))
    (folder / "report.md").write_text(markdown(recipe, made, found, verdict))
    return report


def require_numbers(found: Findings) -> None:
    """Check that all that was measured are finite numbers.

    Raises:
        FinetuningError: a figure is none.
    """
    beside = (found.published.metrics or {}) if found.published else {}
    kinds = {"metrics": found.metrics, "benchmarks": found.benchmarks, "no_worse_than_published": beside}
    for kind, figures in kinds.items():
        for name, one in figures.items():
            values = {key: value for key, value in one.model_dump().items() if isinstance(value, (float, tuple))}
            wrong = [key for key, value in values.items() if not np.isfinite(value).all()]
            if wrong:
                told = ", ".join(f"{key} {values[key]}" for key in wrong)
                raise FinetuningError(
                    f"evaluation.{kind}: {name} is no finite number ({told}), so that nothing can be said of it. Lower "
                    "training.learning_rate if it is the tuned model's; if not, base_model.dtype may be too narrow."
                )


def markdown(recipe: Recipe, made: Made, found: Findings, verdict: Verdict) -> str:
    """Return the page, with its plots as files beside it."""
    main, figures = next(iter(found.metrics.items()))
    outcome = OUTCOMES[verdict_in_words(verdict)]
    parts = [
        f"# {recipe.name}: base beside tuned",
        recipe.summary,
        f"{outcome}\n\n" + "\n".join(f"- {reason}" for reason in verdict.reasons),
        how_it_was_asked(found.rows, found.metrics),
        metrics_table(found.metrics).to_markdown(index=False, disable_numparse=True),
        "![Base beside tuned](metrics.png)",
        *(["## The judge", *judge_in_words(found.judge)] if found.judge else []),
        *benchmarks(found.benchmarks),
        *(in_words(found.context, found.answering) if found.context else []),
        *beside_published(found.published),
        *beside_start(found.start),
        "## Samples",
        *samples(found.samples, not figures.higher_is_better, recipe.evaluation.samples, main == JUDGE),
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
        "same kind as above. A fall fails where the interval, widened for the number of rules, is beyond the limit."
    )
    return ["## Benchmarks", how, benchmarks_table(found).to_markdown(index=False, disable_numparse=True)]


def beside_published(published: Published | None) -> list[str]:
    """The part of the page on the version that is published now; none where there was none, or only this one."""
    if published is None:
        return []
    parts = ["## Beside the version that is published now", f"Version `{published.tag}` of {published.repo_id}."]
    if published.metrics is None:
        return [*parts, f"It was not compared: {published.why}."]
    table = metrics_table(published.metrics)
    return [*parts, table.to_markdown(index=False, disable_numparse=True)]


def beside_start(start: Started | None) -> list[str]:
    """The part of the page on the adapter that was rewarded further; none where there was none."""
    if start is None:
        return []
    parts = ["## Beside where it started", f"Base is here the adapter {start.source} at `{start.revision}`."]
    if start.metrics is None:
        return [*parts, f"It was not compared: {start.why}."]
    return [*parts, metrics_table(start.metrics).to_markdown(index=False, disable_numparse=True)]


def how_it_was_asked(rows: int, metrics: Mapping[str, Figures]) -> str:
    """Sentences on the rows, on what a gain is worth, and on how small a one they show."""
    name, main = next(iter(metrics.items()))
    shown = least_gain(main.interval)
    gain = f"{shown:.2g}" if name in UNBOUNDED else f"{math.ceil(100 * shown)} points"
    return (
        f"{rows} rows of the eval split, never trained on; the same prompts and greedy decoding for both. A gain whose "
        "95 % interval (Student's, over the rows' differences) has zero in it is called noise. "
        f"So many rows show a gain in {name} of {gain} or more, in four of five exams; a model that gained nothing "
        "seems better in at most one of forty."
    )


def what_was_trained(made: Made) -> list[str]:
    """The parts of the page on data, base model, settings and training."""
    trained = made.training
    settings = ["### Settings", quoted(yaml.safe_dump(dict(made.settings), sort_keys=False)), f"With {packages(made)}."]
    if made.merge:
        return [
            "## What was merged",
            f"Adapter `{made.adapter}` for {public_base(made.base_model)} at `{made.base_model['revision']}`: "
            f"{trained['trainable_parameters']:,} parameters. Nothing was trained; it is",
            "\n".join(f"- {part}" for part in merged_from(made.merge)),
            "### Data",
            *what_it_saw(made),
            *settings,
        ]
    return [
        "## What was trained",
        f"Adapter `{made.adapter}` for {public_base(made.base_model)} at `{made.base_model['revision']}`: "
        f"{trained['trainable_parameters']:,} parameters, {trained['steps']} steps, {trained['tokens']:,} tokens in "
        f"{trained['training_seconds']:.0f} s ({trained['tokens_per_second']:.0f} tokens/s) on {trained['device']} "
        f"with {trained['attention']}, at most {trained['peak_memory_mb']:,} MiB. Loss "
        f"{losses_in_words(trained)}.",
        *([f"It goes on from {went_on_from(made.start)}. Base is the model without either."] if made.start else []),
        *([f"{made.choice} {UNCHOSEN}"] if made.choice else []),
        "![Loss while training](loss.png)",
        *(["![Reward while training](reward.png)"] if trained.get("reward_curve") else []),
        "### Data",
        *what_it_saw(made),
        *settings,
    ]


def losses_in_words(training: Mapping[str, Any]) -> str:
    """The losses after training, each with the split that it was measured on."""
    watched, examined = training["eval_loss"], training.get("exam_loss")
    held_out = f"{watched:.3f} on eval" if examined is None else f"{watched:.3f} on dev, {examined:.3f} on eval"
    return f"{training['train_loss']:.3f} on train, {held_out}"


def went_on_from(start: Mapping[str, Any]) -> str:
    """The adapter that training went on from, in words that name no folder of this machine."""
    words = {"partition": "the adapter of the recipe", "repo": "the adapter", "folder": "an adapter in the folder"}
    name = public_path(start["source"]) if start["kind"] == "folder" else start["source"]
    return f"{words[start['kind']]} {name} at `{start['revision']}`"


def what_it_saw(made: Made) -> list[str]:
    """The parts of a page on sources, splits and dropped rows."""
    if made.merge:
        return merged_data(made.merge, made.sources, made.chat["eval_rows"])
    chat, dropped = made.chat, pd.DataFrame(public_drops(made.chat["dropped"]))
    sources = [
        {"source": public_source(record)} | {key: record[key] for key in ("revision", "rows", "split")}
        for record in made.sources
    ]
    documents = [
        {"documents": public_source(record), "revision": record["revision"], "read": record["documents"]}
        for record in made.documents
    ]
    return [
        pd.DataFrame(sources).to_markdown(index=False, disable_numparse=True),
        *([pd.DataFrame(documents).to_markdown(index=False, disable_numparse=True)] if documents else []),
        f"{chat['train_rows']:,} rows to train on, with {chat['supervised_tokens']:,} learned tokens; "
        f"{chat['eval_rows']:,} rows kept for evaluation"
        f"{', {:,} for choices on the way'.format(chat['dev_rows']) if chat.get('dev_rows') else ''}. "
        + ("Rows that are in neither:" if len(dropped) else "No row was dropped."),
        *([dropped.to_markdown(index=False)] if len(dropped) else []),
    ]


def packages(made: Made) -> str:
    """Names and versions of the packages that it was trained with."""
    return ", ".join(f"{name} {version}" for name, version in sorted(made.versions.items()))


def samples(rows: Sequence[Sample], less_is_better: bool = False, shown: int = 3, by_judge: bool = False) -> list[str]:
    """The part of the page on rows that got better, that got worse, and that are still wrong, those furthest first.

    Args:
        by_judge: whether the scores are a judge's, to whom answers that are alike are no wrong ones.
    """
    sign = -1 if less_is_better else 1
    gains = [(sign * (row.tuned_score - row.base_score), row) for row in rows]
    best = 0.0 if less_is_better else 1.0
    kinds = {
        "Got better": sorted((x for x in gains if x[0] > 0), key=lambda x: -x[0]),
        "Got worse": sorted((x for x in gains if x[0] < 0), key=lambda x: x[0]),
        "Ties" if by_judge else "Stayed wrong": [x for x in gains if x[0] == 0 and x[1].tuned_score != best],
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
