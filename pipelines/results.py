"""Prints what a run of the main line came to: `python -m pipelines.results smollm2-135m`."""

import json
import sys

import pandas as pd

from finetuning.errors import FinetuningError
from pipelines.definitions import artifacts


def results(partition: str) -> str:
    """The evaluation table, where the report is, and what was published.

    Raises:
        FinetuningError: nothing was published for `partition` yet.
    """
    published = artifacts.current("published_repo", partition)
    evaluated = artifacts.current("evaluation_report", partition)
    report = json.loads((evaluated.path / "report.json").read_text())
    figures = pd.DataFrame.from_dict(report["metrics"] | report["benchmarks"], orient="index")
    table = figures[["base", "tuned", "gain", "interval"]]
    summary = published.summary
    return "\n".join(
        [
            "",
            table.to_markdown(floatfmt=".3f"),
            "",
            f"report     {evaluated.path / 'report.md'}",
            f"published  {summary['repo_id']} at commit {summary['commit']} (tag {summary['tag']})",
        ]
    )


def main(arguments: list[str]) -> int:
    """The exit code: 0, 1 where there is nothing to show, 2 on usage."""
    if len(arguments) != 1:
        print("usage: python -m pipelines.results PARTITION", file=sys.stderr)
        return 2
    try:
        print(results(arguments[0]))
    except FinetuningError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
