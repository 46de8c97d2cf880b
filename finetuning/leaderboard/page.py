"""The leaderboard as Markdown: for each group which models may be the best, a table, and each beside the best score."""

from collections.abc import Sequence

import pandas as pd

from finetuning.evaluation.tables import in_digits
from finetuning.leaderboard.claims import ERROR_RATE
from finetuning.leaderboard.document import Comparison, Costs, Group, Leaderboard, Standing
from finetuning.recipe.evaluation import UNBOUNDED

PLOT, BESIDE = "pareto.png", "beside"
SETTINGS = 4  # that differ, and are named in a table
UNKNOWN = "–"
HOW = (
    "A model is beaten by another one that is better on the same rows, beyond noise: by the exact binomial test where "
    "answers are right or wrong, and by Student's where scores lie between. Each model may be claimed to beat each "
    f"other one, and in at most {ERROR_RATE:.0%} of such groups any of these claims is false (Holm's correction). "
    "An interval is of one figure alone: among many comparisons a gain may be noise though its interval leaves out "
    "zero. Speed and memory are those of the machine that held the exam; training has that of its own."
)


def markdown(board: Leaderboard, with_pages: bool = True) -> str:
    """Return the page; beside it lie the plot, where there is one, and with `with_pages` those of pairs."""
    parts = ["# Leaderboard", introduction(board)]
    for group in board.groups:
        parts += [f"## {title_of(group)}", choice(group), as_markdown(table_of(group))]
        if len(group.models) > 1:
            parts += beside_the_best(group, with_pages)
    if any(one.costs.size_mb is not None for group in board.groups for one in group.models):
        parts += ["## Score against size", f"![Score against size]({PLOT})", fronts(board.groups)]
    if any(len(group.models) > 1 for group in board.groups):
        parts += ["## How they were compared", HOW]
    if board.left_out:
        parts += ["## Left out", "\n".join(f"- {one.name}: {one.why}" for one in board.left_out)]
    return "\n\n".join(part for part in parts if part) + "\n"


def introduction(board: Leaderboard) -> str:
    """Return how many exams there are, and which of them are compared."""
    exams, groups = sum(len(group.models) for group in board.groups), len(board.groups)
    told = (
        f"{counted(exams, 'exam')} in force, in {counted(groups, 'group')}. Compared are exams of the same rows by the "
        "same main metric, asked in the same way; scores of different groups say nothing about each other."
    )
    return f"**Smoke runs**: nothing is proved. {told}" if board.smoke else told


def title_of(group: Group) -> str:
    """Return what was asked: `final-answer on 200 rows (0a1b2c), answers of at most 256 tokens`."""
    less = "" if group.higher_is_better else " (less is better)"
    markers = f" after {listed(group.answer_markers)}" if group.answer_markers else ""
    passages = ", with passages" if group.with_passages else ""
    against = f" by {group.against}" if group.against else ""
    rows = f"{counted(group.rows, 'row')} ({group.digest[:6]})"
    return (
        f"{group.metric}{against}{markers}{less} on {rows}, answers of at most {group.max_new_tokens} tokens{passages}"
    )


def choice(group: Group) -> str:
    """Return which models may be the best, in words that claim no more than is shown."""
    best, *others = group.unbeaten
    if len(group.models) == 1:
        return f"{best} alone: there is nothing to compare it with."
    beaten = [one.name for one in group.models if best in one.beaten_by]
    if len(beaten) == len(group.models) - 1:
        return f"**{best} is better than {'each of the others' if len(beaten) > 1 else beaten[0]}**, beyond noise."
    if len(group.unbeaten) == len(group.models):
        told = f"**No difference is beyond noise**: any of {listed(group.unbeaten)} may be the best."
    else:
        told = f"**{listed(group.unbeaten)}**: none is shown to beat {'them' if others else 'it'}."
        told += " Which of them is the best, these rows do not show." if others else ""
    return told + smallest(group)


def smallest(group: Group) -> str:
    """Return which of several models that may be the best is the smallest, where one of them is."""
    sizes = {one.name: one.costs.size_mb for one in group.models if one.name in group.unbeaten}
    known = {name: size for name, size in sizes.items() if size is not None}
    least = [name for name, size in known.items() if size == min(known.values())]
    if len(sizes) < 2 or len(known) < len(sizes) or len(least) > 1:
        return ""
    return f" The smallest of them is {least[0]}, with {mebibytes(known[least[0]])} MiB."


