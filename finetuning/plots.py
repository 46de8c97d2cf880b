"""Pictures for report and UI, as PNG bytes; kept small because the UI stores them in its event log."""

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

BASE, TUNED, INK = "#9aa5b1", "#2563eb", "#1f2933"


def as_markdown(png: bytes, title: str) -> str:
    """The picture inside Markdown text that needs no other file."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"


def loss_curve(
    curve: Sequence[Mapping[str, float]],
    eval_loss: float,
    eval_curve: Sequence[Mapping[str, float]] = (),
    unit: str = "nats per supervised token",
) -> bytes:
    """Training loss by step, with the loss on the eval split after training as a line across, and before as points."""
    figure, axes = _figure("Loss while training", "step", f"loss ({unit})")
    axes.plot([point["step"] for point in curve], [point["loss"] for point in curve], color=TUNED, label="train")
    if len(eval_curve) > 1:
        axes.plot([point["step"] for point in eval_curve], [point["loss"] for point in eval_curve], "o", color=INK)
    axes.axhline(eval_loss, color=INK, linestyle="--", linewidth=1, label=f"eval, after training: {eval_loss:.3f}")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return _png(figure)


def token_lengths(edges: Sequence[float], counts: Sequence[int], max_length: int) -> bytes:
    """Histogram of conversation lengths in tokens, with `max_length` as a line."""
    figure, axes = _figure("Length of the conversations", "tokens", "conversations")
    axes.stairs(counts, edges, fill=True, color=TUNED)
    axes.axvline(max_length, color=INK, linestyle="--", linewidth=1, label=f"max_length {max_length}")
    axes.legend(frameon=False)
    return _png(figure)


def base_beside_tuned(metrics: Mapping[str, Mapping[str, Any]]) -> bytes:
    """One pair of bars a metric, with the 95 % interval of the gain drawn on the tuned model's."""
    figure, axes = _figure("Base beside tuned", "", "share of the eval rows")
    for position, found in enumerate(metrics.values()):
        low, high = found["interval"]
        error = [[max(found["gain"] - low, 0)], [max(high - found["gain"], 0)]]
        for offset, key, color in ((-0.2, "base", BASE), (0.2, "tuned", TUNED)):
            axes.bar(position + offset, found[key], 0.38, color=color, label=key if position == 0 else None)
            top = found[key] + (error[1][0] if key == "tuned" else 0)
            axes.text(position + offset, top + 0.02, f"{found[key]:.1%}", ha="center", color=INK)
        axes.errorbar(position + 0.2, found["tuned"], error, color=INK, capsize=4, linewidth=1)
    ticks = [name if found["higher_is_better"] else f"{name}\n(less is better)" for name, found in metrics.items()]
    axes.set_xticks(range(len(metrics)), ticks)
    axes.set_ylim(0, 1.18)
    axes.legend(frameon=False, ncols=2, loc="upper right")
    return _png(figure)


def _figure(title: str, x: str, y: str):
    figure = Figure(figsize=(6.4, 3.4), dpi=90, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", color=INK, pad=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
