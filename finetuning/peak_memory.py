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
        if torch.cuda.is_available():
            self.mib = torch.cuda.max_memory_allocated() // MIB
        elif STATUS.exists():
            lines = STATUS.read_text().splitlines()
            self.mib = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
        else:
            self.mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
