"""What a file holds, in 64 hexadecimal digits."""

import hashlib
from pathlib import Path


def sha256(path: Path) -> str:
    """Return the file's sha256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
