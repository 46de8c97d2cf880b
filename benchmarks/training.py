"""How fast an adapter is trained on a CPU, beside trl, LLaMA-Factory and a bare loop, and in how much memory.

`python -m benchmarks.training` trains on the same rows with all of them, in turn, each time in a fresh process: once
through all rows, in batches of 8, with the same base model in the same precision, the same LoRA, learning rate and
schedule. Rows and labels are prepared once, by this project, and are the same for trl and the bare loop;
LLaMA-Factory makes its own of the same conversations. All sides keep their activations. Everything else is each
side's own default: ours puts rows of one length together, and so do the others where the table says "grouped". Those
sort a quarter of the rows at a time (of many rows, as many as ours), so that of the few rows here more is padding than
in a long training. Speed is therefore shown with padding too, which is what a long training of theirs would come near.

Speed is in tokens of rows, without padding, from the end of the second step to the end of the last: on every side the
first two steps warm up. Memory is the most that the process held from its start to its end, and the first step counts
from the start of the process. The bound is the time that the floating-point operations of LoRA would take at the rate
of one large matrix product, measured before and after. The loss of every adapter is judged by one piece of code, on
the same rows that none has seen. Ratios are medians over the rounds. Where a side had fewer cores to itself than the
others, something else was at work on the machine, and the figures are worth nothing.

The last line of the output is one JSON object.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import training_rows
from benchmarks.sides import WORK, peer, record_of
from benchmarks.training_comparison import NAMES, Runs, compare, figures
from benchmarks.training_jobs import (
    BATCH_ROWS,
    SMOLLM2,
    SPARE,
    WARM_UP,
    Judgement,
    Preparation,
    Product,
    Training,
)
from resources.launcher import child_environment

EVAL_ROWS = 32
MATRIX, PRODUCTS = 4096, 9
SEED = 42
# The module of each side, and whether it is told to put rows of one length together.
SIDES = {
    "ours": ("training_ours", False),
    "trl": ("training_trl", False),
    "trl_grouped": ("training_trl", True),
    "llamafactory": ("training_llamafactory", False),
    "llamafactory_grouped": ("training_llamafactory", True),
    "bare": ("training_bare", False),
}


def main(arguments: list[str] | None = None) -> None:
    """The tables and the JSON object are printed."""
    options = parse(arguments)
    precisions = ["nf4", "bf16"] if options.precision == "both" else [options.precision]
    pythons = dict.fromkeys(SIDES, sys.executable)
    for side in ("llamafactory", "llamafactory_grouped"):
        if options.without_peer:
            del pythons[side]
        else:
            pythons[side] = peer()
    WORK.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="training-", dir=WORK) as folder:
        work = Path(folder)
        prepared = prepare(work, options)
        results = {precision: measure(work, precision, pythons, options.rounds, prepared) for precision in precisions}
    first, *others = results
    print(json.dumps(results[first] | {precision: results[precision] for precision in others}))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description="Measure how adapters train.")
    parser.add_argument("--steps", type=int, default=12, help=f"steps of {BATCH_ROWS} rows that all sides make (12)")
    parser.add_argument("--rounds", type=int, default=2, help="times that each side does (2)")
    parser.add_argument(
        "--precision", choices=["nf4", "bf16", "both"], default="nf4", help="of the frozen base model (nf4)"
    )
    parser.add_argument(
        "--files", type=lambda name: Path(name).resolve(), help="a JSONL file of `messages` of your own"
    )
    parser.add_argument("--without-peer", action="store_true", help="leave LLaMA-Factory and its environment out")
    options = parser.parse_args(arguments)
    if options.steps <= WARM_UP:
        parser.error(f"--steps: {options.steps} leaves none to measure; the first {WARM_UP} warm up")
    if options.files and not options.files.is_file():
        parser.error(f"--files: {options.files} is not a file; name a JSONL file of rows with `messages`")
    return options


def prepare(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The record of what all sides then have in `work`: rows, and the base model."""
    train_rows = options.steps * BATCH_ROWS
    rows = options.files or training_rows.write(work / "made-up.jsonl", round((train_rows + EVAL_ROWS) * SPARE))
    nf4 = options.precision != "bf16"
    job = Preparation(
        str(rows), train_rows, EVAL_ROWS, SMOLLM2, nf4, str(work), str(folder_for(work, "preparation") / "record.json")
    )
    prepared = child("training_preparation", sys.executable, job, "the preparation")
    print(
        f"{prepared['rows']:,} rows of {prepared['tokens'] / prepared['rows']:.0f} tokens in the mean, "
        f"{prepared['supervised_tokens'] / prepared['tokens']:.0%} of which are learned",
        flush=True,
    )
    return prepared


