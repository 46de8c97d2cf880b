"""Changes of a recipe that need less memory: smaller passes, savings that it does not use yet, shorter rows.

8 rows a pass -> {"training.per_device_train_batch_size": 4, "training.gradient_accumulation_steps": 2, …}
"""

from collections.abc import Callable
from typing import Any

from finetuning.recipe.base_model import QuantizationSpec
from finetuning.recipe.recipe import Recipe

Settings = dict[str, Any]  # by their path in the recipe: {"training.per_device_train_batch_size": 4}


def with_settings(recipe: Recipe, settings: Settings) -> Recipe:
    """The recipe with other values at these paths."""
    for path, value in settings.items():
        section, key = path.split(".")
        recipe = recipe.model_copy(update={section: getattr(recipe, section).model_copy(update={key: value})})
    return recipe


def settings_that_fit(
    recipe: Recipe, longest: int, free: int, bytes_of: Callable[[Recipe], int]
) -> list[tuple[Settings, int]]:
    """What to change for the training to need no more than `free` bytes, and what it then needs: of each kind of change
    the smallest that is enough alone; where none is, as many of them together as it takes; and nothing where all are
    too little.

    Args:
        longest: tokens of the longest row.
        bytes_of: what a recipe needs.
    """

    def first(series: list[Settings]) -> list[tuple[Settings, int]]:
        sizes = ((settings, bytes_of(with_settings(recipe, settings))) for settings in series)
        return next(([(settings, size)] for settings, size in sizes if size <= free), [])

    kinds, shorter = (smaller_passes(recipe), *savings(recipe)), shorter_rows(longest)
    alone = [found for series in (*kinds, shorter) for found in first(series)]
    if alone:
        return alone
    together: Settings = {path: value for series in kinds for path, value in (series[-1] if series else {}).items()}
    return first([together, *(together | settings for settings in shorter)])


def smaller_passes(recipe: Recipe) -> list[Settings]:
    """The same steps in ever more and smaller passes, each at most half as large."""
    training, series = recipe.training, []
    if training.tokens_per_step:
        return [
            {"training.gradient_accumulation_steps": training.gradient_accumulation_steps << halvings}
            for halvings in range(1, 5)
        ]
    rows = training.per_device_train_batch_size
    step = rows * training.gradient_accumulation_steps
    while rows > 1:
        rows = next(n for n in range(rows // 2, 0, -1) if step % n == 0)
        series.append(
            {
                "training.per_device_train_batch_size": rows,
                "training.gradient_accumulation_steps": step // rows,
                "training.per_device_eval_batch_size": min(rows, training.per_device_eval_batch_size),
            }
        )
    return series


def savings(recipe: Recipe) -> list[list[Settings]]:
    """What the recipe does not make use of yet: computing activations twice, a share of the weights in each of several
    processes, weights in 4 bits.
    """
    quantization = recipe.base_model.quantization
    # PiSSA and OLoRA take a part out of the weights, which cannot be done to quantized ones.
    quantizable = recipe.lora.init_lora_weights not in ("pissa", "olora")
    return [
        [] if recipe.training.activation_checkpointing else [{"training.activation_checkpointing": True}],
        [{"resources.strategy": "fsdp"}]
        if (recipe.resources.workers or 1) > 1
        and recipe.resources.strategy == "ddp"
        and not (quantization and quantization.bits == 8)
        else [],
        [{"base_model.quantization": QuantizationSpec(bits=4)}]
        if quantizable and (quantization is None or quantization.bits == 8)
        else [],
    ]


def shorter_rows(longest: int) -> list[Settings]:
    """Ever shorter rows; what is longer is dropped or cut, as the recipe says."""
    return [{"chat.max_length": longest >> halvings} for halvings in range(1, 4)]
