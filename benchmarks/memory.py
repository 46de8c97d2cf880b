"""How much memory this process holds, by what Linux says of it."""

from pathlib import Path

MEGABYTE = 2**20


def resident(key: str) -> float:
    """Megabytes of memory that this process holds now (`VmRSS`) or held at most (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / MEGABYTE for line in lines if line.startswith(f"{key}:"))
