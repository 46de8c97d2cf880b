"""Prints what the last run of a recipe came to, and exits with a code that says which kind of trouble there was.

dagster asset materialize --select '*' --partition phi-2 -m pipelines.definitions
python -m pipelines.results phi-2 --after $?
"""

import argparse
import sys

import dagster as dg

from finetuning.errors import FAULT, GATE, INFRASTRUCTURE, INPUT, FinetuningError
from finetuning.evaluation.tables import tables
from finetuning.evaluation.verdict import read_report, verdict_in_words
from pipelines.outcomes import WELL, outcome_of
from resources.artifacts import Artifacts
from resources.dagster_internals import instance_of_the_command_line
from resources.store.artifact import Artifact

CODES = {WELL: 0, FAULT: 1, GATE: 3, INPUT: 4, INFRASTRUCTURE: 5}
USAGE = 2
TITLES = {
    FAULT: "failed for a reason that nobody foresaw",
    GATE: "failed its gate: nothing was published",
    INPUT: "failed by its recipe or data",
    INFRASTRUCTURE: "failed by its surroundings, or did not end",
}
CODES_IN_WORDS = "exit codes: " + ", ".join(
    f"{code} {'verdict' if kind == GATE else kind}"
    for kind, code in sorted((CODES | {"usage": USAGE}).items(), key=lambda pair: pair[1])
)


def results(artifacts: Artifacts, partition: str) -> str:
    """The evaluation table, where the report is, and what was published; empty where no report is there yet."""
    evaluated, published = (in_force(artifacts, asset, partition) for asset in ("evaluation_report", "published_repo"))
    if evaluated is None:
        return ""
    report = read_report(evaluated.path)
    lines = [
        "",
        *(f"{table}\n" for table in tables(report)),
        f"report     {evaluated.path / 'report.md'}",
        f"verdict    {verdict_in_words(report.verdict)}",
    ]
    if published and published.inputs["evaluation_report"] == evaluated.fingerprint:
        summary = published.summary
        lines.append(f"published  {summary['repo_id']} at commit {summary['commit']} (tag {summary['tag']})")
    if report.verdict.passed:
        lines.append(f"talk       make chat RECIPE={partition}, or make serve RECIPE={partition} for a page and an API")
    return "\n".join(lines)


def in_force(artifacts: Artifacts, asset: str, partition: str) -> Artifact | None:
    """The artifact in force, if there is one."""
    try:
        return artifacts.current(asset, partition)
    except FinetuningError:
        return None


def has_gate(artifacts: Artifacts, partition: str) -> bool:
    """Whether the recipe that was judged last set a gate; no, where none was judged."""
    evaluated = in_force(artifacts, "evaluation_report", partition)
    return evaluated is not None and bool(evaluated.sections["evaluation"].get("gate"))


def last_run(instance: dg.DagsterInstance, partition: str) -> dg.DagsterRun | None:
    """The run of the partition that began last."""
    found = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": partition}), limit=1)
    return found[0] if found else None


def report(partition: str, after: int) -> int:
    """The exit code; what it means is printed.

    Args:
        after: the exit code of the command that was to begin a run.

    Raises:
        FinetuningError: a variable of the environment is wrong, or there is no such partition.
    """
    # The code location reads the environment.
    from assets.partitions import RECIPES, UnknownPartition
    from pipelines.definitions import artifacts

    if not RECIPES.has_partition_key(partition):
        raise UnknownPartition(partition, list(RECIPES.get_partition_keys()))
    with instance_of_the_command_line() as instance:
        run = last_run(instance, partition)
        outcome = outcome_of(instance, run) if run else None
    if outcome is None or (outcome.kind == WELL and after):
        last = f"the last one, {run.run_id}, went well" if run else "there is none in this Dagster instance"
        print(f"{partition}: no run began: {last}. The command's own output has the reason.", file=sys.stderr)
        return after or CODES[FAULT]
    if outcome.kind in (WELL, GATE):
        print(results(artifacts, partition))
    if outcome.kind != WELL:
        title = TITLES[outcome.kind]
        if outcome.kind == GATE and not has_gate(artifacts, partition):
            title = title.replace("its gate", "its evaluation")
        print("\n".join([f"{partition} {title}:", *outcome.reasons]), file=sys.stderr)
    return CODES[outcome.kind]


def main(arguments: list[str] | None = None) -> int:
    """The exit code of the command line; argparse's own, 2, on usage."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.results",
        description="Print what the last run of a recipe came to.",
        epilog=CODES_IN_WORDS,
    )
    parser.add_argument("partition", metavar="PARTITION", help="the recipe's name")
    parser.add_argument(
        "--after",
        type=int,
        default=0,
        metavar="CODE",
        help="exit code of the command that was to begin the run; it is handed on where that began none",
    )
    chosen = parser.parse_args(arguments)
    try:
        return report(chosen.partition, chosen.after)
    except FinetuningError as error:
        print(error, file=sys.stderr)
        return USAGE


if __name__ == "__main__":
    sys.exit(main())
