"""What the pipeline costs beside a script that does the same work with the same functions.

`python -m benchmarks.overhead` takes the recipe `smollm2-135m` from its rows to a published adapter, in turn by a
script in one process (benchmarks/overhead_script.py), with no assets, no artifacts, no fingerprints and no checks of
what is published, and by `dagster asset materialize --select '*'` in empty folders. Then the pipeline is asked once
more, when nothing has changed. All times are from the start of a command to its end. The medians of the rounds are
compared; `--steps` and `--rows` shorten the recipe, for a quick look: the ratio is then that of a shorter training.

The last line of the output is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from benchmarks.sides import ROOT, SHOWN_OF_A_LOG, WORK

RECIPE, NAME = "smollm2-135m", "overhead"
SCRIPT = ("-m", "benchmarks.overhead_script", NAME)
PIPELINE = ("-m", "dagster", "asset", "materialize", "-m", "pipelines.definitions", "--select", "*")
SIDES = ("script", "pipeline", "nothing changed")


def main(arguments: list[str] | None = None) -> None:
    """The table and the JSON object are printed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description="Measure what assets cost.")
    parser.add_argument("--steps", type=int, help="steps of the training, 2 or more (those of the recipe)")
    parser.add_argument("--rows", type=int, help="eval rows, 5 or more (those of the recipe)")
    parser.add_argument("--rounds", type=int, default=1, help="times that each is measured (1)")
    options = parser.parse_args(arguments)
    WORK.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(options.rounds):
        with TemporaryDirectory(prefix="overhead-", dir=WORK) as folder:
            environment = prepare(Path(folder), shortened(options.steps, options.rows))
            for side in SIDES:
                command = SCRIPT if side == "script" else (*PIPELINE, "--partition", NAME)
                seconds[side].append(measured(side, command, Path(folder), environment))
                print(f"{side}: {seconds[side][-1]:.1f} s", flush=True)
    print(json.dumps(result(seconds)))


def shortened(steps: int | None, rows: int | None) -> dict[str, Any]:
    """The recipe, with so many steps and eval rows; a shortened one passes its gate whatever it comes to."""
    recipe = yaml.safe_load((ROOT / "recipes" / f"{RECIPE}.yaml").read_text())
    if steps:
        recipe["training"] |= {"max_steps": steps, "warmup_steps": min(recipe["training"]["warmup_steps"], steps // 2)}
    if rows:
        recipe["evaluation"]["rows"] = rows
    if steps or rows:
        recipe["evaluation"]["gate"] = {"final-answer": {"min_gain": -1.0}, "empty": {"min_gain": -1.0}}
    return recipe


def prepare(folder: Path, recipe: dict[str, Any]) -> dict[str, str]:
    """The environment of both sides, with the recipe, an instance, and a hub of its own for each."""
    for name in ("recipes", "dagster", "script"):
        (folder / name).mkdir()
    (folder / "recipes" / f"{NAME}.yaml").write_text(yaml.safe_dump(recipe))
    instance = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    kept = {name: instance[name] for name in ("telemetry", "run_launcher", "concurrency")}
    (folder / "dagster" / "dagster.yaml").write_text(yaml.safe_dump(kept))
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("FINETUNING_", "HF_"))},
        "DAGSTER_HOME": str(folder / "dagster"),
        "FINETUNING_RECIPES": str(folder / "recipes"),
        "FINETUNING_ARTIFACTS": str(folder / "artifacts"),
        "FINETUNING_HUB_STATE": str(folder / "hub"),
        "HF_HOME": str(folder / "huggingface"),
        "TMPDIR": str(folder / "script"),
    }


def measured(side: str, command: tuple[str, ...], folder: Path, environment: dict[str, str]) -> float:
    """The seconds that the command took.

    Raises:
        SystemExit: it failed; the end of what it printed is the message.
    """
    log = folder / "log"
    started = time.perf_counter()
    with log.open("wb") as out:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, stdout=out, stderr=out)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{log.read_text()[-SHOWN_OF_A_LOG:]}")
    return seconds


def result(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """What the medians come to."""
    script, pipeline, nothing = (median(seconds[side]) for side in SIDES)
    return {
        "ratio_to_script": round(pipeline / script, 3),
        "seconds_over_script": round(pipeline - script, 1),
        "nothing_changed_seconds": round(nothing, 1),
        "script_seconds": round(script, 1),
        "pipeline_seconds": round(pipeline, 1),
    }


if __name__ == "__main__":
    main()
