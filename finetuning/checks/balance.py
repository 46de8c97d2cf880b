"""Says how many answers were judged good and bad, and how to weigh them against each other."""

import numpy as np

from finetuning.errors import FinetuningError
from finetuning.recipe.recipe import Recipe

# How much more good answers may count than bad ones in all.
HEAVIEST = 4 / 3


def balance(desirable: np.ndarray, recipe: Recipe, left_out: str = "") -> list[str]:
    """Say how many answers were judged good and bad, and how to weigh them where one kind outweighs the other.

    Args:
        left_out: which rows were dropped and why, with which the other judgement may be gone.

    Source: equation 8 of Ethayarajh et al., KTO (2024).

    Raises:
        FinetuningError: all were judged alike.
    """
    good, training = int(desirable.sum()), recipe.training
    bad = len(desirable) - good
    if not good or not bad:
        raise FinetuningError(
            f"{recipe.file}: training.method: kto learns to tell good answers from bad ones, and all {len(desirable)} "
            f"train rows have the label {str(bool(good)).lower()}. Add rows with the other one"
            + (", or learn these with method: sft, from data without the label." if good else ".")
            + (f" {left_out}" if left_out else "")
        )
    share = good * training.desirable_weight / (bad * training.undesirable_weight)
    found = f"{good} answers were judged good and {bad} bad"
    if share > HEAVIEST:
        return [
            f"{found}: write training.undesirable_weight: {good * training.desirable_weight / bad:.3g} to even it out"
        ]
    if share < 1:
        return [
            f"{found}: write training.desirable_weight: {bad * training.undesirable_weight / good:.3g} to even it out"
        ]
    return [found]
