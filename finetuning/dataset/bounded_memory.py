"""A bound of the memory that reading somebody's file may take: a few kilobytes of Parquet can stand for gigabytes."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

MOST = 2 << 30  # bytes


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Let this process take no more than 2 GiB on top of what it has, as long as the block lasts.

    What asks for more gets a MemoryError, as pyarrow's `ArrowMemoryError` is one.
    """
    # Of this kind files that are mapped into memory are none.
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = psutil.Process().memory_info().data + MOST
    resource.setrlimit(resource.RLIMIT_DATA, (most if soft == resource.RLIM_INFINITY else min(soft, most), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
