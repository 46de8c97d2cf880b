"""Runs what a card says as a reader would: its shell lines, and then its code."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.waiting import PATIENCE


def as_printed(shell: str, code: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What a shell in `folder` answered that ran the lines and then the code, with stderr in stdout.

    Nothing but the lines says which hub is read from, and with which token.
    """
    (folder / "card.py").write_text(code)
    kept = {key: value for key, value in environment.items() if key not in ("HF_ENDPOINT", "HF_TOKEN")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-ec", f"{shell}\npython card.py"],
        cwd=folder,
        env={**kept, "PATH": path, "HF_HOME": str(folder / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