def measure(
    work: Path, precision: str, pythons: dict[str, str], rounds: int, prepared: dict[str, Any]
) -> dict[str, Any]:
    """What the runs of all sides in one precision come to; the tables of it are printed."""
    own = folder_for(work, f"runs-{precision}")
    rates = [rate(folder_for(own, "before"))]
    runs: Runs = {side: [] for side in pythons}
    for number in range(rounds):
        # There and back again, so that a machine that slows down favours none.
        for side in list(pythons) if number % 2 == 0 else reversed(pythons):
            job = job_of(folder_for(own, f"{side}-{number}"), work, precision, SIDES[side][1], SEED + number)
            runs[side].append(train(side, pythons[side], job))
    base_loss = judge(folder_for(own, "loss"), work, precision, runs)
    rates.append(rate(folder_for(own, "after")))
    print(f"\n{precision}, {rounds} rounds, {cores()} cores")
    return compare(runs, prepared, rates, base_loss) | {"precision": precision}


def job_of(folder: Path, work: Path, precision: str, grouped: bool, seed: int) -> Training:
    """A job whose adapter and record are in `folder`."""
    return Training(
        chat=str(work / "chat"),
        rows=str(work / "rows.jsonl"),
        base_model=str(work / precision),
        dense=str(work / "bf16"),
        nf4=precision == "nf4",
        grouped=grouped,
        seed=seed,
        adapter=str(folder / "adapter"),
        record=str(folder / "record.json"),
        started=0.0,
    )


def train(side: str, python: str, job: Training) -> dict[str, Any]:
    """The record of one side's training, with the folder of its adapter."""
    module, _ = SIDES[side]
    environment = launched_with() if side == "ours" else {}
    record = child(module, python, job._replace(started=time.monotonic()), NAMES[side], **environment)
    record |= figures(record)
    print(
        f"{NAMES[side]}: {record['tokens_per_second']:.0f} tokens/s, {record['peak_mb']:,.0f} MB, "
        f"first step after {record['seconds_to_first_step']:.1f} s",
        flush=True,
    )
    return record | {"adapter": job.adapter}


def judge(folder: Path, work: Path, precision: str, runs: Runs) -> float:
    """The loss of the base model on the held-out rows; that of each adapter is then in its record as `eval_loss`."""
    records = [record for own in runs.values() for record in own]
    adapters = [record.pop("adapter") for record in records]
    job = Judgement(str(work / "chat"), str(work / precision), adapters, str(folder / "record.json"))
    losses = child("training_loss", sys.executable, job, "the judgement")
    for record, loss in zip(records, losses["adapters"], strict=True):
        record["eval_loss"] = loss
    return losses["base"]


def rate(folder: Path) -> float:
    """Floating-point operations a second of one large matrix product."""
    job = Product(MATRIX, PRODUCTS, str(folder / "record.json"))
    return child("training_rate", sys.executable, job, "the matrix product")["rate"]


def launched_with() -> dict[str, str]:
    """The variables that the pipeline adds to its own for the process that trains."""
    return {name: value for name, value in child_environment().items() if os.environ.get(name) != value}


def child(module: str, python: str, job: Any, name: str, **environment: str) -> dict[str, Any]:
    """The record of a process that has all cores."""
    return record_of(f"benchmarks.{module}", python, job, name, **environment | {"OMP_NUM_THREADS": str(cores())})


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def folder_for(parent: Path, name: str) -> Path:
    """A new folder."""
    folder = parent / name
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
