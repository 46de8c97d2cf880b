"""How fast an adapter for a 7B model is trained on a GPU, beside trl, in how much memory, and how near to the bound.

`python -m benchmarks.gpu` draws a random model with the shape of Mistral-7B on the device, quantizes it to NF4, and
trains LoRA adapters for it on random rows, in turn, each time in a fresh process: with this project as the asset
`lora_adapter` does it, with the best attention kernel of the machine, and packing where that keeps rows apart; with
trl's own defaults and sdpa; and with trl and Liger's kernels, the same attention kernel and packing, where
`liger-kernel` is installed. All sides have the same rows and keep their activations; each has as many rows in a pass as
the memory takes of 16, 8, 4, …, which is found out before.

Speed is in tokens of rows, without padding, from the end of the second step to the end of the last, once the device is
done with each. Use of the device (MFU) is the operations that these tokens need, over those that large matrix products
make in the same process. Ratios are medians over the rounds. Nothing is downloaded.

A side that has no memory for so many rows in a pass goes on with half as many; one that has none for a single row is
left out, and the others are measured. Both are marked in the result, under `out_of_memory`.

`--device cpu --tiny` runs the same code in seconds; what it prints says nothing of a GPU.

The last line of the output is one JSON object.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.gpu_comparison import NAMES, compare, figures
from benchmarks.gpu_jobs import OUT_OF_MEMORY, ROWS_TRIED, SEED, SHAPES, STEPS_TRIED, Preparation, Training
from benchmarks.sides import WORK, SideFailed, record_of
from benchmarks.training import cores, folder_for, launched_with
from benchmarks.training_comparison import Runs
from benchmarks.training_jobs import WARM_UP
from finetuning.out_of_memory import tells_of_no_memory
from finetuning.recipe.base_model import KEEP_ROWS_APART
from resources.gpu import detect, import_failure

MODULES = {"ours": "gpu_ours", "trl": "gpu_trl", "peer": "gpu_trl"}
Failed = dict[str, list[int]]
"""Of each side, how many rows in a pass there was no memory for."""
KERNELS = ["flash_attention_3", "flash_attention_4", "flash_attention_2", "varlen", "sdpa"]  # best first


def main(arguments: list[str] | None = None) -> None:
    """The table and the JSON object are printed."""
    options = parse(arguments)
    if options.device == "cuda" and detect().device != "cuda":
        sys.exit("No GPU was found: run this where torch sees one, or try it with --device cpu --tiny.")
    obstacle = peer_obstacle(options.device)
    if obstacle:
        print(f"{NAMES['peer']}: left out: {obstacle}", flush=True)
    sides = [side for side in MODULES if side != "peer" or not obstacle]
    WORK.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="gpu-", dir=WORK) as folder:
        work = Path(folder)
        prepared = prepare(work, options)
        failed: Failed = {side: [] for side in sides}
        rows = {
            side: options.rows_per_pass or rows_in_memory(work, side, options, prepared, failed[side]) for side in sides
        }
        runs = measure(work, {side: most for side, most in rows.items() if most}, options, prepared, failed)
    print(f"\n{options.shape}, {options.lengths} lengths, {options.rounds} rounds, on {prepared['device']}")
    found = compare(runs, prepared) if "ours" in runs else {**prepared}
    marked = {"out_of_memory": {side: own for side, own in failed.items() if own}}
    print(json.dumps(found | marked | {"shape": options.shape, "lengths": options.lengths}))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Measure how a GPU trains adapters.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="where to train (cuda)")
    parser.add_argument(
        "--tiny", dest="shape", action="store_const", const="tiny", default="mistral-7b", help="two small layers"
    )
    parser.add_argument("--tokens", type=int, help="of all rows (300000; tiny: 2500)")
    parser.add_argument("--rounds", type=int, default=2, help="times that each side does (2)")
    parser.add_argument("--rows-per-pass", type=int, help="for all sides (as many as the memory takes; tiny: 4)")
    parser.add_argument("--attention", choices=KERNELS, help="this project's and Liger's kernel (the best that runs)")
    parser.add_argument(
        "--lengths", choices=["mixed", "same"], default="mixed", help="of rows: as of chat, or all the greatest (mixed)"
    )
    options = parser.parse_args(arguments)
    shape = SHAPES[options.shape]
    if options.device == "cpu" and options.shape != "tiny":
        parser.error("--device cpu: 7 billion weights would take days; add --tiny")
    options.rows_per_pass = options.rows_per_pass or shape.rows_per_pass
    options.tokens = shape.tokens if options.tokens is None else options.tokens
    least = (WARM_UP + 2) * shape.max_length * (options.rows_per_pass or ROWS_TRIED)
    if options.tokens < least:
        parser.error(
            f"--tokens: {options.tokens} leave too few steps, of which {WARM_UP} warm up; take {least} or more"
        )
    return options


def peer_obstacle(device: str) -> str | None:
    """Why Liger's kernels cannot run here, or None where they can."""
    if device == "cpu":
        return "its kernels run on GPUs alone"
    failure = import_failure("liger_kernel.transformers")
    return f"liger-kernel does not import: {failure}" if failure else None


