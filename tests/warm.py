"""A process that has imported the heavy libraries once, and forks for each command of a world that it is asked for.

What the project's own modules read of the environment they read anew in each fork: none of them stays imported. What
libraries read once when they are imported, such as HF_HOME, is that of the process, whose cache and hub
`tests/warm_server.py` turns into those of the world that asks.

    python -m tests.warm SOCKET     serves; ends with the process that started it
    python warm.py -m MODULE ARGUMENT …       asks for a command or a training, in the place of the interpreter
    python warm.py -c CODE ARGUMENT …         asks for code of a test's own
"""

import gc
import json
import os
import signal
import socket
import sys
import tempfile
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SERVER = "TESTS_WARM_SERVER"
SERVED = (
    "dagster",
    "finetuning.memory.predicted_training",
    "finetuning.recipe",
    "finetuning.training.process",
    "finetuning.training.several_processes",
    "pipelines.results",
)
PRELOADED = (
    "dagster._cli",
    "finetuning.evaluation.evaluation_report",
    "finetuning.memory.prediction",
    "finetuning.plots",
    "finetuning.training.lora_adapter",
    "finetuning.training.several_processes",
    "pipelines.definitions",
)
PROJECT = ("assets", "finetuning", "pipelines", "resources")


def ask(address: str, arguments: list[str], environment: dict[str, str]) -> int:
    """Return the exit code of `python` with these arguments, which has this process's input and output."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        asked = json.dumps({"arguments": arguments, "environment": environment, "folder": str(Path.cwd())}).encode()
        socket.send_fds(connection, [len(asked).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(asked)
        with connection.makefile("r") as answers:
            worker = int(answers.readline())

            def pass_on(number, frame):
                with suppress(ProcessLookupError):
                    os.kill(worker, number)

            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, pass_on)
            code = int(answers.readline())
    return code if code >= 0 else 128 - code


def serve(address: str) -> None:
    """Answer one connection after the other, each in a process of its own, until whoever started this one ends."""
    preload()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        server.settimeout(1)
        parent = os.getppid()
        while os.getppid() == parent:
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            with suppress(TimeoutError):
                connection, _ = server.accept()
                if os.fork() == 0:
                    server.close()
                    os._exit(answer(connection))
                connection.close()


def preload() -> None:
    """Import the libraries that the project's modules import, and forget the modules."""
    for name in PRELOADED:
        import_module(name)
    for name in [name for name in sys.modules if name.split(".")[0] in PROJECT]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()  # so that no fork goes through, and thereby copies, what all of them have


def answer(connection: socket.socket) -> int:
    """Start what is asked for, tell its id, wait for it, and tell its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.setblocking(True)
    header, files, _, _ = socket.recv_fds(connection, 8, 3)
    asked = json.loads(connection.makefile("rb").read(int.from_bytes(header, "big")))
    worker = os.fork()
    if worker == 0:
        connection.close()
        run(asked["arguments"], asked["environment"], asked["folder"], files)
    connection.sendall(f"{worker}\n".encode())
    _, status = os.waitpid(worker, 0)
    with suppress(BrokenPipeError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    return 0


def run(arguments: list[str], environment: dict[str, str], folder: str, files: list[int]) -> None:
    """Be `python` with these arguments, to the end of the process."""
    import atexit
    import runpy
    import threading

    for file, number in zip(files, (0, 1, 2), strict=True):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    # What this process starts in turn, such as a training, is asked for here too.
    tempfile.tempdir = None
    sys.executable = str(Path(environment[SERVER]).with_name("python"))
    option, what, *rest = arguments
    sys.argv = [what if option == "-m" else option, *rest]
    sys.stdin = open(0)  # noqa: SIM115
    if environment.get("PYTHONUNBUFFERED"):
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through=True)
    code = 0
    try:
        if option == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), sys.modules["__main__"].__dict__)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def main() -> None:
    """Serve, or ask the server for a module's run or that of some code."""
    if sys.argv[1] in ("-m", "-c"):
        sys.exit(ask(os.environ[SERVER], sys.argv[1:], dict(os.environ)))
    serve(sys.argv[1])


if __name__ == "__main__":
    main()
