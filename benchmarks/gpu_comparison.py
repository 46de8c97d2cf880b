"""Compares the records that the sides of `benchmarks.gpu` leave: speed, use of the device, memory, and ratios."""

from statistics import mean, median
from typing import Any

import pandas as pd

from benchmarks.training_comparison import Runs, operations_per_token, ratio
from benchmarks.training_jobs import WARM_UP

NAMES = {"ours": "this project", "trl": "trl with sdpa", "peer": "trl with Liger's kernels"}
# Dense bfloat16 operations a second, in 10^12, as the makers of the devices state them; by a part of the device's name.
NOMINAL = {
    "H200 NVL": 835.5,
    "H200": 989.4,
    "H100 80GB HBM3": 989.4,
    "H100 PCIe": 756.0,
    "A100": 312.0,
    "RTX 4090": 165.2,
}


def nominal_rate(device: str) -> float | None:
    """Operations a second that the maker states for a device of that name; None where it is not known."""
    return next((rate * 1e12 for name, rate in NOMINAL.items() if name in device), None)


def figures(record: dict[str, Any]) -> dict[str, float]:
    """Speed after the warm-up, in tokens and in positions a second, and the share of positions that is padding."""
    ends, tokens, positions = record["step_ends"], record["step_tokens"], record["step_positions"]
    seconds = ends[-1] - ends[WARM_UP - 1]
    return {
        "tokens_per_second": sum(tokens[WARM_UP:]) / seconds,
        "positions_per_second": sum(positions[WARM_UP:]) / seconds,
        "padding": 1 - sum(tokens) / sum(positions),
    }


def compare(runs: Runs, prepared: dict[str, Any]) -> dict[str, Any]:
    """What the runs come to; the table of it is printed.

    Args:
        prepared: the device, its attention kernel, and how many rows, tokens and weights there are.
    """
    operations, nominal = operations_per_token(prepared), nominal_rate(prepared["device"])
    rate = mean(record["operations_per_second"] for own in runs.values() for record in own)
    speed = middle(runs["ours"], "tokens_per_second")
    table = pd.DataFrame({NAMES[side]: line(own, operations, nominal) for side, own in runs.items()}).T
    print(f"\n{table.to_markdown()}\n")
    print(
        f"Bound: {operations / 1e9:.4g} billion operations a token; matrix products in the same processes made "
        f"{rate / 1e12:.4g} TFLOP/s: {rate / operations:,.0f} tokens/s."
    )
    return {
        "tokens_per_second": round(speed, 1),
        "mfu": round(utilisation(runs["ours"], operations), 6),
        "mfu_nominal": round(speed * operations / nominal, 4) if nominal else None,
        "peak_gb": rounded_middle(runs["ours"], "peak_gb", 2),
        "reserved_gb": rounded_middle(runs["ours"], "reserved_gb", 2),
        "seconds_to_first_step": rounded_middle(runs["ours"], "seconds_to_first_step", 1),
        "ratio_to_trl": ratio(runs, "tokens_per_second", "trl"),
        "ratio_to_peer": ratio(runs, "tokens_per_second", "peer"),
        "positions_ratio_to_trl": ratio(runs, "positions_per_second", "trl"),
        "bound_tokens_per_second": round(rate / operations, 1),
        "operations_per_token": operations,
        "operations_per_second": round(rate),
        "nominal_operations_per_second": nominal,
        "versions": runs["ours"][0]["versions"],
        "rounds": {side: [shortened(record) for record in own] for side, own in runs.items()},
        **prepared,
    }


def utilisation(own: list[dict[str, Any]], operations: float) -> float:
    """The operations that a side's tokens need, over those of matrix products in the same process (MFU)."""
    return median(record["tokens_per_second"] * operations / record["operations_per_second"] for record in own)


def line(own: list[dict[str, Any]], operations: float, nominal: float | None) -> dict[str, str]:
    """One side's line of the table."""
    speed, peak = middle(own, "tokens_per_second"), rounded_middle(own, "peak_gb", 2)
    return {
        "tokens/s": f"{speed:,.0f}",
        "of each round": ", ".join(f"{record['tokens_per_second']:,.0f}" for record in own),
        "with padding": f"{middle(own, 'positions_per_second'):,.0f}",
        "padding": f"{middle(own, 'padding'):.1%}",
        "MFU": f"{utilisation(own, operations):.1%}",
        "of the nominal peak": f"{speed * operations / nominal:.1%}" if nominal else "unknown",
        "peak GB of the GPU": "no GPU" if peak is None else f"{peak:.2f}",
        "s to first step": ", ".join(f"{record['seconds_to_first_step']:.1f}" for record in own),
        "rows a pass": ", ".join(str(record["rows_per_pass"]) for record in own),
    }


def middle(own: list[dict[str, Any]], key: str) -> float:
    """The median over the rounds."""
    return median(record[key] for record in own)


def rounded_middle(own: list[dict[str, Any]], key: str, digits: int) -> float | None:
    """The median over the rounds to so many digits; None for what the device does not have."""
    return None if own[0][key] is None else round(middle(own, key), digits)


def shortened(record: dict[str, Any]) -> dict[str, Any]:
    """A record without versions, and without digits that mean nothing."""
    return {
        key: [round(number, 4) for number in value] if isinstance(value, list) else value and round(value, 4)
        for key, value in record.items()
        if key != "versions"
    }
