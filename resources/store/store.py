"""What every store of artifacts can do, wherever it keeps them."""

from dataclasses import dataclass
from pathlib import Path

Key = tuple[str, str]


@dataclass(frozen=True)
class Unfinished:
    """What an attempt at an artifact left for the next one, checkpoints above all; nobody has written to it since."""

    asset: str
    partition: str
    fingerprint: str
    created: str
    """When it was last written to."""
    bytes: int
    path: Path


def fingerprint_in(name: str) -> str:
    """That of the artifact which is made in a folder of that name."""
    return name.split(".")[1]
