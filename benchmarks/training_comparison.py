"""Compares the records that the sides of `benchmarks.training` leave: ratios, tables, and where rows differ."""

from itertools import pairwise
from statistics import mean, median
from typing import Any

import pandas as pd

from benchmarks import sides
from benchmarks.training_jobs import WARM_UP

Runs = dict[str, list[dict[str, Any]]]
"""The records of each side, one a round."""

NAMES = {
    **sides.NAMES,
    "trl_grouped": "trl, grouped",
    "llamafactory_grouped": "LLaMA-Factory, grouped",
    "bare": "bare loop",
}
# To pass a gradient through a frozen weight takes two operations forward and two back, and none for the weight itself.
OPERATIONS_PER_WEIGHT = 4
POINTS = 4  # of a curve


def figures(record: dict[str, Any]) -> dict[str, float]:
    """Speed after the warm-up, in tokens and in positions a second, how many cores were at work on it, and the share of
    all positions that is padding.
    """
    ends, tokens, positions = record["step_ends"], record["step_tokens"], record["step_positions"]
    seconds = ends[-1] - ends[WARM_UP - 1]
    return {
        "tokens_per_second": sum(tokens[WARM_UP:]) / seconds,
        "positions_per_second": sum(positions[WARM_UP:]) / seconds,
        "padding": 1 - sum(tokens) / sum(positions),
        "cores_used": (record["step_cpu_seconds"][-1] - record["step_cpu_seconds"][WARM_UP - 1]) / seconds,
    }


def compare(runs: Runs, prepared: dict[str, Any], rates: list[float], base_loss: float) -> dict[str, Any]:
    """What the runs come to; the tables of it are printed.

    Args:
        prepared: how many rows, tokens and weights there are.
        rates: floating-point operations a second of a matrix product, before and after.
        base_loss: of the base model, on the rows on which each record has its `eval_loss`.
    """
    operations = operations_per_token(prepared)
    speed = median(record["tokens_per_second"] for record in runs["ours"])
    show(runs, prepared, base_loss)
    print(
        f"Bound: {operations / 1e6:.0f} million operations a token; a matrix product makes "
        f"{', '.join(f'{rate / 1e9:.0f}' for rate in rates)} billion a second: {mean(rates) / operations:.0f} tokens/s."
    )
    return {
        "ratio_to_trl": ratio(runs, "tokens_per_second", "trl"),
        "ratio_to_peer": ratio(runs, "tokens_per_second", "llamafactory"),
        "ratio_to_bound": round(speed * operations / mean(rates), 3),
        "memory_ratio": ratio(runs, "peak_mb", "trl"),
        "start_ratio": ratio(runs, "seconds_to_first_step", "bare"),
        "loss_difference": round(median(difference(runs, "eval_loss", "trl")), 4),
        "ratio_to_trl_grouped": ratio(runs, "tokens_per_second", "trl_grouped"),
        "ratio_to_peer_grouped": ratio(runs, "tokens_per_second", "llamafactory_grouped"),
        "ratio_to_bare": ratio(runs, "tokens_per_second", "bare"),
        "positions_ratio_to_trl_grouped": ratio(runs, "positions_per_second", "trl_grouped"),
        "positions_ratio_to_peer_grouped": ratio(runs, "positions_per_second", "llamafactory_grouped"),
        "tokens_per_second": round(speed, 1),
        "base_loss": round(base_loss, 4),
        "operations_per_token": operations,
        "operations_per_second": [round(rate) for rate in rates],
        "versions": {side: own[0]["versions"] for side, own in runs.items() if not side.endswith("grouped")},
        "rounds": {side: [rounded(record) for record in own] for side, own in runs.items()},
        **prepared,
    }


def operations_per_token(prepared: dict[str, Any]) -> float:
    """Floating-point operations that LoRA training needs for one token of these rows.

    Every token passes the linear layers of the blocks, and those that are learned from the head as well. Embeddings
    are looked up, and attention and the adapters themselves add a few percent that are left out.
    """
    learned = prepared["supervised_tokens"] / prepared["tokens"]
    return OPERATIONS_PER_WEIGHT * (prepared["block_parameters"] + learned * prepared["head_parameters"])


def ratio(runs: Runs, key: str, other: str) -> float | None:
    """The median over the rounds of ours over the other's; None where the other did not run."""
    if other not in runs:
        return None
    pairs = zip(runs["ours"], runs[other], strict=True)
    return round(median(ours[key] / theirs[key] for ours, theirs in pairs), 3)


def difference(runs: Runs, key: str, other: str) -> list[float]:
    """Ours minus the other's, round by round."""
    return [ours[key] - theirs[key] for ours, theirs in zip(runs["ours"], runs[other], strict=True)]


def show(runs: Runs, prepared: dict[str, Any], base_loss: float) -> None:
    """The tables are printed, with a line for each side whose rows differ."""
    table = pd.DataFrame({NAMES[side]: line(own) for side, own in runs.items()}).T
    print(f"\n{table.to_markdown()}\n\nThe loss of the base model on the same rows is {base_loss:.4f}.\n")
    curves = pd.DataFrame({NAMES[side]: curve(own) for side, own in runs.items()}).T
    print(f"Loss while training, means over steps:\n\n{curves.to_markdown()}\n")
    for side, own in runs.items():
        print(differences(side, own[0], prepared), end="")


def line(own: list[dict[str, Any]]) -> dict[str, str]:
    """One side's line of the table."""
    return {
        "tokens/s": f"{median(record['tokens_per_second'] for record in own):.0f}",
        "of each round": ", ".join(f"{record['tokens_per_second']:.0f}" for record in own),
        "with padding": f"{median(record['positions_per_second'] for record in own):.0f}",
        "padding": f"{median(record['padding'] for record in own):.1%}",
        "cores": ", ".join(f"{record['cores_used']:.2f}" for record in own),
        "peak MB": f"{median(record['peak_mb'] for record in own):,.0f}",
        "s to first step": ", ".join(f"{record['seconds_to_first_step']:.1f}" for record in own),
        "loss on held-out rows": ", ".join(f"{record['eval_loss']:.4f}" for record in own),
    }


def curve(own: list[dict[str, Any]]) -> dict[str, str]:
    """The loss at a few points of a training, each the mean over the steps before it and over the rounds."""
    steps = len(own[0]["losses"])
    edges = [round(steps * point / POINTS) for point in range(POINTS + 1)]
    spans = [(start, end) for start, end in pairwise(edges) if end > start]
    return {
        f"{start + 1}–{end}": f"{mean(loss for record in own for loss in record['losses'][start:end]):.3f}"
        for start, end in spans
    }


def differences(side: str, record: dict[str, Any], prepared: dict[str, Any]) -> str:
    """A line for everything in which a side's rows differ from those that were prepared, with the reason if known."""
    lines = []
    for key, name in (("rows", "rows"), ("tokens", "tokens")):
        if more := record[key] - prepared[key]:
            lines.append(f"{more:+,} {name}")
    if more := record["supervised_tokens"] - prepared["supervised_tokens"]:
        known = ": its ChatML learns the line break after the stop token too" if "llamafactory" in side else ""
        lines.append(f"{more:+,} supervised tokens{known}")
    return "".join(f"{NAMES[side]}: {text}.\n" for text in lines)


def rounded(record: dict[str, Any]) -> dict[str, Any]:
    """A record without versions, and without digits that mean nothing."""
    return {
        key: [round(number, 4) for number in value] if isinstance(value, list) else round(value, 4)
        for key, value in record.items()
        if key != "versions"
    }