def table_of(group: Group) -> pd.DataFrame:
    """Return one row a model, the best score first."""
    rows = [
        {
            "model": one.name,
            "score": figure(group, one.score),
            "95 % interval": spread(group, one.interval),
            "gain over its base": f"{gain(group, one.gain)} ({gain_spread(group, one.gain_interval)})",
            "beaten by": ", ".join(one.beaten_by) or UNKNOWN,
            **costs_of(one),
            "verdict": "passed" if one.passed else "failed",
        }
        for one in group.models
    ]
    table = pd.DataFrame(rows)
    return table if any(one.costs.training_price is not None for one in group.models) else table.drop(columns="price")


def costs_of(one: Standing) -> dict[str, str]:
    """Return what a model is and takes, in words."""
    costs = one.costs
    return {
        "base model": costs.base_model or UNKNOWN,
        "parameters": UNKNOWN if costs.parameters is None else millions(costs.parameters),
        "MiB": UNKNOWN if costs.size_mb is None else mebibytes(costs.size_mb),
        "training": training_in_words(costs),
        "price": UNKNOWN if costs.training_price is None else f"{costs.training_price:,.2f}",
        "tokens/s": f"{costs.tokens_per_second:,.0f}",
        "MiB to answer": f"{costs.peak_memory_mb:,}",
        "licence": costs.license or UNKNOWN,
    }


def training_in_words(costs: Costs) -> str:
    """Return how long training took, and on what: `1.50 h on NVIDIA H200 × 2`, `40 s on cpu`."""
    seconds = costs.training_seconds
    if seconds is None:
        return UNKNOWN
    time = f"{seconds / 3600:.2f} h" if seconds >= 600 else f"{seconds:,.0f} s"
    several = f" × {costs.training_processes}" if (costs.training_processes or 1) > 1 else ""
    return f"{time} on {costs.training_device}{several}"


def beside_the_best(group: Group, with_pages: bool) -> list[str]:
    """Return the part on each model beside the one with the best score."""
    best = group.models[0].name
    rows = [
        {
            "model": one.other,
            f"gain of {best}": gain(group, one.gain),
            "95 % interval": gain_spread(group, one.interval),
            "by chance, corrected": in_chances(one),
            "other answers": f"{one.other_answers:,} of {group.rows:,}",
            "other settings": shortened(one.other_settings),
            **({"page": f"{BESIDE}/{one.other}.md"} if with_pages else {}),
        }
        for one in group.comparisons
        if one.better == best
    ]
    return [f"### Beside {best}", as_markdown(pd.DataFrame(rows))]


def fronts(groups: Sequence[Group]) -> str:
    """Return which models none is superior to by score and size, for each group of several."""
    lines = [
        f"- {title_of(group)}: {listed([one.name for one in group.models if one.is_on_front])}"
        for group in groups
        if len(group.models) > 1 and any(one.is_on_front for one in group.models)
    ]
    told = "No other model is as good and smaller, or as small and better, by the figures as they are:"
    return "\n".join([told, "", *lines]) if lines else ""


def as_markdown(table: pd.DataFrame) -> str:
    """The table, its texts as they are."""
    return table.to_markdown(index=False, disable_numparse=True)


def figure(group: Group, value: float) -> str:
    """A score: a percentage or, of a loss, a number."""
    return in_digits(value) if group.metric in UNBOUNDED else f"{value:.1%}"


def spread(group: Group, interval: tuple[float, float]) -> str:
    """The interval of a score."""
    return " to ".join(figure(group, edge) for edge in interval)


def gain(group: Group, value: float) -> str:
    """A gain: in points or, of a loss, a number."""
    return f"{value:+.2f}" if group.metric in UNBOUNDED else f"{100 * value:+.2f} points"


def gain_spread(group: Group, interval: tuple[float, float]) -> str:
    """The interval of a gain."""
    scale = 1 if group.metric in UNBOUNDED else 100
    return " to ".join(f"{scale * edge:+.2f}" for edge in interval)


def in_chances(one: Comparison) -> str:
    """The chance of a gain, and what is made of it."""
    chance = "under 0.1 %" if one.chance < 0.001 else f"{100 * one.chance:.1f} %"
    return f"{chance}: {'better' if one.is_beyond_noise else 'noise'}"


def shortened(settings: Sequence[str]) -> str:
    """The first few settings, and how many more there are."""
    more = len(settings) - SETTINGS
    return ", ".join(settings[:SETTINGS]) + (f" and {more} more" if more > 0 else "") or "none"


def millions(count: int) -> str:
    """A number of parameters: `134.5 M`, `7.24 B`."""
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"


def mebibytes(size: float) -> str:
    """A size in MiB: `0.3`, `1,234`."""
    return f"{size:.1f}" if size < 10 else f"{size:,.0f}"


def listed(names: Sequence[str]) -> str:
    """Names with commas, and `and` before the last: `a, b and c`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def counted(number: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
