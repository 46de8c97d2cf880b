"""The layers that a model is a stack of."""

from typing import Any

import torch


def layers_of(model: Any) -> list[torch.nn.Module]:
    """The blocks that the model is a stack of, none within another."""
    names, found, within = set(model._no_split_modules or ()), [], set()
    for module in model.modules():
        if type(module).__name__ in names and module not in within:
            found.append(module)
            within.update(module.modules())
    return found
