"""What a part writes down: a line of JSON for each thing it tried, as soon as it is known.

>>> findings.add("sdpa, padded rows", passed=error < 0.02, error=error)
{"part": "agreement", "name": "sdpa, padded rows", "passed": true, "error": 0.004}
"""

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

Device = Literal["cuda", "cpu"]


@dataclass(frozen=True)
class Findings:
    """Those of one part."""

    part: str
    file: Path

    def add(self, name: str, passed: bool | None, **figures: Any) -> None:
        """Write down one; `passed` is None for what was measured, and for what cannot be tried here."""
        line = json.dumps({"part": self.part, "name": name, "passed": passed} | figures)
        with self.file.open("a") as file:
            file.write(line + "\n")

    @contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """Write down as failed what ends in an error within the block, which goes no further."""
        try:
            yield
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {error}"[:500]
            self.add(name, passed=False, error=said, where=f"{where.filename}:{where.lineno}")


def run(part: str, main: Callable[[Findings, Path, Device, str], None]) -> None:
    """Run a part as the command line says: the folder for its work and findings, the device, and the model's shape."""
    folder, shape, device = Path(sys.argv[1]), sys.argv[3], cast(Device, sys.argv[2])
    main(Findings(part, folder / "findings.jsonl"), folder, device, shape)
