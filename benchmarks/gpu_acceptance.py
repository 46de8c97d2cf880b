"""Everything that only a GPU can prove, the most important first: one command of at most 25 minutes.

`python -m benchmarks.gpu_acceptance` runs part after part in a process of its own, with a limit of time: one that fails
or hangs ends none of the others. What each finds is written down at once, as a line of JSON in `--out`. Nothing is
downloaded.

`--device cpu --tiny` runs the same code in minutes; what it prints says nothing of a GPU.

The last line of the output is one JSON object. The exit code is 1 where something was found that is not as it should.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".cache/benchmarks"
OWN = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate")
KERNELS = ("triton", "flash-attn", "flash-attn-4", "liger-kernel")


class Part(NamedTuple):
    """A command, and what it may take."""

    name: str
    seconds: int
    what: str


PARTS = (
    Part("agreement", 180, "NF4, kernels and the loss compute what a CPU does"),
    Part("recipes", 270, "two steps of each recipe's architecture"),
    Part("memory", 300, "predicted memory beside measured"),
    Part("speed", 420, "tokens a second beside trl, alone and with Liger"),
    Part("generation", 120, "answers a second"),
    Part("resume", 120, "a killed training goes on"),
    Part("half", 90, "training in float16"),
)


def main(arguments: list[str] | None = None) -> None:
    """All parts are run, and their table and the JSON object printed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_acceptance", description="Prove it on a GPU.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="where to train (cuda)")
    parser.add_argument(
        "--tiny", dest="shape", action="store_const", const="tiny", default="mistral-7b", help="two small layers"
    )
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], help="these alone (all)")
    parser.add_argument("--out", type=Path, default=WORK / "acceptance.jsonl", help="where findings go (%(default)s)")
    options = parser.parse_args(arguments)
    if options.device == "cpu" and options.shape != "tiny":
        parser.error("--device cpu: 7 billion weights would take days; add --tiny")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"versions": versions()}) + "\n")
    WORK.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    with TemporaryDirectory(prefix="acceptance-", dir=WORK) as folder:
        for part in PARTS:
            if options.parts is None or part.name in options.parts:
                found += findings_of(part, Path(folder), options)
    failed = [f"{it['part']}: {it['name']}" for it in found if it["passed"] is False]
    print(json.dumps({"found": len(found), "failed": failed, "out": str(options.out)}))
    sys.exit(bool(failed))


def findings_of(part: Part, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What the part found, as it is printed and written down too."""
    work = folder / part.name
    work.mkdir()
    print(f"\n{part.name}: {part.what}", flush=True)
    began = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.acceptance.{part.name}", str(work), options.device, options.shape]
    if part.name == "speed":
        command = [sys.executable, "-m", "benchmarks.gpu", "--device", options.device, "--rounds", "1"]
        command += ["--tiny"] if options.shape == "tiny" else ["--tokens", "200000"]
    ended, said = limited(command, part.seconds, work / "log")
    lines = (work / "findings.jsonl").read_text().splitlines() if (work / "findings.jsonl").exists() else []
    found = [json.loads(line) for line in lines]
    if part.name == "speed" and ended == "0":
        found.append({"part": "speed", "name": "training", "passed": True, **json.loads(said.splitlines()[-1])})
    elif ended != "0":
        found.append({"part": part.name, "name": "to its end", "passed": False, "ended": ended, "said": said[-1500:]})
    with options.out.open("a") as out:
        for it in found:
            out.write(json.dumps(it) + "\n")
            mark = {True: "right", False: "WRONG", None: "  -  "}[it["passed"]]
            figures = {key: value for key, value in it.items() if key not in ("part", "name", "passed", "said")}
            print(f"  {mark}  {it['name']}: {shown(figures)}", flush=True)
    print(f"  {time.monotonic() - began:.0f} s", flush=True)
    return found


def limited(command: list[str], seconds: int, log: Path) -> tuple[str, str]:
    """How the command ended (its exit code, or that its time was over), and what it said."""
    with log.open("wb") as file:
        # A group of its own, so that what it has started ends with it.
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            ended = str(process.wait(seconds))
        except subprocess.TimeoutExpired:
            ended = f"after {seconds} s"
        finally:
            end_group(process)
    return ended, log.read_text(errors="replace")


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process and of all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def shown(figures: dict[str, Any]) -> str:
    """The figures as text, numbers with three digits."""
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items()
    )


def versions() -> dict[str, str]:
    """Those of Python and the libraries that are there."""
    found = {"python": platform.python_version()}
    for name in (*OWN, *KERNELS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
