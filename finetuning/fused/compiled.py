"""A function of several steps as one kernel of a GPU, by torch's compiler."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch


def one_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a kernel that is compiled when it is first called."""
    return torch.compile(function, dynamic=True)


@cache
def compiles() -> bool:
    """Whether a kernel for this machine's GPU can be compiled: torch needs Triton for it, and that a C compiler."""
    if not torch.cuda.is_available():
        return False
    try:
        found = torch.compile(_tried, dynamic=True)(torch.ones(8, device="cuda"))
    except Exception:  # whatever is missing, the steps can be taken one by one
        return False
    return found.tolist() == [3.0] * 8


def _tried(x: torch.Tensor) -> torch.Tensor:
    return x * 2 + 1
