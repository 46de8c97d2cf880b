"""The memory that is there, and that is free now."""

import psutil


def free_memory() -> int:
    """Return the free bytes of this process's GPU, or of the machine where it has none."""
    import torch  # which takes seconds

    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return free
    return psutil.virtual_memory().available


def gpu_memory() -> int:
    """Return the bytes of this process's GPU; 0 where it has none."""
    import torch

    return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else 0
