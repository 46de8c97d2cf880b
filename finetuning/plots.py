"""Pictures for report and UI, as PNG bytes; kept small because the UI stores them in its event log."""

import base64
import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple, Protocol

from matplotlib.figure import Figure

from finetuning.recipe.evaluation import UNBOUNDED

BASE, TUNED, INK = "#9aa5b1", "#2563eb", "#1f2933"


class BaseBesideTuned(Protocol):
    """What is drawn of a metric; `interval` is that of the gain."""

    @property
    def base(self) -> float: ...

    @property
    def tuned(self) -> float: ...

    @property
    def gain(self) -> float: ...

    @property
    def interval(self) -> tuple[float, float]: ...

    @property
    def higher_is_better(self) -> bool: ...


class Placed(NamedTuple):
    """A model by its size (MiB) and its score, with the 95 % interval of that."""

    name: str
    size_mb: float
    score: float
    interval: tuple[float, float]
    is_on_front: bool
    """Whether no other one is as good and smaller, or as small and better."""


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


def reward_curve(points: Sequence[Mapping[str, float]]) -> bytes:
    """Reward by step with each of its terms, and the share of groups that had no signal."""
    figure, axes = _figure("Reward while training", "step", "mean over the answers of a step")
    steps = [point["step"] for point in points]
    terms = [name for name in points[0] if name.startswith("reward/")]
    for name in terms if len(terms) > 1 else ():
        label = name.removeprefix("reward/")
        axes.plot(steps, [point.get(name, math.nan) for point in points], linewidth=1, label=label)
    axes.plot(steps, [point["reward"] for point in points], color=TUNED, label="reward")
    silent = [point["no_signal"] for point in points]
    axes.plot(steps, silent, color=BASE, linestyle="--", linewidth=1, label="groups without a signal")
    axes.legend(frameon=False)
    return _png(figure)


def losses_by_share(shares: Sequence[float], curves: Mapping[str, Sequence[float | None]], chosen: str) -> bytes:
    """Eval loss of each variant after each share of its training; the one that was chosen stands out."""
    figure, axes = _figure("Variants", "share of the training (%)", "loss on dev (nats per supervised token)")
    for name, losses in curves.items():
        points = [(100 * share, loss) for share, loss in zip(shares, losses, strict=False) if loss is not None]
        color, label = (TUNED, f"chosen: {name}") if name == chosen else (BASE, None)
        axes.plot([share for share, _ in points], [loss for _, loss in points], "o-", color=color, label=label)
    axes.legend(frameon=False)
    return _png(figure)


def token_lengths(edges: Sequence[float], counts: Sequence[int], max_length: int) -> bytes:
    """Histogram of conversation lengths in tokens, with `max_length` as a line."""
    figure, axes = _figure("Length of the conversations", "tokens", "conversations")
    axes.stairs(counts, edges, fill=True, color=TUNED)
    axes.axvline(max_length, color=INK, linestyle="--", linewidth=1, label=f"max_length {max_length}")
    axes.legend(frameon=False)
    return _png(figure)


def base_beside_tuned(metrics: Mapping[str, BaseBesideTuned]) -> bytes:
    """A pair of bars for each metric, with the 95 % interval of the gain drawn on the tuned model's.

    Shares have an axis in common, and every other metric one of its own.
    """
    shares = [name for name in metrics if name not in UNBOUNDED]
    panels = [shares, *([name] for name in metrics if name in UNBOUNDED)]
    panels = [panel for panel in panels if panel]
    figure = Figure(figsize=(6.4, 3.4), dpi=90, layout="constrained")
    width_ratios = [max(len(panel), 1.2) for panel in panels]
    axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=width_ratios)[0]
    for panel, own in zip(panels, axes, strict=True):
        _pairs(own, {name: metrics[name] for name in panel}, is_share=panel == shares)
    axes[0].set_title("Base beside tuned", loc="left", color=INK, pad=10)
    # Above the bars, whose labels it would cover.
    axes[-1].legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    return _png(figure)


def _pairs(axes: Any, metrics: Mapping[str, BaseBesideTuned], is_share: bool) -> None:
    highest = 1.0 if is_share else max(max(found.base, found.tuned) for found in metrics.values())
    for position, found in enumerate(metrics.values()):
        low, high = found.interval
        below, above = max(found.gain - low, 0), max(high - found.gain, 0)
        if is_share:  # an interval of the gain may reach beyond what a share can be
            below, above = min(below, found.tuned), min(above, 1 - found.tuned)
        error = [[below], [above]]
        for offset, key, color in ((-0.2, "base", BASE), (0.2, "tuned", TUNED)):
            height = found.tuned if key == "tuned" else found.base
            axes.bar(position + offset, height, 0.38, color=color, label=key if position == 0 else None)
            top = height + (above if key == "tuned" else 0)
            text = f"{height:.0%}" if is_share else f"{height:.3g}"
            axes.text(position + offset, top + 0.02 * highest, text, ha="center", color=INK, fontsize=8)
        axes.errorbar(position + 0.2, found.tuned, error, color=INK, capsize=4, linewidth=1)
    ticks = [name if found.higher_is_better else f"{name}\n(less is better)" for name, found in metrics.items()]
    axes.set_xticks(range(len(metrics)), ticks, fontsize=8)
    axes.set_ylim(0, 1.2 * highest)
    axes.set_ylabel("share, or score from 0 to 1" if is_share else "")
    axes.spines[["top", "right"]].set_visible(False)


def score_by_size(panels: Mapping[str, Sequence[Placed]]) -> bytes:
    """A panel for each metric's title: models by size and score, with a line through those that none is superior to."""
    figure = Figure(figsize=(6.4, 3.4 * len(panels)), dpi=90, layout="constrained")
    for (title, placed), axes in zip(panels.items(), figure.subplots(len(panels), squeeze=False)[:, 0], strict=True):
        for one in placed:
            low, high = one.interval
            error = [[max(one.score - low, 0)], [max(high - one.score, 0)]]
            color = TUNED if one.is_on_front else BASE
            axes.errorbar(one.size_mb, one.score, error, fmt="o", color=color, capsize=4, linewidth=1)
            # To both sides, as models of one size may have nearly the same score.
            place, side = ((-6, 5), "right") if one.is_on_front else ((6, -11), "left")
            axes.annotate(
                one.name, (one.size_mb, one.score), place, textcoords="offset points", ha=side, color=INK, fontsize=8
            )
        front = sorted((one.size_mb, one.score) for one in placed if one.is_on_front)
        axes.plot(*zip(*front, strict=True), color=TUNED, linewidth=1)
        axes.margins(x=0.25)
        scale_sizes(axes, [one.size_mb for one in placed])
        axes.set_title(title, loc="left", color=INK, pad=10)
        axes.set_xlabel("MiB of base model and adapter")
        axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def scale_sizes(axes: Any, sizes: Sequence[float]) -> None:
    """Number an axis of sizes in MiB, with as many digits as tell one number from the next."""
    if max(sizes) > 4 * min(sizes) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
    else:
        axes.ticklabel_format(axis="x", style="plain", useOffset=False)


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
