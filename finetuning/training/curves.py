"""The losses of a training, step by step, as report and UI plot them."""

from pathlib import Path

from transformers.integrations import TensorBoardCallback


class Curves(TensorBoardCallback):
    """Writes TensorBoard's file into `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.logging_dir = str(folder)

    def flush(self) -> None:
        """Write the points so far into the file."""
        if self.tb_writer:
            self.tb_writer.flush()
