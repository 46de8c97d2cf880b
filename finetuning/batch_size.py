"""How a training step's rows are cut into forward passes, and what becomes of that when memory runs out."""

from dataclasses import dataclass

from finetuning.errors import FinetuningError


@dataclass(frozen=True)
class BatchSize:
    """How a step's rows are cut: rows of one forward pass on one device, and forward passes of one step."""

    rows: int
    accumulation: int

    def halved(self) -> "BatchSize":
        """The same step in smaller pieces."""
        return BatchSize(-(-self.rows // 2), self.accumulation * 2)


class TooLarge(FinetuningError):
    """Memory ran out, and the recipe allows for smaller passes: those of `size` are the next to be tried."""

    def __init__(self, size: BatchSize) -> None:
        super().__init__(f"out of memory: going on with {size.rows} rows a pass and {size.accumulation} passes a step")
        self.size = size
