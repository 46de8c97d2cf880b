"""Turns a user's mistake into the one message of the step that failed, and says what is worth another try."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from finetuning.errors import FAULT, INFRASTRUCTURE, KIND, FinetuningError, TransientError
from finetuning.out_of_memory import is_out_of_memory
from finetuning.secrets import masked
from finetuning.settings import Settings

# For steps that ask a network; bad data, a failed verdict and every other mistake end the run at once.
RETRIES = dg.RetryPolicy(
    max_retries=3,
    delay=Settings.read("retry_seconds").retry_seconds,  # before the first of them
    backoff=dg.Backoff.EXPONENTIAL,
    jitter=dg.Jitter.PLUS_MINUS,
)


RAN_OUT = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EIO, errno.EMFILE, errno.ENFILE)
# A folder that may not be read or written to.
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def explained() -> Iterator[None]:
    """Let a `FinetuningError` fail the step with its text and kind, as a decorator of an asset or around its body.

    So does what a machine ran out of, and what nobody foresaw. The step is tried again, where it has a retry policy,
    after a `TransientError` alone.
    """
    try:
        yield
    except FinetuningError as error:
        # From None: the way to the mistake is of no use to somebody who has to mend a recipe.
        passes = isinstance(error, TransientError)
        raise dg.Failure(description=masked(str(error)), metadata={KIND: error.kind}, allow_retries=passes) from None
    except (dg.Failure, dg.RetryRequested):
        raise
    except Exception as error:
        # It becomes the failure's cause, whose words are kept in the event log.
        error.args = tuple(masked(part) if isinstance(part, str) else part for part in error.args)
        if not ran_out(error):
            # A fault stays one, however often the step is tried.
            text = f"{type(error).__name__}: {error}"
            raise dg.Failure(description=text, metadata={KIND: FAULT}, allow_retries=False) from error
        text = f"The machine ran out of something: {type(error).__name__}: {error}. Give it more, and run it again."
        if isinstance(error, OSError) and error.errno not in RAN_OUT:
            text = f"The machine does not let the run: {type(error).__name__}: {error}. Mend that, and run it again."
        raise dg.Failure(description=text, metadata={KIND: INFRASTRUCTURE}, allow_retries=False) from error


def ran_out(error: Exception) -> bool:
    """Whether memory, disk or rights are to blame, and not whoever asked for them."""
    if isinstance(error, OSError) and error.errno in (*RAN_OUT, *REFUSED):
        return True
    return is_out_of_memory(error)
