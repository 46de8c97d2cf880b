"""Files that are on the disk when a call returns, or hold what they held before, whenever the process dies."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON to `path`, which holds it whole, or what it held before, whenever the process dies."""
    write_bytes(path, json.dumps(content, indent=2, sort_keys=True).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, which holds it whole, or what it held before, whenever the process dies."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def sync(*paths: Path) -> None:
    """Write the files, or the names in the folders, through to the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
