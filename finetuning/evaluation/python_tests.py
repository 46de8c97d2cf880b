"""The metric python-tests: whether the code in an answer runs to its end, and keeps the asserts of the reference.

>>> program("Like this:\n```python\ndef twice(x):\n    return 2 * x\n```", "```python\n…\nassert twice(2) == 4\n```")
'def twice(x):\n    return 2 * x\nassert twice(2) == 4\n'

Nobody has read that code. It runs in a process of its own that Landlock and seccomp confine, see `confined_python.py`.
"""

import ast
import contextlib
import math
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Literal

from finetuning.errors import InfrastructureError
from finetuning.evaluation.bent_tests import bends
from finetuning.progress import Progress

CHILD = Path(__file__).with_name("confined_python.py")
CODE_RULES = 2  # by which the answers of a base model were scored that are found again; a change needs another number
SECONDS = 10  # on the clock
FOLDER = 2**26  # bytes of all files that a program has at one time
LOOKED_AT_EVERY = 0.05  # seconds
BLOCK = re.compile(
    r"^[ \t]*```[ \t]*(?P<language>[\w+-]*)[^\n]*\n(?P<code>.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL
)
PYTHON = ("python", "py", "python3")

Ending = Literal["passed", "failed", "bent", "slow", "unknown"]
"""Of code: it ran to its end with all asserts; it did not; it would keep any asserts, and was not run (`bent_tests`);
it was ended after `SECONDS`; or what it would do was not waited for."""


def code_of(text: str) -> str | None:
    """The Python code in a text: its blocks that say python, or those that say nothing, or all of it; None for none."""
    blocks = [(block["language"].lower(), block["code"]) for block in BLOCK.finditer(text)]
    for languages in (PYTHON, ("",)):
        found = [code for language, code in blocks if language in languages]
        if found:
            return "\n".join(found)
    return text if any(_does_something(node) for node in parsed(text)) else None


def parsed(code: str) -> list[ast.stmt]:
    """The statements of a program; none where it is no Python."""
    try:
        return ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _does_something(node: ast.stmt) -> bool:
    # "Yes" and "42" are Python too.
    return not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call)


def asserts_of(reference: str) -> str:
    """The asserts at the top level of the code in a reference, after its imports; empty where it has none."""
    nodes = parsed(code_of(reference) or "")
    if not any(isinstance(node, ast.Assert) for node in nodes):
        return ""
    return "".join(
        ast.unparse(node) + "\n" for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom, ast.Assert))
    )


def program(answer: str, reference: str) -> str | None:
    """The answer's code with the reference's asserts after it; None where the answer has no code."""
    code = code_of(answer)
    return None if code is None else code.rstrip("\n") + "\n" + asserts_of(reference)


def could_pass(answer: str, reference: str) -> bool:
    """Whether the code in a reference that was cut could run and keep the asserts, all that they ask for being there.

    >>> whole = "def twice(x):\\n    y = x\\n    return y + x\\n\\nassert twice(2) == 4"
    >>> [could_pass(whole[:end], whole) for end in (24, 42, len(whole))]
    [False, True, True]
    """
    code, whole = (parsed(code_of(text) or "") for text in (answer, reference))
    if not any(isinstance(node, ast.Assert) for node in whole):
        return bool(code)
    left, asked = ([ast.dump(node) for node in nodes if not isinstance(node, ast.Assert)] for nodes in (code, whole))
    return bool(code) and left == asked


def passes(answers: Sequence[str], references: Sequence[str], progress: Progress, name: str) -> list[float]:
    """1.0 for each answer whose code runs to its end with the reference's asserts, else 0.0; a few at a time."""
    return [float(end == "passed") for end in endings(answers, references, progress, name)]


def endings(
    answers: Sequence[str], references: Sequence[str], progress: Progress, name: str, seconds: float = math.inf
) -> list[Ending]:
    """How the code of each answer ended, with the asserts of its reference; a few at a time.

    Programs that are the same run once. `seconds` are for all of them together: what has not ended then is `unknown`.
    """
    pairs = list(zip(answers, references, strict=True))
    programs = [program(*pair) for pair in pairs]
    ended: dict[str | None, Ending] = {None: "failed"}
    for text, (answer, reference) in zip(programs, pairs, strict=True):
        if text not in ended and bends(code_of(answer) or "", code_of(reference) or ""):
            ended[text] = "bent"
    last = time.monotonic() + seconds
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        running = {pool.submit(_ending, text, last): text for text in dict.fromkeys(programs) if text not in ended}
        for number, done in enumerate(as_completed(running)):
            progress.update(f"{name}: code of {number + 1}/{len(running)} answers run")
            ended[running[done]] = done.result()
    finally:
        pool.shutdown(cancel_futures=True)
    return [ended[text] for text in programs]


def _ending(text: str | None, last: float) -> Ending:
    if time.monotonic() > last:
        return "unknown"
    report = report_of(text or "", last)
    return "passed" if report == "ended" else report if report in ("slow", "unknown") else "failed"


def report_of(text: str, last: float = math.inf) -> str:
    """What the confined child says of a program: `ended`, `unconfined: …`, or nothing where it did not come so far.

    `slow` for one that took too long, and `unknown` where it was still at it at `last`, by this process's clock.
    """
    read, write = os.pipe()
    with TemporaryDirectory() as folder, TemporaryFile() as given, os.fdopen(read, "rb") as report:
        # By a word that the program is not told, it cannot say that it has ended.
        word = secrets.token_hex(16)
        given.write(f"{word}\n".encode() + text.encode(errors="replace"))
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-S", "-s", "-P", str(CHILD), str(write)],
            stdin=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[write],
            cwd=folder,
            # Nothing of this process's; sets and dicts in one order, so that the same answer ends in the same way.
            env={"PYTHONHASHSEED": "0"},
        )
        os.close(write)
        late = _wait(process, Path(folder), last)
        said = report.read(1000).decode(errors="replace")
        return late or (said.removeprefix(f"{word} ") if said.startswith(f"{word} ") else "")


def _wait(process: subprocess.Popen, folder: Path, last: float) -> str:
    """Wait until the process has ended; kill it once it takes too long, which is told, or writes too much."""
    slow = time.monotonic() + SECONDS
    while process.poll() is None:
        late = "slow" if time.monotonic() > slow else "unknown" if time.monotonic() > last else ""
        if late or size_of(folder) > FOLDER:
            process.kill()
            process.wait()
            return late
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOKED_AT_EVERY)
    # The kernel ends what has computed for too long.
    return "slow" if process.returncode == -signal.SIGKILL else ""


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder, in which there are no folders."""
    total = 0
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # it is at work there
            total += entry.stat(follow_symlinks=False).st_size
    return total


def require_confinement(where: str) -> None:
    """Check that this machine can confine a program.

    Raises:
        FinetuningError: it cannot; nothing is run without.
    """
    report = report_of("")
    if report != "ended":
        said = report.startswith("unconfined: ")
        reason = report.removeprefix("unconfined: ") if said else f"{CHILD.name} did not run to its end"
        raise InfrastructureError(
            f"{where}: evaluation.metrics: python-tests runs code that a model wrote, and this machine cannot confine "
            f"it: {reason}. Take it out of evaluation.metrics, or run where both are there: {sys.platform} with "
            "Landlock (Linux 6.2 or newer) and libseccomp2."
        )
