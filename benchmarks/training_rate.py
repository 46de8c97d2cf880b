"""How many floating-point operations a second this machine does at best: one large matrix product in bfloat16."""

import json
import time
from pathlib import Path
from statistics import median

import torch

from benchmarks.training_jobs import Product, read


def main(job: Product) -> None:
    """The median rate is on record, in operations a second."""
    left, right = (torch.randn(job.size, job.size, dtype=torch.bfloat16) for _ in range(2))
    torch.mm(left, right)  # the first one also builds the kernel
    seconds = []
    for _ in range(job.repeats):
        started = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - started)
    Path(job.record).write_text(json.dumps({"rate": 2 * job.size**3 / median(seconds)}))


if __name__ == "__main__":
    main(read(Product))
