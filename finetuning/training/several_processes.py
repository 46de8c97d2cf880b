"""Starts a module in several processes of this machine that train together, as `torchrun` does.

python -m finetuning.training.several_processes 2 finetuning.training.process JOB.json PARENT

It ends as the process did that failed, or as one that was asked to end; torchrun itself ends with 1, whatever it was.
"""

import signal
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

from finetuning.training.process import INTERRUPTED

KILLED = 128 + signal.SIGKILL  # as a shell says it


def exit_code(error: ChildFailedError) -> int:
    """That of the first process that failed; 137 where the system killed any, of which the others fail in turn."""
    if any(failure.exitcode == -signal.SIGKILL for failure in error.failures.values()):
        return KILLED
    _, first = error.get_first_failure()
    return first.exitcode if first.exitcode > 0 else 128 - first.exitcode


if __name__ == "__main__":
    processes, *command = sys.argv[1:]
    try:
        # What `accelerate launch` starts on GPUs; on CPUs that one asks for MPI.
        main(["--standalone", "--no-python", "--nproc-per-node", processes, sys.executable, "-m", *command])
    except SignalException as error:  # which it has handed on
        print(error, file=sys.stderr)
        sys.exit(INTERRUPTED)
    except ChildFailedError as error:
        print(error, file=sys.stderr)
        sys.exit(exit_code(error))
