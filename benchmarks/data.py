"""How fast chat data is prepared for training, beside trl and LLaMA-Factory, and in how much memory.

`python -m benchmarks.data` takes the same rows through all three, in turn, each time in a fresh process with empty
caches. Measured is the way from a JSONL file on the disk to token ids and labels on the disk: reading, checking,
rendering, tokenizing, marking what is supervised, writing. Not measured are imports, loading the tokenizer, and the
start of the process. All have the same tokenizer, the same ChatML text and the same limit of tokens, and otherwise
their own defaults; ours has all the checks of the two assets, which the others do not make. The medians of the rounds
are compared. A second, larger file shows whether memory stays bounded and time linear.

The last line of the output is one JSON object.
"""

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import conversations
from benchmarks.data_side import Job, digests_of
from benchmarks.sides import NAMES, WORK, peer, record_of

MAX_LENGTH = 1024
GIGABYTE = 10**9


def main(arguments: list[str] | None = None) -> None:
    """The table and the JSON object are printed."""
    options = parse(arguments)
    WORK.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="data-", dir=WORK) as folder:
        work = Path(folder)
        tokenizer = save_tokenizer(work / "tokenizer")
        rows = options.files or generated(work / "rows.jsonl", rows=options.rows)
        with rows.open("rb") as file:
            count = sum(1 for line in file if line.strip())
        pythons = {"ours": sys.executable, "trl": sys.executable}
        if not options.without_peer:
            pythons["llamafactory"] = peer()
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in pythons}
        for number in range(options.rounds):
            for side, python in pythons.items():
                job = job_in(work / f"{side}-{number}", rows, tokenizer, options.workers)
                runs[side].append(prepare(side, python, job))
        result = compare(runs, count)
        if options.gigabytes:
            large = generated(work / "large.jsonl", size=int(options.gigabytes * GIGABYTE))
            record = prepare("ours", sys.executable, job_in(work / "large", large, tokenizer, None))
            result |= scale(record, result["rows_per_second"])
    print(json.dumps(result))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description="Measure how data is prepared.")
    parser.add_argument("--rows", type=int, default=100_000, help="rows that all sides prepare (100000)")
    parser.add_argument("--rounds", type=int, default=2, help="times that each side does (2)")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the file for memory; 0 leaves it out (2)")
    parser.add_argument(
        "--files", type=lambda name: Path(name).resolve(), help="a JSONL file of `messages` of your own"
    )
    parser.add_argument("--workers", type=int, help="worker processes of trl and LLaMA-Factory (their default: one)")
    parser.add_argument("--without-peer", action="store_true", help="leave LLaMA-Factory and its environment out")
    options = parser.parse_args(arguments)
    if options.files and not options.files.is_file():
        parser.error(f"--files: {options.files} is not a file; name a JSONL file of rows with `messages`")
    return options


def save_tokenizer(folder: Path) -> str:
    """The folder, which then holds the tokenizer that all sides load."""
    from benchmarks.data_ours import recipe
    from finetuning.base_model.source import local_folder
    from finetuning.chat.tokenizer import load_tokenizer

    spec = recipe("rows.jsonl", MAX_LENGTH).base_model
    source = local_folder(spec, "benchmark")
    assert source is not None
    load_tokenizer(spec, source, "benchmark").save_pretrained(folder)
    return str(folder)


def generated(path: Path, **amount: int) -> Path:
    """The file, which then holds made-up rows."""
    rows = conversations.write(path, **amount)
    print(f"{path.name}: {rows:,} made-up conversations, {path.stat().st_size / 1e6:,.0f} MB", flush=True)
    return path


def job_in(folder: Path, rows: Path, tokenizer: str, workers: int | None) -> Job:
    """A job with a folder of its own."""
    (folder / "work").mkdir(parents=True)
    return Job(str(rows), tokenizer, str(folder / "work"), MAX_LENGTH, workers, str(folder / "record.json"))


