"""Successive halving: all variants train for a short while, the better ones go on, until one is left.

Source: Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization (2016). It is
forty lines, and what it decides is part of an artifact that is found again; a library of searches would bring a
database of trials of its own beside the artifacts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from finetuning.recipe.variants import VariantsSpec


@dataclass
class Race:
    """What came of each variant, by its number."""

    losses: list[list[float]] = field(default_factory=list)
    """At each comparison that it came to, the eval loss; infinite where training diverged."""
    winner: int | None = None
    """None where training diverged with all of them."""
    in_time: bool = True
    """Whether every comparison that was due took place, with all that were to be in it."""

    def last(self, number: int) -> float:
        """Return a variant's loss at the last comparison that it came to."""
        return self.losses[number][-1]


def comparisons(spec: VariantsSpec) -> list[float]:
    """The shares of the training after which variants are compared.

    >>> comparisons(VariantsSpec(grid={"lora.r": (8, 16)}, first_share=0.2, reduction_factor=2))
    [0.2, 0.4, 0.8]
    """
    shares, share = [], spec.first_share
    while share < 1:
        shares.append(share)
        share *= spec.reduction_factor
    return shares


def race(count: int, spec: VariantsSpec, train: Callable[[int, float], float], may_go_on: Callable[[], bool]) -> Race:
    """Try `count` variants, and return what came of them.

    Args:
        train: brings the variant of that number to that share of its training, and returns its eval loss there.
        may_go_on: is asked before each training but the first; once it says no, the best so far wins.
    """
    found, racing = Race([[] for _ in range(count)], winner=0 if count == 1 else None), list(range(count))
    for share in comparisons(spec):
        if len(racing) < 2:
            break
        compared = []
        for number in racing:
            if found.losses[0] and not may_go_on():
                found.in_time = False
                break
            found.losses[number].append(train(number, share))
            compared.append(number)
        # Of those that are equal, the one that is named first.
        ranked = sorted((number for number in compared if math.isfinite(found.last(number))), key=found.last)
        found.winner = ranked[0] if ranked else found.winner
        if not found.in_time:
            break
        racing = ranked[: math.ceil(len(racing) / spec.reduction_factor)]
    return found
