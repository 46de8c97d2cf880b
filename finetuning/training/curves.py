"""The losses of a training, step by step, as report and UI plot them."""

from pathlib import Path
from typing import Any

from transformers.integrations import TensorBoardCallback


class Curves(TensorBoardCallback):
    """Writes TensorBoard's file into `folder`, until it is told to end.

    The evaluation after the training belongs to it too. transformers would begin another file for that, by the same
    name where the training took less than a second.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.logging_dir = str(folder)

    def on_train_end(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        """Keep the file open: transformers would close it before the last evaluation."""

    def flush(self) -> None:
        """Write the points so far into the file."""
        if self.tb_writer:
            self.tb_writer.flush()

    def finish(self) -> None:
        """Write all points into the file, and close it."""
        if self.tb_writer:
            self.tb_writer.close()
