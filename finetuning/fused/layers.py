"""All layers of a model that compute otherwise while they are trained."""

import torch

from finetuning.fused.compiled import compiles
from finetuning.fused.gates import fuse_gates
from finetuning.fused.norms import fuse_norms
from finetuning.fused.products import fuse_products
from finetuning.fused.rotations import fuse_rotations


def fuse_layers(model: torch.nn.Module, on_cpu: bool) -> None:
    """Let layers of each known kind compute in fewer steps; others, and all while they answer, stay as they are."""
    fuse_products(model, on_cpu)
    fuse_others(model, on_cpu, compiles=not on_cpu and compiles())


def fuse_others(model: torch.nn.Module, on_cpu: bool, compiles: bool) -> None:
    """The same of all but the adapter's. They are found by trial, for which tensors without data would not do.

    Args:
        compiles: whether several steps become one kernel, which holds no less than they do.
    """
    fuse_gates(model, compiles)
    fuse_rotations(model, compiles)
    if not on_cpu:
        fuse_norms(model)
