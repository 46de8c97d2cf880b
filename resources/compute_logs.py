"""Keeps all that steps and the libraries in them print in the compute logs, and shows a terminal the steps' own lines.

Of the libraries' warnings, `2026-11-23 09:43:46 +0000 - dagster - INFO - … - step 2/6 · 266 tokens/s` is what is left.
dagster.yaml names the class.
"""

import os
import re
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import IO, Any, cast

from resources.dagster_internals import (
    IO_TYPE_EXTENSION,
    CapturedLogContext,
    ComputeIOType,
    ConfigurableClassData,
    LocalComputeLogManager,
    ensure_file,
    redirect_to_file,
    touch_file,
)

COLOUR = r"(?:\x1b\[[\d;]*m)?"
# How Dagster's logger begins what it writes, which is a whole message at a time, however many lines it has.
STEP_LINE = re.compile(rf"{COLOUR}\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{{4}}{COLOUR} - dagster - ")


class FoldedComputeLogs(LocalComputeLogManager):
    """The compute logs of one machine, in files. Dagster's own class shows all of it on the terminal as well."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "FoldedComputeLogs":
        """The compute logs that the section of dagster.yaml describes."""
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext, None, None]:
        """For as long as the block lasts, what this process and its children print goes to the files of `log_key`."""
        kinds = (ComputeIOType.STDOUT, ComputeIOType.STDERR)
        out, err = (self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind]) for kind in kinds)
        for file in (out, err):
            ensure_file(file)
        with (
            os.fdopen(os.dup(2), "w", encoding="utf-8") as terminal,
            redirect_to_file(sys.stdout, out),
            redirect_to_file(sys.stderr, err),
            redirect_stderr(cast(Any, StepLines(sys.stderr, terminal))),
        ):
            yield CapturedLogContext(log_key)
        touch_file(self.complete_artifact_path(log_key))


class StepLines:
    """The stream `log`, of which `terminal` gets the lines that a step logs."""

    def __init__(self, log: IO[str], terminal: IO[str]) -> None:
        self.log, self.terminal = log, terminal

    def write(self, text: str) -> int:
        """The number of characters written."""
        if STEP_LINE.match(text):
            self.terminal.write(text)
            self.terminal.flush()
        return self.log.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)
