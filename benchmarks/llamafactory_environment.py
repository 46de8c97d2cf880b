"""Makes the environment that LLaMA-Factory runs in: its versions of torch's friends are older than the project's."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".cache/benchmarks/llamafactory-venv"
REQUIREMENTS = Path(__file__).with_name("llamafactory_requirements.txt")
VERSION = "0.9.5"


def python() -> Path:
    """The interpreter of the environment, which is made on first use and whenever its requirements have changed."""
    interpreter, mark = ENVIRONMENT / "bin/python", ENVIRONMENT / "installed"
    wanted = f"{VERSION}\n{REQUIREMENTS.read_text()}"
    if mark.is_file() and mark.read_text() == wanted:
        return interpreter
    print(f"Installing LLaMA-Factory {VERSION} into {ENVIRONMENT.relative_to(ROOT)}, once …", flush=True)
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
    pip = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", REQUIREMENTS], check=True)
    subprocess.run([*pip, "--no-deps", f"llamafactory=={VERSION}"], check=True)
    # It is imported with everything else and used for sound alone; as a package it is a CUDA build.
    (next(ENVIRONMENT.glob("lib/python*/site-packages")) / "torchaudio.py").touch()
    mark.write_text(wanted)
    return interpreter
