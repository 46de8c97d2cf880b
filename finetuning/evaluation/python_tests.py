"""The metric python-tests: whether the code in an answer runs to its end, and keeps the asserts of the reference.

>>> program("Like this:\n```python\ndef twice(x):\n    return 2 * x\n```", "```python\n…\nassert twice(2) == 4\n```")
'def twice(x):\n    return 2 * x\nassert twice(2) == 4\n'

Nobody has read that code. It runs in a process of its own that Landlock and seccomp confine, see `confined_python.py`.
"""

import ast
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from finetuning.errors import InfrastructureError
from finetuning.progress import Progress

CHILD = Path(__file__).with_name("confined_python.py")
SECONDS = 10  # on the clock
FOLDER = 2**26  # bytes of all files that a program has at one time
LOOKED_AT_EVERY = 0.05  # seconds
BLOCK = re.compile(
    r"^[ \t]*```[ \t]*(?P<language>[\w+-]*)[^\n]*\n(?P<code>.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL
)
PYTHON = ("python", "py", "python3")


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
    """1.0 for each answer whose code runs to its end with the reference's asserts, else 0.0; a few at a time.

    Programs that are the same run once.
    """
    programs = [program(*pair) for pair in zip(answers, references, strict=True)]
    ended: dict[str | None, bool] = {}
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        running = {pool.submit(report_of, text): text for text in dict.fromkeys(programs) if text is not None}
        for number, done in enumerate(as_completed(running)):
            progress.update(f"{name}: code of {number + 1}/{len(running)} answers run")
            ended[running[done]] = done.result() == "ended"
    finally:
        pool.shutdown(cancel_futures=True)
    return [float(ended.get(text, False)) for text in programs]


def report_of(text: str) -> str:
    """What the confined child says of a program: `ended`, `unconfined: …`, or nothing where it did not come so far."""
    read, write = os.pipe()
    with TemporaryDirectory() as folder, TemporaryFile() as given, os.fdopen(read, "rb") as report:
        given.write(text.encode(errors="replace"))
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
        _wait(process, Path(folder))
        return report.read(1000).decode(errors="replace")


def _wait(process: subprocess.Popen, folder: Path) -> None:
    """Wait until the process has ended; kill it once it takes too long, or writes too much."""
    last = time.monotonic() + SECONDS
    while process.poll() is None:
        if time.monotonic() > last or size_of(folder) > FOLDER:
            process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOKED_AT_EVERY)


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
        reason = report.removeprefix("unconfined: ") or f"{CHILD.name} did not run"
        raise InfrastructureError(
            f"{where}: evaluation.metrics: python-tests runs code that a model wrote, and this machine cannot confine "
            f"it: {reason}. Take it out of evaluation.metrics, or run where both are there: {sys.platform} with "
            "Landlock (Linux 6.2 or newer) and libseccomp2."
        )