def prepare(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The record of what all sides then have in `work`, and of what this machine can do."""
    kernels = [options.attention] if options.attention else KERNELS
    record = str(folder_for(work, "preparation") / "record.json")
    job = Preparation(options.shape, options.tokens, options.lengths == "same", kernels, str(work), record)
    prepared = child("gpu_preparation", job, options.device, "the preparation")
    print(
        f"{prepared['parameters']:,} weights in NF4; {prepared['rows']:,} rows of "
        f"{prepared['tokens'] / prepared['rows']:,.0f} tokens in the mean; attention: {prepared['attention']}",
        *(f"{kernel} passed over: {reason}" for kernel, reason in prepared["passed_over"].items()),
        sep="\n",
        flush=True,
    )
    return prepared


def rows_in_memory(
    work: Path, side: str, options: argparse.Namespace, prepared: dict[str, Any], failed: list[int]
) -> int | None:
    """How many of the longest rows a side can have in a pass; None where memory has no room for one."""
    job = job_of(folder_for(work, f"{side}-memory"), side, prepared, options, ROWS_TRIED)
    record = train(side, trial(job, work), options.device, failed)
    if record is None:
        return None
    print(f"{NAMES[side]}: {record['rows_per_pass']} rows a pass", flush=True)
    return record["rows_per_pass"]


def trial(job: Training, work: Path) -> Training:
    """The job with the longest rows instead of all, for as many steps as memory needs to show that it is enough."""
    return job._replace(rows=str(work / "longest"), steps=STEPS_TRIED)


def measure(
    work: Path, rows: dict[str, int], options: argparse.Namespace, prepared: dict[str, Any], failed: Failed
) -> Runs:
    """The records of all sides that had memory in every round; they have so many `rows` in a pass, or fewer."""
    runs: Runs = {side: [] for side in rows}
    rows = {**rows}
    for number in range(options.rounds):
        # There and back again, so that a device that grows hot favours none.
        for side in list(runs) if number % 2 == 0 else list(reversed(runs)):
            job = job_of(folder_for(work, f"{side}-{number}"), side, prepared, options, rows[side])
            record = train(side, job._replace(seed=SEED + number), options.device, failed[side])
            if record is None:
                del runs[side]
                continue
            rows[side] = record["rows_per_pass"]
            runs[side].append(record | figures(record))
            print(f"{NAMES[side]}: {runs[side][-1]['tokens_per_second']:,.0f} tokens/s", flush=True)
    return runs


def job_of(
    folder: Path, side: str, prepared: dict[str, Any], options: argparse.Namespace, rows_per_pass: int
) -> Training:
    """A job for all rows, whose adapter and record are in `folder`."""
    shape = SHAPES[options.shape]
    kernel = "sdpa" if side == "trl" else prepared["attention"]
    return Training(
        rows=str(folder.parent / "rows"),
        base_model=str(folder.parent / "nf4"),
        model_kwargs=prepared["model_kwargs"] | {"attn_implementation": kernel},
        packing=kernel in KEEP_ROWS_APART,
        liger=side == "peer",
        max_length=shape.max_length,
        rows_per_pass=rows_per_pass,
        steps=-1,
        seed=SEED,
        matrix=shape.matrix,
        adapter=str(folder / "adapter"),
        record=str(folder / "record.json"),
        started=0.0,
    )


def train(side: str, job: Training, device: str, failed: list[int]) -> dict[str, Any] | None:
    """The record of one side's training, with fewer rows in a pass where memory takes no more; None if it takes none.

    Rows that there was no memory for are added to `failed`.
    """
    environment = launched_with() if side == "ours" else {}
    while True:
        try:
            record = child(MODULES[side], job._replace(started=time.monotonic()), device, NAMES[side], **environment)
        except SideFailed as ended:
            # Where bitsandbytes ends a process, that has no exit code of ours.
            if ended.exit_code != OUT_OF_MEMORY and not tells_of_no_memory("\n".join(str(ended).splitlines()[-10:])):
                raise
            record = None
        # trl's sides try fewer by themselves.
        fits = record["rows_per_pass"] if record else 0 if side != "ours" else job.rows_per_pass // 2
        while job.rows_per_pass > fits:
            failed.append(job.rows_per_pass)
            print(f"{NAMES[side]}: out of memory with {job.rows_per_pass} rows a pass", flush=True)
            job = job._replace(rows_per_pass=job.rows_per_pass // 2)
        if record or not fits:
            return record
        folder = Path(job.record).parent
        shutil.rmtree(folder)
        folder.mkdir()


def child(module: str, job: Any, device: str, name: str, **environment: str) -> dict[str, Any]:
    """The record of a process that has all cores, and a GPU if one is wanted."""
    environment |= {"OMP_NUM_THREADS": str(cores())} | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})
    return record_of(f"benchmarks.{module}", sys.executable, job, name, **environment)


if __name__ == "__main__":
    main()
