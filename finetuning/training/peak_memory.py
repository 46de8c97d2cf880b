"""The most memory that a piece of work held: of the GPU where there is one, else resident.

>>> with PeakMemory() as memory:
...     answers = generate(…)
>>> memory.mib
1466
"""

import resource
from pathlib import Path
from types import TracebackType

import torch

MIB = 2**20
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """`mib` is the most MiB that this process held while the block lasted, with what it held before."""

    mib = 0

    def __enter__(self) -> "PeakMemory":
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        elif FORGET.exists():
            FORGET.write_text("5")  # Linux forgets the highest mark, which else is that of the whole process
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.mib = peak_memory()


def peak_reserved() -> int | None:
    """MiB of the GPU that torch had taken at most, with what lay free between tensors; None without a GPU."""
    return torch.cuda.max_memory_reserved() // MIB if torch.cuda.is_available() else None


def peak_memory() -> int:
    """MiB that this process held at most: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // MIB
    if STATUS.exists():  # getrusage's figure begins with what the parent held when it started this process
        lines = STATUS.read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
