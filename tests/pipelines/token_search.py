"""Looks for a secret in all that a run has left: as it is, in base64, in a URL, and in the rows of databases."""

import base64
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote


def forms(secret: str) -> list[bytes]:
    """How the secret may be written: itself, encoded for a URL, and in base64 after 0, 1 or 2 other bytes."""
    shifted = [base64.b64encode(b"\0" * shift + secret.encode()) for shift in range(3)]
    # The first and last characters stand for what comes before and after it, too.
    inner = [encoded.rstrip(b"=")[4 if shift else 0 : -1] for shift, encoded in enumerate(shifted)]
    urlsafe = [encoded.replace(b"+", b"-").replace(b"/", b"_") for encoded in inner]
    return [secret.encode(), quote(secret, safe="").encode(), *inner, *urlsafe]


def texts(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Each file's content; of a database, its rows, which may lie in pieces in the file."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if content.startswith(b"SQLite format 3\0"):
                connection = sqlite3.connect(path)
                content += "\n".join(connection.iterdump()).encode()
                connection.close()
            yield path, content


def places(secret: str, *folders: Path) -> list[Path]:
    """The files in which the secret is found, in whatever form."""
    wanted = forms(secret)
    return [path for folder in folders for path, content in texts(folder) if any(form in content for form in wanted)]