def prepare(side: str, python: str, job: Job) -> dict[str, Any]:
    """The record of one side's preparation, with the digests of its rows, in a process and with caches of its own."""
    record = record_of(f"benchmarks.data_{side}", python, job, NAMES[side])
    print(f"{NAMES[side]}: {record['rows']:,} rows in {record['seconds']:.1f} s", flush=True)
    return {**record, "digests": np.load(digests_of(job))}


def compare(runs: dict[str, list[dict[str, Any]]], count: int) -> dict[str, Any]:
    """What the runs of all sides over `count` rows come to; the table of it is printed."""
    ours = runs["ours"][0]
    speeds = {side: count / median(run["seconds"] for run in own) for side, own in runs.items()}
    table = pd.DataFrame({NAMES[side]: line(own, speeds[side], ours) for side, own in runs.items()}).T
    print(f"\n{count:,} rows, {len(runs['ours'])} rounds, {os.cpu_count()} cores\n\n{table.to_markdown()}\n")
    for side, own in runs.items():
        print(differences(side, own[0], ours), end="")
    return {
        "ratio_to_trl": round(speeds["ours"] / speeds["trl"], 2),
        "ratio_to_peer": round(speeds["ours"] / speeds["llamafactory"], 2) if "llamafactory" in runs else None,
        "rows_per_second": round(speeds["ours"]),
        "peak_mb_over_interpreter": max(run["peak_mb_over_interpreter"] for run in runs["ours"]),
        "rows": count,
        "rows_like_trl": alike(runs["trl"][0], ours, 1),
        "trl_rows_per_second": round(speeds["trl"]),
        "peer_rows_per_second": round(speeds["llamafactory"]) if "llamafactory" in runs else None,
        "seconds": {side: [round(run["seconds"], 2) for run in own] for side, own in runs.items()},
        "versions": {side: own[0]["version"] for side, own in runs.items() if side != "ours"},
    }


def line(own: list[dict[str, Any]], speed: float, ours: dict[str, Any]) -> dict[str, str]:
    """One side's line of the table."""
    first = own[0]
    return {
        "rows/s": f"{speed:,.0f}",
        "seconds": ", ".join(f"{run['seconds']:.1f}" for run in own),
        "rows": f"{first['rows']:,}",
        "tokens": f"{first['tokens']:,}",
        "supervised": f"{first['supervised_tokens']:,}",
        "rows with our tokens": f"{alike(first, ours, 0):,}",
        "and our labels": f"{alike(first, ours, 1):,}",
    }


def alike(record: dict[str, Any], ours: dict[str, Any], column: int) -> int:
    """How many rows both have, in whatever order: with the same tokens (column 0), and the same labels too (1)."""
    both = Counter(record["digests"][:, column].tolist()) & Counter(ours["digests"][:, column].tolist())
    return both.total()


def differences(side: str, record: dict[str, Any], ours: dict[str, Any]) -> str:
    """A line for everything in which a side's rows differ from ours, with the reason where it is known."""
    lines = []
    if dropped := record.get("dropped"):
        lines.append("dropped " + ", ".join(f"{rows:,} ({reason})" for reason, rows in dropped.items()))
    more = record["supervised_tokens"] - ours["supervised_tokens"]
    if more and side == "llamafactory":
        lines.append(f"{more:+,} supervised tokens: its ChatML learns the line break after the stop token too")
    elif more:
        lines.append(f"{more:+,} supervised tokens")
    return "".join(f"{NAMES[side]}: {text}.\n" for text in lines)


def scale(record: dict[str, Any], speed: float) -> dict[str, Any]:
    """What the large file came to, beside the speed on the small one."""
    rows = record["rows"] + sum(record["dropped"].values())
    found = rows / record["seconds"]
    peak = record["peak_mb_over_interpreter"]
    print(f"large.jsonl: {found:,.0f} rows/s ({found / speed:.2f} of the small file's), {peak:,.0f} MB at most")
    return {
        "peak_mb_over_interpreter": peak,
        "large_rows": rows,
        "large_seconds": round(record["seconds"], 1),
        "large_rows_per_second": round(found),
    }


if __name__ == "__main__":
    main()
