"""How fast an adapter is trained by rewards on a CPU, beside trl's own `GRPOTrainer` with the same settings.

`python -m benchmarks.reinforcement` takes rows, base model and start of a recipe that was materialized before
(`make demo RECIPE=smollm2-135m-grpo`), and trains by its section `training` for a few steps with both sides, in turn,
each time in a fresh process. Both draw as many answers to as many questions a step, score them by the same functions,
and keep their activations; the questions' order and the random numbers are each side's own. Steps per minute are of all
steps but the first. The reward is compared over all steps. Where the sides had fewer cores to themselves than they
asked for, figures of time are worth little; their ratio is that of runs in turn.

The last line of the output is one JSON object.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.reinforcement_jobs import Rewarded
from benchmarks.sides import WORK, record_of
from finetuning.recipe.loading import load
from resources.artifacts import Artifacts
from resources.launcher import child_environment

Record = Mapping[str, Any]
SIDES = {"ours": "benchmarks.reinforcement_ours", "trl": "benchmarks.reinforcement_trl"}


def main(arguments: list[str] | None = None) -> None:
    """The table and the JSON object are printed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reinforcement")
    parser.add_argument("--recipe", default="smollm2-135m-grpo", help="whose artifacts are there (smollm2-135m-grpo)")
    parser.add_argument("--steps", type=int, default=4, help="steps of each run, of which the first warms up (4)")
    parser.add_argument("--rounds", type=int, default=2, help="times that each side trains (2)")
    options = parser.parse_args(arguments)
    recipe = load(options.recipe)
    there = Artifacts.of_environment()
    chat, base = (there.current(asset, recipe.name).path for asset in ("chat_dataset", "quantized_base_model"))
    start = there.current("lora_adapter", str(recipe.lora.start_from)).path
    settings = recipe.training.model_dump(mode="json", exclude_unset=True) | {"max_steps": options.steps}
    WORK.mkdir(parents=True, exist_ok=True)
    records: dict[str, list[Record]] = {side: [] for side in SIDES}
    with TemporaryDirectory(prefix="reinforcement-", dir=WORK) as folder:
        for number in range(options.rounds):
            for side in list(SIDES) if number % 2 == 0 else reversed(SIDES):
                place = Path(folder) / f"{side}-{number}"
                place.mkdir()
                training = settings | {"seed": recipe.training.seed + number, "logging_steps": 1}
                job = Rewarded(
                    chat=str(chat),
                    base_model=str(base),
                    start=str(start),
                    training=training,
                    max_length=recipe.chat.max_length,
                    record=str(place / "record.json"),
                )
                environment = {"OMP_NUM_THREADS": child_environment()["OMP_NUM_THREADS"]}
                record = record_of(SIDES[side], sys.executable, job, side, **environment)
                records[side].append(record)
                print(f"{side}: {per_minute(record):.2f} steps a minute, reward {reward(record):.3f}", flush=True)
    speeds = {side: statistics.median(map(per_minute, found)) for side, found in records.items()}
    rewards = {side: statistics.mean(map(reward, found)) for side, found in records.items()}
    ratios = [per_minute(ours) / per_minute(trl) for ours, trl in zip(*records.values(), strict=True)]
    found = {
        "ratio_to_trl": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "steps_per_minute": round(speeds["ours"], 3),
        "trl_steps_per_minute": round(speeds["trl"], 3),
        "reward_difference": round(rewards["ours"] - rewards["trl"], 4),
    }
    print(json.dumps(found))


def per_minute(record: Record) -> float:
    """Steps a minute, of all but the first."""
    seconds = record["seconds"][1:]
    return 60 * len(seconds) / sum(seconds)


def reward(record: Record) -> float:
    """The mean reward of all steps."""
    return statistics.mean(step["reward"] for step in record["logged"])


if __name__ == "__main__":
    main()
