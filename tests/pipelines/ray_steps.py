"""A code location of tests: steps on a Ray cluster that die, wait and leave lines, without a model."""

import os
import signal
import time
from pathlib import Path

import dagster as dg

from pipelines.executor import on_cluster

SHORT, LONG = 5, 25  # seconds


def leave(line: str) -> None:
    with Path(os.environ["FINETUNING_RECIPES"], "lines").open("a") as file:
        file.write(f"{line}\n")


def lines(folder: Path) -> list[str]:
    return (folder / "lines").read_text().splitlines()


@dg.op
def begins() -> None:
    leave("begins")


@dg.op(ins={"start": dg.In(dg.Nothing)})
def dies_once() -> None:
    leave("dies_once")
    if lines(Path(os.environ["FINETUNING_RECIPES"])).count("dies_once") == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@dg.op(ins={"start": dg.In(dg.Nothing)})
def sleeps() -> None:
    time.sleep(SHORT)
    leave("sleeps")


@dg.op
def sleeps_long() -> None:
    time.sleep(LONG)
    leave("sleeps_long")


@dg.op
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dg.op
def goes_on() -> None:
    leave("goes_on")
    time.sleep(600)


@dg.job(executor_def=on_cluster)
def crowded():
    """More steps than a cluster of two cores has room for, of which one dies."""
    start = begins()
    dies_once(start)
    for number in range(3):
        sleeps.alias(f"sleeps_{number}")(start)


@dg.job(executor_def=on_cluster)
def queue():
    """One step more than a cluster of two cores has room for, which so waits for as long as another takes."""
    for number in range(3):
        sleeps_long.alias(f"sleeps_long_{number}")()


@dg.job(executor_def=on_cluster)
def hopeless():
    dies()


@dg.job(executor_def=on_cluster)
def endless():
    goes_on()


defs = dg.Definitions(jobs=[crowded, queue, hopeless, endless])
