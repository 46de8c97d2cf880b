"""What an evaluation found as tables for people: in the report, on the card, at the terminal."""

from collections.abc import Mapping

import pandas as pd

from finetuning.evaluation.report import Answering, BenchmarkFigures, Figures, PublishedFigures, Report
from finetuning.evaluation.verdict import change_of
from finetuning.recipe.evaluation import UNBOUNDED


def tables(report: Report) -> list[str]:
    """Base beside tuned in the metrics and, where there were any, in benchmarks, as Markdown."""
    found = [metrics_table(report.metrics)]
    if report.benchmarks:
        found.append(benchmarks_table(report.benchmarks))
    return [table.to_markdown(index=False, disable_numparse=True) for table in found]


def metrics_table(metrics: Mapping[str, Figures] | Mapping[str, PublishedFigures]) -> pd.DataFrame:
    """Put base, or published version, and tuned model in words, one row a metric.

    Shares are percentages, and their gain is in points. A gain above 0 is one for the better, whichever way the metric
    goes.
    """
    rows = []
    for name, found in metrics.items():
        number, points = (in_digits, "{:+.2f}") if name in UNBOUNDED else ("{:.1%}".format, "{:+.2f}")
        scale = 1 if name in UNBOUNDED else 100
        low, high = (points.format(scale * edge) for edge in found.improvement_interval)
        before, figure = ("base", found.base) if isinstance(found, Figures) else ("published", found.published)
        rows.append(
            {
                "metric": name if found.higher_is_better else f"{name} (less is better)",
                before: number(figure),
                "tuned": number(found.tuned),
                "gain": points.format(scale * found.improvement) + ("" if name in UNBOUNDED else " points"),
                "95 % interval": f"{low} to {high}",
                "change": change_of(found),
            }
        )
    return pd.DataFrame(rows)


def benchmarks_table(benchmarks: Mapping[str, BenchmarkFigures]) -> pd.DataFrame:
    """Base beside tuned in words, one row a benchmark."""
    rows = []
    for name, found in benchmarks.items():
        base, tuned = (
            f"{in_digits(figure)} ± {in_digits(error)}"
            for figure, error in zip((found.base, found.tuned), found.standard_errors, strict=True)
        )
        low, high = found.improvement_interval
        metric = found.metric if found.higher_is_better else f"{found.metric} (less is better)"
        rows.append(
            {
                "benchmark": name,
                "metric": metric,
                "rows": f"{found.rows:,}",
                "base": base,
                "tuned": tuned,
                "gain": f"{found.improvement:+.2f}",
                "95 % interval": f"{low:+.2f} to {high:+.2f}",
                "change": change_of(found),
            }
        )
    return pd.DataFrame(rows)


def in_digits(figure: float) -> str:
    """A figure with three digits after the point, or as a power of ten where it is a million or more."""
    return f"{figure:.3f}" if abs(figure) < 1e6 else f"{figure:.3e}"


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
